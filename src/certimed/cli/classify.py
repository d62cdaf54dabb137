"""The classification job behind ``certify`` and ``demo``: load, certify into a run folder, show the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from certimed import __version__
from certimed.certificates import ClassCertificate, collect_provenance
from certimed.classification import SmoothedClassifier, check_samples
from certimed.cli import inputs
from certimed.cli.console import advance, err, out, printable, sample_progress
from certimed.cli.tables import print_accuracy
from certimed.data import Dataset, MedicalImage, ReadOptions, class_balanced, identity, open_dataset
from certimed.errors import InputError
from certimed.runs import FAILED, ClassRecord, RunFolder, certify_dataset
from certimed.sampling import check_sigma
from certimed.statistics import BOUND_NAMES
from certimed.vlm import VisionLanguageModel, ZeroShotClassifier, load

PLAIN = "none"
"""Method name of plain zero-shot smoothing: no learnt prompt."""


@dataclass(frozen=True)
class Settings:
    """Statistical settings of a run."""

    sigma: float
    n0: int
    n: int
    alpha: float
    bound: str
    seed: int
    batch_size: int | None

    def checked(self) -> Settings:
        """Refuse impossible settings before any work."""
        check_sigma(self.sigma)
        check_samples(n0=self.n0, n=self.n, alpha=self.alpha)
        inputs.one_of("--bound", self.bound, BOUND_NAMES)
        return self


@dataclass(frozen=True)
class Job:
    """A loaded model, its class prompts and a data set."""

    vlm: VisionLanguageModel
    classifier: ZeroShotClassifier
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    dataset: Dataset


def prepare(
    *,
    model: str,
    data: Path,
    classes: str | None,
    templates: Sequence[str] | None,
    labels: Path | None,
    split: str | None,
    reading: ReadOptions,
    limit: int | None,
    seed: int,
    device: str,
) -> Job:
    """Check the data, then load the model and encode its class prompts once."""
    dataset = open_dataset(data, classes=inputs.class_entries(classes), labels=labels, split=split, options=reading)
    names = class_names(dataset, inputs.class_entries(classes))
    if limit is not None and limit < len(dataset):
        dataset = class_balanced(dataset, limit, seed) if dataset.is_labelled else dataset.subset(range(limit))
    vlm = load(model, device)
    texts = tuple(templates) if templates else ("{}",)
    return Job(vlm, ZeroShotClassifier(vlm, names, texts), names, texts, dataset)


def class_names(dataset: Dataset, entries: Sequence[str] | None) -> tuple[str, ...]:
    """Names that go into the captions: the data set's, or for unlabelled images those of ``--classes``."""
    if dataset.class_names is not None:
        return dataset.class_names
    if entries is None:
        raise InputError("the data set names no classes; give them with --classes, e.g. --classes 'covid,normal'")
    return tuple(entry.partition("=")[2].strip() or entry for entry in entries)


def run(job: Job, settings: Settings, folder: Path, *, quiet: bool = False) -> int:
    """Certify every image into a new run folder and print the result.

    Returns:
        number of images that failed.
    """
    target = RunFolder.create(folder, manifest(job, settings))
    records = certify(job, settings, target)
    failed = [record for record in records if record.status == FAILED]
    if not quiet:
        report(job, settings, records, target)
    return len(failed)


def certify(job: Job, settings: Settings, target: RunFolder) -> list[ClassRecord]:
    """Certify every image of the job with a progress bar."""
    smoothed = SmoothedClassifier(job.classifier, len(job.class_names), settings.sigma, model_id=job.vlm.identity)
    records = []
    with sample_progress(len(job.dataset), settings.n0 + settings.n) as (bar, task):

        def certifier(image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
            return _certify_image(job, smoothed, settings, image, lambda done: advance(bar, task, done))

        for record in certify_dataset(job.dataset, certifier, target, announce=_announcer(bar, task)):
            if record.status == FAILED:
                err.print(f"[red]failed[/] {printable(record.item)}: {printable(record.reason or '')}", highlight=False)
                advance(bar, task, settings.n0 + settings.n)
            records.append(record)
    return records


def _certify_image(
    job: Job, smoothed: SmoothedClassifier, settings: Settings, image: MedicalImage, progress: Callable[[int], None]
) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
    x = job.vlm.preprocess(torch.from_numpy(image.pixels).to(job.vlm.device))
    with torch.inference_mode():
        clean = int(job.classifier(x.unsqueeze(0)).argmax())
    certificate = smoothed.certify(
        x,
        n0=settings.n0,
        n=settings.n,
        alpha=settings.alpha,
        seed=settings.seed,
        item_id=image.id,
        batch_size=settings.batch_size,
        bound=settings.bound,
        intensity=image.intensity,
        progress=progress,
    )
    return {PLAIN: clean}, {PLAIN: certificate}


def _announcer(bar: object, task: int) -> Callable[[str], None]:
    def announce(item: str) -> None:
        bar.update(task, description=printable(item, 32))  # type: ignore[attr-defined]

    return announce


def manifest(job: Job, settings: Settings) -> dict[str, object]:
    """Everything needed to redo the run."""
    return {
        "task": "classify",
        "certimed": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv[1:],
        "settings": asdict(settings),
        "model": {"name": job.vlm.name, "identity": job.vlm.identity, "input_shape": list(job.vlm.input_shape)},
        "classes": list(job.class_names),
        "templates": list(job.templates),
        "data": {
            "source": job.dataset.source,
            "identity": identity(job.dataset),
            "images": len(job.dataset),
            "ignored_files": job.dataset.ignored,
            "reading": asdict(job.dataset.options),
        },
        "provenance": collect_provenance(str(job.vlm.device), model=job.vlm.identity).to_dict(),
    }


def report(job: Job, settings: Settings, records: Sequence[ClassRecord], target: RunFolder) -> None:
    """Print the table of the run and where its files are."""
    failed = sum(record.status == FAILED for record in records)
    if failed < len(records):
        print_accuracy({(settings.sigma, PLAIN): records})
    out.print(f"{len(records) - failed} certified, {failed} failed; written to {printable(str(target.path))}")
