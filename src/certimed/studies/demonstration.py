"""The embedded demo: prompts and masks certified on brain MRI slices, offline, with nothing to download."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from certimed.assets import asset, demo_prompts
from certimed.certificates import END_TO_END, ClassCertificate
from certimed.engine import DENOISED, PLAIN
from certimed.errors import InputError
from certimed.prompts import TuningPlan, TuningProgress, tune_prompt
from certimed.runs import DataSpec, MeasureTarget, RunSpec, Tuning, Watcher
from certimed.studies.study import Study, run_study
from certimed.vlm import load

SIGMAS, LEARNT_AT = (0.5, 1.0), (0.0, 0.25, 0.5, 1.0)
MASK_SIGMAS = (0.25,)
MEASURED, MEASURED_AT = "area:grey matter", (0.1, 0.25)
# Millimetres from pixel to pixel of the slices, which PNG files do not say.
SPACING = 1.5
# About a third of the spread of this model's token embeddings, as the published 0.005 is of CLIP's.
TUNING_RATE = 0.1


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        prompts: runs of labels by several methods.
        masks: runs of masks and of a measurement read off them, or None.
        pictures: panels of masks.
    """

    prompts: Study
    masks: Study | None
    pictures: tuple[Path, ...] = ()

    def largest(self) -> ClassCertificate:
        """The certificate with the largest radius among those whose scope is the whole pipeline."""
        whole = [one for series in self.prompts.series for one in series.certificates if one.scope == END_TO_END]
        largest: ClassCertificate = max(whole, key=lambda one: one.radius)
        return largest


def demo(
    out: str | Path,
    *,
    images: int = 22,
    n: int = 300,
    masks: int = 4,
    mask_n: int = 100,
    seed: int = 0,
    watcher: Watcher | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
) -> Demo:
    """Tune a prompt, certify held-out slices at several noise levels by plain and learnt prompts and by a LoRA adapter
    learnt beforehand; then masks of slices and the area of grey matter read off them, and draw panels.

    Args:
        out: new folder for everything.
        images, n: slices to classify at each sigma, and noisy copies of each.
        masks, mask_n: slices to segment at each sigma (0: none), and noisy copies of each.
        seed: of all noise.
        watcher: told what happens.
        progress: told how tuning gets on.

    Raises:
        InputError: the folder has content or cannot be written.
    """
    folder = _new_folder(Path(out))
    prompts = _prompts(folder, images, n, seed, watcher, progress)
    if not masks:
        return Demo(prompts, None)
    found = _masks(folder, masks, mask_n, seed, watcher)
    return Demo(prompts, found, _draw(found))


def _new_folder(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another folder, nothing was overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
    return folder


def _prompts(
    folder: Path,
    images: int,
    n: int,
    seed: int,
    watcher: Watcher | None,
    progress: Callable[[TuningProgress], None] | None,
) -> Study:
    words = demo_prompts()
    names, entries = (
        tuple(words["classes"].values()),
        tuple(f"{slug}={text}" for slug, text in words["classes"].items()),
    )
    vlm = load("demo")
    # Tuning slices share no slab with test slices.
    slices = DataSpec(str(asset("demo_tuning_images")), entries).open()
    plan = TuningPlan(LEARNT_AT, epochs=200, context=words["initial_context"], per_class=True, seed=seed, copies=30)
    prompt = tune_prompt(vlm, slices, names, plan, method="few-shot", progress=progress)
    few_shot = str(prompt.save(folder.resolve() / "few-shot.safetensors"))
    spec = RunSpec(
        model="demo",
        data=DataSpec(str(asset("demo_images")), entries, limit=images),
        methods=(PLAIN, "zero-shot", few_shot, str(asset("demo_lora") / "lora.safetensors")),
        budget=n,
        n0=100,
        seed=seed,
        templates=tuple(words["templates"]),
        tuning=Tuning(words["initial_context"], lr=TUNING_RATE),
    )
    specs = {f"prompts-sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in SIGMAS}
    return run_study(specs, folder, load=lambda one: one.load(model=vlm), watcher=watcher)


def _masks(folder: Path, images: int, n: int, seed: int, watcher: Watcher | None) -> Study:
    data = asset("demo_segmentation_images")
    names = tuple(json.loads((data / "classes.json").read_text(encoding="utf-8")))
    spec = RunSpec(
        model="demo",
        data=DataSpec(str(data), names, limit=images),
        target=MeasureTarget((MEASURED,), MEASURED_AT, spacing=(SPACING, SPACING), taus=(0.75,)),
        methods=(PLAIN, DENOISED),
        budget=n,
        seed=seed,
        denoiser="demo",
    )
    specs = {f"masks-sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in MASK_SIGMAS}
    return run_study(specs, folder, watcher=watcher)


def _draw(study: Study) -> tuple[Path, ...]:
    """A panel of the first image at each sigma: image, noisy, denoised, truth; certified masks and radius maps."""
    from certimed.report.figures import draw_record

    drawn: list[Path] = []
    for label, spec in study.specs.items():
        folder = study.folders[label]
        first = next((record for record in folder.records() if record.certificates), None)
        if first is not None:
            drawn += draw_record(spec.load(), first, folder.path / "pictures")
    return tuple(drawn)
