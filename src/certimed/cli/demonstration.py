"""What ``certimed demo`` does, step by step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from certimed.assets import asset, demo_prompts
from certimed.cli import classify, inputs, segment, tuning
from certimed.cli.console import out, printable
from certimed.cli.prompting import Prompting
from certimed.cli.tables import print_accuracy
from certimed.data import open_dataset
from certimed.errors import InputError
from certimed.runs import ClassRecord, MaskSettings, RunFolder
from certimed.vlm import VisionLanguageModel

SIGMAS = (0.25, 0.5, 1.0)
MASK_SIGMAS = (0.25, 0.5)
# About a third of the spread of this model's token embeddings, as the published 0.005 is of CLIP's.
TUNING_RATE = 0.1
METHODS = ("none", "few-shot", "zero-shot", "both", "pool")


def prepare_folder(folder: Path) -> None:
    """Refuse a folder that has content; make it otherwise."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another --out, nothing was overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error


def masks(folder: Path, *, images: int, n: int, seed: int) -> None:
    """Certify masks of held-out slices with and without the denoiser, print the table, draw panels."""
    data = asset("demo_segmentation_images")
    names = json.loads((data / "classes.json").read_text(encoding="utf-8"))
    job = segment.prepare(
        model="demo",
        denoiser="demo",
        methods=None,
        dataset=inputs.Source(data).open(),
        limit=images,
        device="cpu",
        class_names=names,
    )
    out.print(
        f"{len(job.dataset)} held-out slices, {len(names)} tissue classes, a small U-Net trained without noise, with "
        f"and without one diffusion step in front; {n:,} noisy copies an image, tau 0.75, alpha 0.001 for all pixels.",
        highlight=False,
    )
    runs = {}
    for sigma in MASK_SIGMAS:
        settings = MaskSettings(sigma, n=n, seed=seed)
        with RunFolder.create(folder / f"masks-sigma-{sigma:g}", segment.manifest(job, settings)) as target:
            segment.certify(job, settings, target)
            runs[sigma] = list(target.mask_records())
        segment.draw(job, settings, runs[sigma][:1], target.path / "pictures")
    segment.print_masks(runs, job, MaskSettings(MASK_SIGMAS[0]))
    out.print(f"Pictures are in {printable(str(folder))}/masks-sigma-*/pictures.")


def classification(folder: Path, *, images: int, n: int, seed: int) -> None:
    """Tune prompts, certify held-out slices at several noise levels, print the table, say where everything is."""
    prompts = demo_prompts()
    entries = [f"{slug}={words}" for slug, words in prompts["classes"].items()]
    job = classify.prepare(
        model="demo",
        source=inputs.Source(asset("demo_images"), entries),
        templates=prompts["templates"],
        prompting=Prompting(METHODS, initial_context=prompts["initial_context"], lr=TUNING_RATE),
        limit=images,
        seed=seed,
        device="cpu",
    )
    out.print(
        f"{len(job.dataset)} held-out slices of the MNI152 brain template, {len(job.class_names)} classes, a small "
        f"CLIP trained without noise; {n:,} noisy copies an image, alpha 0.001.",
        highlight=False,
    )
    job = _with_tuned_prompts(job, entries, folder, seed)
    runs = {}
    for sigma in SIGMAS:
        settings = classify.Settings(sigma, n0=100, budget=n, alpha=1e-3, bound="one-sided", seed=seed, batch_size=None)
        comparison = job.comparison(sigma)
        about = classify.manifest(job, comparison, settings)
        with RunFolder.create(folder / f"prompts-sigma-{sigma:g}", about) as target:
            classify.certify(job, comparison, settings, target)
            runs[sigma] = list(target.records())
    print_accuracy({(sigma, method): records for sigma, records in runs.items() for method in METHODS})
    out.print(f"The largest radius, in words. {printable(_example(runs).statement(), 1000)}", highlight=False)
    out.print(
        f"Everything is in {printable(str(folder))}: run.json and certificates.jsonl for each sigma, and the prompts. "
        f"See it as a page: certimed report {printable(str(folder))}/prompts-sigma-*"
    )


def _with_tuned_prompts(job: classify.Job, entries: list[str], folder: Path, seed: int) -> classify.Job:
    """Learn a few-shot and a pool prompt on the tuning slices, which share no slab with the test slices."""
    slices = open_dataset(asset("demo_tuning_images"), classes=entries)
    how = tuning.Tuning(
        sigmas=(0.0, *SIGMAS),
        shots=16,
        epochs=200,
        recipe="default",
        context=job.prompting.initial_context or 5,
        per_class=True,
        position="end",
        held_out=0,
        early_stop=None,
        seed=seed,
        batch_size=None,
        copies=30,
    )
    assert isinstance(job.model, VisionLanguageModel)
    few_shot = tuning.learn_few_shot(job.model, slices, job.class_names, how)
    pool = tuning.learn_pool(job.model, slices.subset(range(0, len(slices), 4)), job.class_names, how)
    few_shot.save(folder / "few-shot.safetensors")
    pool.save(folder / "pool.safetensors")
    return replace(job, prompting=replace(job.prompting, few_shot=few_shot, pool=pool))


def _example(runs: dict[float, list[ClassRecord]]) -> Any:
    """The certificate with the largest radius among those whose scope is the whole pipeline."""
    every = (cert for records in runs.values() for record in records for cert in record.certificates.values())
    return max((cert for cert in every if cert.scope == "end-to-end"), key=lambda cert: cert.radius)
