"""The segmentation job behind ``certify --task segment`` and ``demo``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from certimed import __version__
from certimed.assets import asset
from certimed.certificates import collect_provenance
from certimed.classification import check_samples
from certimed.cli import inputs
from certimed.cli.classify import denoiser_identity, say_if_failed, say_where
from certimed.cli.console import advance, out, printable, sample_progress
from certimed.cli.running import Running
from certimed.data import Dataset
from certimed.denoising import Compose, ModuleDenoiser, OneStepDenoiser, load_denoiser
from certimed.errors import InputError
from certimed.metrics import EMPTY_NAMES, MaskSummary, summarise_masks
from certimed.runs import (
    DENOISED,
    FAILED,
    PLAIN,
    MaskCertifier,
    MaskRecord,
    MaskSettings,
    RunFolder,
    certify_masks,
    data_section,
    remaining,
)
from certimed.runs.segmentation import prepare as prepare_image
from certimed.sampling import check_sigma
from certimed.segmentation import check_tau
from certimed.segmenters import SegmentationModel, load_segmenter
from certimed.statistics import CORRECTION_NAMES, radius_from_lower
from certimed.usercode import is_user_code


@dataclass(frozen=True)
class Job:
    """A loaded network, an optional denoiser, and a data set.

    Attributes:
        methods: names out of "plain" and "denoised", in order.
        denoiser_id: identity of the denoiser's weights, or None.
    """

    segmenter: SegmentationModel
    denoiser: OneStepDenoiser | ModuleDenoiser | None
    denoiser_id: str | None
    methods: tuple[str, ...]
    class_names: tuple[str, ...]
    dataset: Dataset

    def models(self, sigma: float) -> dict[str, nn.Module]:
        """The certified models by method; the denoiser is made for this sigma."""
        made: dict[str, nn.Module] = {}
        for name in self.methods:
            if name == PLAIN:
                made[name] = self.segmenter
            else:
                assert self.denoiser is not None
                made[name] = Compose(self.denoiser.at(sigma), self.segmenter).eval()
        return made

    def model_ids(self) -> dict[str, str]:
        """Identity of each method's model."""
        own = self.segmenter.model_id or "unknown"
        both = hashlib.sha256(json.dumps([own, self.denoiser_id]).encode()).hexdigest()
        return {name: own if name == PLAIN else both for name in self.methods}


def checked(settings: MaskSettings) -> MaskSettings:
    """Refuse impossible settings before any work."""
    check_sigma(settings.sigma)
    check_samples(n0=settings.n0, n=settings.n, alpha=settings.alpha)
    check_tau(settings.tau)
    inputs.one_of("--correction", settings.correction, CORRECTION_NAMES)
    inputs.one_of("--empty", settings.empty, EMPTY_NAMES)
    return settings


def prepare(
    *,
    model: str,
    denoiser: str | None,
    methods: str | None,
    dataset: Dataset,
    limit: int | None,
    device: str,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    output: str | None = None,
    allow_code: bool = False,
) -> Job:
    """Load the network and the denoiser; ``demo`` names the embedded ones."""
    chosen = _methods(methods, denoiser)
    if limit is not None and limit < len(dataset):
        dataset = dataset.subset(range(limit))
    spec = str(asset("demo_unet")) if model == "demo" else model
    if num_classes is None and is_user_code(spec):
        num_classes = len(class_names or dataset.class_names or ()) or None
    segmenter = load_segmenter(spec, device, num_classes=num_classes, output=output, allow_code=allow_code)
    front = None
    if DENOISED in chosen:
        assert denoiser is not None
        front = load_denoiser(str(asset("demo_denoiser")) if denoiser == "demo" else denoiser, device)
    names = tuple(class_names or dataset.class_names or (f"class {i}" for i in range(segmenter.num_classes)))
    if len(names) != segmenter.num_classes:
        raise InputError(
            f"the data set has {len(names)} classes ({', '.join(names)}) and the network {segmenter.num_classes}; "
            "the background counts as a class"
        )
    return Job(segmenter, front, None if front is None else denoiser_identity(front), chosen, names, dataset)


def _methods(text: str | None, denoiser: str | None) -> tuple[str, ...]:
    chosen = tuple(text.split(",")) if text else ((PLAIN, DENOISED) if denoiser else (PLAIN,))
    for name in chosen:
        inputs.one_of("--methods", name, (PLAIN, DENOISED))
    if DENOISED in chosen and denoiser is None:
        raise InputError("--methods denoised needs --denoiser; give one, or train one with: certimed train denoiser")
    return chosen


def certify(job: Job, settings: MaskSettings, target: RunFolder, *, retry_failed: bool = False) -> None:
    """Certify the unfinished images of the job with a progress bar."""
    samples = len(job.methods) * (settings.n0 + settings.n)
    waiting = len(remaining(job.dataset, target, retry_failed=retry_failed))
    with sample_progress(waiting, samples) as (bar, task):
        certifier = MaskCertifier(
            job.models(settings.sigma),
            job.segmenter,
            job.segmenter.num_classes,
            settings,
            channels=1 if job.segmenter.in_channels == 1 else None,
            model_ids=job.model_ids(),
            progress=lambda done: advance(bar, task, done),
        )

        def announce(item: str) -> None:
            bar.update(task, description=printable(item, 32))  # type: ignore[arg-type]

        for record in certify_masks(job.dataset, certifier, target, retry_failed=retry_failed, announce=announce):
            if say_if_failed(record):
                advance(bar, task, samples)


def run(job: Job, settings: MaskSettings, running: Running, *, pictures: int = 0) -> int:
    """Certify into a new or resumed run folder, print the result, draw panels; returns the number of failed images."""
    if running.workers != 1 or running.executor != "local":
        raise InputError("--workers and --executor serve --task classify; spread masks with --shard I/N")
    folder, part = running.open(job.dataset, lambda data: manifest(job, settings, data))
    with folder:
        certify(replace(job, dataset=part), settings, folder, retry_failed=running.retry_failed)
        records = list(folder.mask_records())
    draw(job, settings, records[:pictures], folder.path / "pictures")
    print_masks({settings.sigma: records}, job, settings)
    failed = sum(record.status == FAILED for record in records)
    say_where(folder, len(records) - failed, failed)
    return failed


def draw(job: Job, settings: MaskSettings, records: Sequence[MaskRecord], folder: Path) -> list[Path]:
    """One panel for each image: image, noisy, denoised, truth, certified mask and radius map of every method."""
    if not records:
        return []
    from certimed.report.panels import mask_panel

    folder.mkdir(exist_ok=True)
    places = {item: index for index, item in enumerate(job.dataset.ids)}
    channels = 1 if job.segmenter.in_channels == 1 else None
    drawn = []
    for number, record in enumerate(record for record in records if record.certificates):
        pixels, truth = prepare_image(job.dataset.load(places[record.item]), channels, settings.size)
        front = None if job.denoiser is None else job.denoiser.at(settings.sigma)
        path = folder / f"{number:03d}-sigma-{settings.sigma:g}.png"
        mask_panel(path, pixels, truth, record.certificates, job.class_names, denoiser=front)
        drawn.append(path)
    return drawn


def manifest(job: Job, settings: MaskSettings, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything needed to redo the run; ``data`` is its part about the data set where it is known already."""
    return {
        "task": "segment",
        "certimed": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": sys.argv[1:],
        "settings": asdict(settings),
        "methods": list(job.methods),
        "model": {"name": job.segmenter.name, "identity": job.segmenter.model_id},
        "denoiser": job.denoiser_id,
        "classes": list(job.class_names),
        "data": data_section(job.dataset) if data is None else data,
        "provenance": collect_provenance("cpu", model=job.segmenter.model_id).to_dict(),
    }


def print_masks(runs: Mapping[float, Sequence[MaskRecord]], job: Job, settings: MaskSettings) -> None:
    """Print one row for each (sigma, method): radius, Dice clean, noisy, published and guaranteed, share abstained."""
    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in ("sigma", "radius", "method", "clean", "noisy", "publ.", "guaranteed", "IoU", "abst."):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    scored = False
    for sigma, records in runs.items():
        done = [record for record in records if record.certificates]
        for method in job.methods:
            cells = _row(done, method, job)
            scored = scored or len(cells) > 1
            table.add_row(f"{sigma:g}", f"{float(radius_from_lower(settings.tau, sigma)):.3f}", method, *cells)
        if sigma != list(runs)[-1]:
            table.add_section()
    out.print("certified segmentation, Dice and IoU as foreground means:" if scored else "certified segmentation:")
    out.print(table)
    out.print(_LEGEND, style="dim", highlight=False)


_LEGEND = (
    "radius: L2 in [0, 1] units. clean, noisy: Dice of the network without and with one draw of noise (not certified). "
    "publ.: published Dice, over certified pixels, no bound under attack. guaranteed: lowest and highest Dice any "
    "attack below the radius can reach. IoU: guaranteed. abst.: pixels abstained."
)


def _row(records: Sequence[MaskRecord], method: str, job: Job) -> list[str]:
    if not records:
        return ["-"] * 6
    abstained = 1 - sum(record.certificates[method].share_certified for record in records) / len(records)
    if not all(method in record.scores for record in records):
        return ["-"] * 5 + [f"{100 * abstained:.0f} %"]
    summary = summarise(records, method, job.class_names)

    def mean(metric: str) -> str:
        value = summary["foreground mean", metric].mean
        return "-" if math.isnan(value) else f"{value:.3f}"

    return [
        mean("Dice (clean)"),
        mean("Dice (noisy)"),
        mean("certified Dice (published)"),
        f"{mean('guaranteed Dice')}-{mean('best-case Dice')}",
        mean("guaranteed IoU"),
        f"{100 * abstained:.0f} %",
    ]


def summarise(records: Sequence[MaskRecord], method: str, class_names: Sequence[str]) -> MaskSummary:
    """Means over images, or over patients or sequences where the data set names them."""
    groups = [record.group for record in records]
    return summarise_masks(
        [record.scores[method] for record in records],
        groups=None if None in groups else groups,
        class_names=class_names,
    )
