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
from certimed.classification import check_samples
from certimed.cli import inputs
from certimed.cli.console import advance, err, out, printable, sample_progress
from certimed.cli.prompting import Prompting
from certimed.cli.tables import print_accuracy
from certimed.data import Dataset, MedicalImage, class_balanced, identity
from certimed.errors import ImageError, InputError
from certimed.noise import item_id as content_id
from certimed.prompts import PromptComparison
from certimed.runs import FAILED, ClassRecord, RunFolder, certify_dataset
from certimed.sampling import check_sigma
from certimed.statistics import BOUND_NAMES
from certimed.vlm import VisionLanguageModel, load

DEFAULT_TEMPLATE = "an image of {}."


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
    """A loaded model, its classes and prompts, and a data set."""

    vlm: VisionLanguageModel
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    prompting: Prompting
    dataset: Dataset

    def comparison(self, sigma: float) -> PromptComparison:
        """The prompt methods at one noise level; refuses templates and prompts that do not fit the model."""
        return PromptComparison(
            self.vlm, self.prompting.methods(self.vlm, self.class_names, self.templates, sigma), sigma
        )


def prepare(
    *,
    model: str,
    source: inputs.Source,
    templates: Sequence[str] | None,
    prompting: Prompting,
    limit: int | None,
    seed: int,
    device: str,
) -> Job:
    """Check the data, then load the model."""
    dataset = source.open()
    names = class_names(dataset, source.classes, prompting)
    if limit is not None and limit < len(dataset):
        dataset = class_balanced(dataset, limit, seed) if dataset.is_labelled else dataset.subset(range(limit))
    return Job(load(model, device), names, tuple(templates) if templates else (DEFAULT_TEMPLATE,), prompting, dataset)


def class_names(dataset: Dataset, entries: Sequence[str] | None, prompting: Prompting) -> tuple[str, ...]:
    """Names that go into the captions: the data set's; for unlabelled images ``--classes`` or the tuned prompt's."""
    if dataset.class_names is not None:
        return dataset.class_names
    if entries is not None:
        return tuple(entry.partition("=")[2].strip() or entry for entry in entries)
    if prompting.class_names is not None:
        return prompting.class_names
    raise InputError("the data set names no classes; give them with --classes, e.g. --classes 'covid,normal'")


def run(job: Job, settings: Settings, folder: Path, *, quiet: bool = False) -> int:
    """Certify every image into a new run folder and print the result.

    Returns:
        number of images that failed.
    """
    comparison = job.comparison(settings.sigma)
    with RunFolder.create(folder, manifest(job, settings)) as target:
        records = certify(job, comparison, settings, target)
    failed = [record for record in records if record.status == FAILED]
    if not quiet:
        report(job, settings, records, target)
    return len(failed)


def certify(job: Job, comparison: PromptComparison, settings: Settings, target: RunFolder) -> list[ClassRecord]:
    """Certify every image of the job with a progress bar."""
    streams = len({method.stream for method in comparison.methods})
    records = []
    with sample_progress(len(job.dataset), streams * (settings.n0 + settings.n)) as (bar, task):

        def certifier(image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
            return _certify_image(job, comparison, settings, image, lambda done: advance(bar, task, done))

        for record in certify_dataset(job.dataset, certifier, target, announce=_announcer(bar, task)):
            if record.status == FAILED:
                err.print(f"[red]failed[/] {printable(record.item)}: {printable(record.reason or '')}", highlight=False)
                advance(bar, task, streams * (settings.n0 + settings.n))
            records.append(record)
    return records


def _certify_image(
    job: Job, comparison: PromptComparison, settings: Settings, image: MedicalImage, progress: Callable[[int], None]
) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
    x = job.vlm.preprocess(torch.from_numpy(image.pixels).to(job.vlm.device))
    if content_id(x) in job.prompting.tuned_on:
        raise ImageError(f"{image.id} was used to tune the prompt; a test image must not be")
    results = comparison.run(
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
    clean = {name: result.clean_prediction for name, result in results.items()}
    return clean, {name: result.certificate for name, result in results.items()}


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
        "prompts": job.prompting.record(),
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
        print_accuracy({(settings.sigma, name): records for name in job.prompting.names})
    out.print(f"{len(records) - failed} certified, {failed} failed; written to {printable(str(target.path))}")
