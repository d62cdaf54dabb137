"""The work behind ``certimed tune``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from certimed.classifiers import load_prompted
from certimed.cli import inputs
from certimed.cli.classify import class_names
from certimed.cli.console import err, out, printable
from certimed.cli.prompting import words_before_name
from certimed.data import Dataset, few_shot_indices, open_dataset, overlap
from certimed.errors import InputError
from certimed.prompts import Prompt, TuningProgress, few_shot, pool
from certimed.vlm import VisionLanguageModel


@dataclass(frozen=True)
class Tuning:
    """How to learn; see :func:`certimed.prompts.few_shot`."""

    sigmas: tuple[float, ...]
    shots: int
    epochs: int
    recipe: str
    context: str | int
    per_class: bool
    position: str
    held_out: int
    early_stop: int | None
    seed: int
    batch_size: int | None
    copies: int = 100


def context_start(text: str, templates: Sequence[str] | None) -> str | int:
    """Where a context starts: a number of random tokens, words, or a template's words before the class name."""
    if templates:
        return words_before_name(templates[0])
    return int(text) if text.isdecimal() else text


def run(
    model: str,
    source: inputs.Source,
    test: Path | None,
    how: Tuning,
    method: str,
    device: str,
    target: Path,
    *,
    allow_code: bool = False,
) -> None:
    """Tune, save, and say what was reached; refuses tuning images that are also test images."""
    dataset = source.open()
    if test is not None:
        _refuse_overlap(dataset, open_dataset(test, options=source.reading))
    names = class_names(dataset, source.classes)
    vlm = load_prompted(model, device, allow_code=allow_code)
    prompt = learn_few_shot(vlm, dataset, names, how) if method == "few-shot" else learn_pool(vlm, dataset, names, how)
    prompt.save(target)
    for part, by_sigma in prompt.accuracies.items():
        levels = ", ".join(f"sigma {level}: {100 * share:.0f} %" for level, share in by_sigma.items())
        out.print(f"accuracy on {part} images: {levels}", highlight=False)
    out.print(f"prompt written to {printable(str(target))} ({target.stat().st_size:,} bytes)", highlight=False)


def _refuse_overlap(tuning: Dataset, test: Dataset) -> None:
    shared = overlap(tuning, test)
    if shared:
        raise InputError(
            f"{len(shared)} images of {tuning.source} are also in the test images {test.source} (the first is "
            f"{shared[0][0]!r}); remove them from one"
        )


def learn_few_shot(vlm: VisionLanguageModel, dataset: Dataset, names: Sequence[str], how: Tuning) -> Prompt:
    """Draw class-balanced shots and learn a context from them."""
    if not dataset.is_labelled:
        raise InputError(
            f"{dataset.source} has images without labels; few-shot tuning needs labels, or use --method pool"
        )
    drawn = few_shot_indices(dataset, how.shots, how.seed)
    kept = None
    if how.held_out:
        rest = dataset.subset(sorted(set(range(len(dataset))) - set(drawn)))
        kept = load_images(vlm, rest, few_shot_indices(rest, how.held_out, how.seed))
    images, labels = load_images(vlm, dataset, drawn)
    with _progress() as report:
        return few_shot(
            vlm,
            images,
            labels,
            names,
            shots=how.shots,
            epochs=how.epochs,
            sigmas=how.sigmas,
            recipe=how.recipe,
            context=how.context,
            per_class=how.per_class,
            position=how.position,  # type: ignore[arg-type]
            seed=how.seed,
            held_out=kept,
            early_stop=how.early_stop,
            batch_size=how.batch_size,
            progress=report,
        )


def learn_pool(vlm: VisionLanguageModel, dataset: Dataset, names: Sequence[str], how: Tuning) -> Prompt:
    """Tune once on noisy copies of every image, labels unused."""
    images, _ = load_images(vlm, dataset, range(len(dataset)))
    sigmas = tuple(sigma for sigma in how.sigmas if sigma > 0)
    if not sigmas:
        raise InputError("--sigmas has no level above 0; a pool is tuned on noisy copies")
    with _progress() as report:
        return pool(
            vlm,
            images,
            names,
            sigmas=sigmas,
            context=how.context,
            copies=how.copies,
            seed=how.seed,
            position=how.position,  # type: ignore[arg-type]
            batch_size=how.batch_size,
            progress=lambda done, total: report(TuningProgress("embedding", done, total)),
        )


def load_images(vlm: VisionLanguageModel, dataset: Dataset, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images in the certified space ``(N, C, H, W)`` and their labels (-1 where unlabelled).

    Raises:
        ImageError: one of them cannot be read; tuning data has to be whole.
    """
    loaded = [dataset.load(index) for index in indices]
    images = torch.stack([vlm.preprocess(torch.from_numpy(image.pixels).to(vlm.device)) for image in loaded])
    return images, torch.tensor([-1 if image.label is None else image.label for image in loaded])


class _progress:
    """A line that shows the stage, the loss and the noisy accuracy."""

    def __enter__(self) -> Callable[[TuningProgress], None]:
        columns = (TextColumn("{task.description}"), TimeElapsedColumn())
        self.bar = Progress(*columns, console=err, transient=True)
        self.task = self.bar.add_task("loading")
        self.bar.__enter__()
        return self._show

    def __exit__(self, *exception: object) -> None:
        self.bar.__exit__(*exception)  # type: ignore[arg-type]

    def _show(self, state: TuningProgress) -> None:
        text = f"{state.stage} {state.done}/{state.total}"
        if state.loss is not None and state.accuracy is not None:
            text += f", loss {state.loss:.3f}, noisy accuracy {100 * state.accuracy:.0f} %"
        for sigma, share in (state.held_out or {}).items():
            text += f", held out at {sigma:g}: {100 * share:.0f} %"
        self.bar.update(self.task, description=text)
