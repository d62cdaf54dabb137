"""What ``certimed demo`` does, step by step."""

from __future__ import annotations

from pathlib import Path

from certimed.assets import asset, demo_prompts
from certimed.cli import classify
from certimed.cli.console import out, printable
from certimed.cli.tables import print_accuracy
from certimed.data import DEFAULT_READ
from certimed.errors import InputError
from certimed.runs import RunFolder

SIGMAS = (0.1, 0.25, 0.5, 1.0)


def classification(folder: Path, *, images: int, n: int, seed: int) -> None:
    """Certify held-out slices at several noise levels, print the table, say where everything is."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another --out, nothing was overwritten")
    prompts = demo_prompts()
    job = classify.prepare(
        model="demo",
        data=asset("demo_images"),
        classes=",".join(f"{folder}={words}" for folder, words in prompts["classes"].items()),
        templates=prompts["templates"],
        labels=None,
        split=None,
        reading=DEFAULT_READ,
        limit=images,
        seed=seed,
        device="cpu",
    )
    out.print(
        f"Certifying {len(job.dataset)} held-out slices of the MNI152 brain template ({len(job.class_names)} classes) "
        f"with a small CLIP trained without noise; {n:,} noisy copies an image, alpha 0.001.",
        highlight=False,
    )
    runs = {}
    for sigma in SIGMAS:
        settings = classify.Settings(sigma, n0=100, n=n, alpha=1e-3, bound="one-sided", seed=seed, batch_size=None)
        target = RunFolder.create(folder / f"sigma-{sigma:g}", classify.manifest(job, settings))
        runs[sigma, classify.PLAIN] = classify.certify(job, settings, target)
    print_accuracy(runs)
    example = max(
        (record.certificates[classify.PLAIN] for records in runs.values() for record in records if record.certificates),
        key=lambda certificate: certificate.radius,
    )
    out.print(f"The largest radius, in words. {printable(example.statement(), 1000)}", highlight=False)
    out.print(f"Everything is in {printable(str(folder))}: run.json and certificates.jsonl for each sigma.")
