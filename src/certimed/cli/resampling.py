"""``certimed verify --resample``: load model and data again and redraw some images' noise."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from certimed.budgets import Budget
from certimed.certificates import NATIVE
from certimed.classifiers import MODEL
from certimed.cli import classify, inputs
from certimed.cli.console import out, printable
from certimed.cli.mask_resampling import compare_run
from certimed.cli.prompting import parse_prompts
from certimed.data import ReadOptions
from certimed.errors import InputError
from certimed.integrity import strict_json
from certimed.runs import RunFolder
from certimed.engine.throughput import settled
from certimed.verification import Comparison, resample
from certimed.verification.resampling import Recount, recorded_counts


@dataclass(frozen=True)
class Sources:
    """Where the verifier takes model and data from; never from the run's word alone."""

    model: str | None
    data: Path | None
    classes: Sequence[str] | None
    labels: Path | None
    split: str | None
    prompts: str | None
    device: str
    denoiser: str | None = None
    allow_code: bool = False
    size: tuple[int, int] | None = None
    output: str | None = None


def compare(path: Path, m: int, salt: str | None, sources: Sources) -> bool:
    """Redraw ``m`` images of a run, print each comparison; returns whether all are consistent."""
    folder = RunFolder.open(path)
    chosen = salt if salt is not None else secrets.token_hex(8)
    if folder.manifest.get("task") == "segment":
        return compare_run(folder, m, chosen, sources)
    recorded = recorded_counts([strict_json(line, "a line") for _, line in folder.lines()])
    sizes = {item: {name: sum(counts) for name, counts in methods.items()} for item, methods in recorded.items()}
    found = resample(recorded, _recount(folder.manifest, sources, sizes), m, chosen)
    for one in found:
        _print(one)
    equal = sum(one.equal for one in found)
    out.print(f"redrawn with salt {printable(chosen)}: {equal} of {len(found)} counts are equal", highlight=False)
    if equal < len(found) and all(one.consistent for one in found):
        out.print(
            "The others pass a consistency test (Fisher's exact test for each class, level 1e-6): it can show that "
            "counts do not belong together, not that they do. On the same kind of device with the same library "
            "versions all must be equal.",
            highlight=False,
        )
    return all(one.consistent for one in found)


def _print(one: Comparison) -> None:
    verdict = (
        "equal" if one.equal else f"{'consistent' if one.consistent else '[bold red]false[/]'}, p={one.p_value:.2g}"
    )
    counts = "" if one.equal else f" (recorded {list(one.recorded)}, now {list(one.redrawn)})"
    out.print(f"{printable(one.item)} {printable(one.method)}: {verdict}{printable(counts, 300)}", highlight=False)


def _recount(manifest: Mapping[str, Any], sources: Sources, sizes: Mapping[str, Mapping[str, int]]) -> Recount:
    """Build model, prompts and data as the manifest describes them, from what the verifier names.

    Args:
        sizes: estimation samples recorded, by item and method.
    """
    try:
        settings = classify.Settings.recorded(manifest)
        recorded, reading, model = manifest["prompts"], dict(manifest["data"]["reading"]), manifest["model"]
        tuning = {name: recorded[name] for name in ("initial_context", "copies", "steps", "lr")}
        names = ["none" if name == MODEL else str(name) for name in recorded["methods"]]
        templates = list(manifest["templates"])
        wanted = {kind: recorded[kind] for kind in ("few_shot", "pool")}
        reading = {name: tuple(value) if isinstance(value, list) else value for name, value in reading.items()}
        options = ReadOptions(**reading)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"run.json lacks what --resample needs ({error}); it was written by another version"
        ) from error
    job = classify.prepare(
        model=inputs.needed("--model", sources.model, "hf:vinid/plip"),
        source=inputs.Source(
            path=inputs.needed("--data", sources.data, "images/"),
            classes=sources.classes,
            labels=sources.labels,
            split=sources.split,
            reading=options,
            masks=None,
        ),
        templates=templates,
        prompting=parse_prompts(sources.prompts or ",".join(names), **tuning),
        limit=None,
        seed=settings.seed,
        device=sources.device,
        denoiser=sources.denoiser,
        allow_code=sources.allow_code,
        size=sources.size,
    )
    denoiser = None if job.denoiser is None else classify.denoiser_identity(job.denoiser)
    for what, own, its in (
        ("the model", job.model.identity, model["identity"]),
        *(
            (f"the {kind} prompt", getattr(getattr(job.prompting, kind), "identity", None), wanted[kind])
            for kind in wanted
        ),
        ("the denoiser", denoiser, manifest.get("denoiser")),
        ("the list of classes", list(job.class_names), manifest["classes"]),
    ):
        if own != its:
            raise InputError(f"{what} is not the one of this run: it is {own!s:.80}, the run's is {its!s:.80}")
    comparison = job.comparison(settings.sigma, settings.space, settings.acceleration)
    positions = {item: index for index, item in enumerate(job.dataset.ids)}

    def draw(item: str, budget: Budget | int | str | None) -> dict[str, tuple[int, ...]]:
        if item not in positions:
            raise InputError(
                f"{item!r:.80} of this run is not in {job.dataset.source}; name the run's data with --data"
            )
        pixels = torch.from_numpy(job.dataset.load(positions[item]).pixels).to(job.model.device)
        results = comparison.run(
            pixels if settings.space == NATIVE else job.model.preprocess(pixels),
            n0=settings.n0,
            budget=budget,
            alpha=settings.alpha,
            seed=settings.seed,
            item_id=item,
            batch_size=settled(settings.batch_size),
            bound=settings.bound,
        )
        return {name: result.certificate.counts for name, result in results.items()}

    def recount(item: str) -> dict[str, tuple[int, ...]]:
        """Under the run's budget; where rounding made a method stop elsewhere, exactly the samples it recorded."""
        found = draw(item, settings.budget)
        for n in {n for name, n in sizes[item].items() if name in found and sum(found[name]) != n}:
            again = draw(item, n)
            found |= {name: again[name] for name, size in sizes[item].items() if size == n and name in again}
        return found

    return recount
