"""The segmentation job behind ``certify --task segment`` and ``demo``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from certimed import __version__
from certimed.acceleration import arithmetic
from certimed.assets import asset
from certimed.budgets import as_pixel_budget
from certimed.certificates import NATIVE, collect_provenance
from certimed.classification import check_samples, model_device
from certimed.cli import inputs
from certimed.cli.classify import denoiser_identity, say_if_failed, say_where
from certimed.cli.console import advance, image_progress, out, printable, sample_progress
from certimed.cli.running import Running
from certimed.cli.tables import print_native
from certimed.data import Dataset
from certimed.denoising import Compose, ModuleDenoiser, OneStepDenoiser, load_denoiser
from certimed.errors import InputError
from certimed.metrics import EMPTY_NAMES, MaskSummary, summarise_masks
from certimed.presets import SEGMENTATION_PROTOCOL
from certimed.runs import (
    DENOISED,
    FAILED,
    PLAIN,
    MaskCertifier,
    MaskRecord,
    MaskSettings,
    MaskWork,
    RunFolder,
    certify_masks,
    certify_with,
    data_section,
    lost_mask,
    remaining,
)
from certimed.runs.segmentation import prepare as prepare_image
from certimed.sampling import Progress, check_sigma
from certimed.segmentation import check_tau
from certimed.segmenters import NativeSegmenter, SegmentationModel, load_segmenter
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

    def network(self, settings: MaskSettings) -> nn.Module:
        """The network on images of the certified space; at native resolution it resizes inside."""
        if settings.space == NATIVE:
            return NativeSegmenter(self.segmenter, channels_of(self), settings.size)
        return self.segmenter

    def models(self, sigma: float, network: nn.Module | None = None) -> dict[str, nn.Module]:
        """The certified models by method; the denoiser is made for this sigma, and stands in front of any resize."""
        front = self.segmenter if network is None else network
        made: dict[str, nn.Module] = {}
        for name in self.methods:
            if name == PLAIN:
                made[name] = front
            else:
                assert self.denoiser is not None
                made[name] = Compose(self.denoiser.at(sigma), front).eval()
        return made

    def model_ids(self, settings: MaskSettings | None = None) -> dict[str, str]:
        """Identity of each method's model."""
        own = self.segmenter.identity
        if settings is not None and settings.space == NATIVE:
            own = hashlib.sha256(json.dumps(["native", own, settings.size]).encode()).hexdigest()
        both = hashlib.sha256(json.dumps([own, self.denoiser_id]).encode()).hexdigest()
        return {name: own if name == PLAIN else both for name in self.methods}


def checked(settings: MaskSettings) -> MaskSettings:
    """Refuse impossible settings before any work."""
    check_sigma(settings.sigma)
    check_samples(n0=settings.n0, n=settings.n, alpha=settings.alpha)
    for tau in settings.taus:
        check_tau(tau)
    if len(set(settings.taus)) < len(settings.taus):
        raise InputError(f"--tau {','.join(map(repr, settings.taus))} names one twice; name each once")
    inputs.one_of("--correction", settings.correction, CORRECTION_NAMES)
    inputs.one_of("--empty", settings.empty, EMPTY_NAMES)
    return settings


def sample_settings(budget: str | None, n: int | None) -> dict[str, Any]:
    """``n`` and ``budget`` of :class:`MaskSettings` as ``--n`` and ``--budget`` ask for them."""
    plan = as_pixel_budget(budget, n, SEGMENTATION_PROTOCOL.n)
    return {"n": plan} if isinstance(plan, int) else {"n": plan.cap, "budget": str(plan)}


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
    most, spent = len(job.methods) * (settings.n0 + settings.n), 0
    waiting = len(remaining(job.dataset, target, retry_failed=retry_failed))
    with sample_progress(waiting, most) as (bar, task):

        def count(done: int) -> None:
            nonlocal spent
            spent += done
            advance(bar, task, done)

        def announce(item: str) -> None:
            bar.update(task, description=printable(item, 32))  # type: ignore[arg-type]

        certifier = mask_certifier(job, settings, count)
        for record in certify_masks(job.dataset, certifier, target, retry_failed=retry_failed, announce=announce):
            say_if_failed(record)
            bar.advance(task, most - spent)  # type: ignore[arg-type]
            spent = 0


def mask_certifier(job: Job, settings: MaskSettings, progress: Progress | None = None) -> MaskCertifier:
    network = job.network(settings)
    return MaskCertifier(
        job.models(settings.sigma, network),
        network,
        job.segmenter.num_classes,
        settings,
        channels=channels_of(job),
        model_ids=job.model_ids(settings),
        progress=progress,
    )


def channels_of(job: Job) -> int | None:
    """What images are made for the network; see :class:`certimed.runs.MaskCertifier`."""
    return 1 if job.segmenter.in_channels == 1 else None


def run(
    source: inputs.Source, loading: dict[str, Any], settings: MaskSettings, running: Running, *, pictures: int = 0
) -> int:
    """Certify into a new or resumed run folder, here or by workers, print the result and draw panels.

    Args:
        source: the data.
        loading: the other arguments of :func:`prepare`; workers repeat them.

    Returns:
        number of images that failed.
    """
    job = prepare(dataset=source.open(), **loading)
    job.models(settings.sigma)  # refuses a sigma that the denoiser cannot serve before anything is written
    batch = running.batch_size(settings.batch_size, lambda: mask_certifier(job, settings).probe(job.dataset.load(0)))
    folder, part = running.open(job.dataset, lambda data: manifest(job, settings, data), batch_size=batch)
    settings = replace(settings, batch_size=batch)
    with folder:
        crew, again = running.crew(), running.retry_failed
        if crew is None:
            certify(replace(job, dataset=part), settings, folder, retry_failed=again)
        else:
            work = MaskWork(make_segmentation, source=source, loading=loading, settings=settings)
            with image_progress(len(remaining(part, folder, retry_failed=again))) as advance_image:
                for record in certify_with(crew, work, part, folder, retry_failed=again, lost=lost_mask):
                    say_if_failed(record)
                    advance_image()
        records = list(folder.mask_records())
    draw(job, settings, records[:pictures], folder.path / "pictures")
    print_masks({settings.sigma: records}, job, settings)
    print_native(records, settings.names(job.methods)[0])
    failed = sum(record.status == FAILED for record in records)
    say_where(folder, len(records) - failed, failed)
    return failed


def make_segmentation(
    source: inputs.Source, loading: dict[str, Any], settings: MaskSettings
) -> tuple[Dataset, MaskCertifier]:
    """What a worker builds: see :class:`certimed.runs.MaskWork`; arguments as of :func:`run`."""
    job = prepare(dataset=source.open(), **loading)
    return job.dataset, mask_certifier(job, settings)


def draw(job: Job, settings: MaskSettings, records: Sequence[MaskRecord], folder: Path) -> list[Path]:
    """One panel for each image and tau: image, noisy, denoised, truth; certified mask and radius map of each method."""
    if not records:
        return []
    from certimed.report.panels import mask_panel

    folder.mkdir(exist_ok=True)
    places = {item: index for index, item in enumerate(job.dataset.ids)}
    drawn = []
    for number, record in enumerate(record for record in records if record.certificates):
        image = job.dataset.load(places[record.item])
        pixels, truth = prepare_image(image, channels_of(job), settings.size, settings.space)
        front = None if job.denoiser is None else job.denoiser.at(settings.sigma)
        for tau in settings.taus:
            found = {method: record.certificates[settings.name(method, tau)] for method in job.methods}
            ending = "" if len(settings.taus) == 1 else f"-tau-{tau!r}"
            path = folder / f"{number:03d}-sigma-{settings.sigma:g}{ending}.png"
            mask_panel(path, pixels, truth, found, job.class_names, denoiser=front)
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
        "methods": settings.names(job.methods),
        "model": {"name": job.segmenter.name, "identity": job.segmenter.identity},
        "model_ids": {
            name: job.model_ids(settings)[name.partition(" tau ")[0]] for name in settings.names(job.methods)
        },
        "denoiser": job.denoiser_id,
        "classes": list(job.class_names),
        "data": data_section(job.dataset) if data is None else data,
        "provenance": collect_provenance(
            str(model_device(job.segmenter)),
            dtype=arithmetic(job.segmenter, settings.acceleration),
            model=job.segmenter.identity,
        ).to_dict(),
    }


def print_masks(runs: Mapping[float, Sequence[MaskRecord]], job: Job, settings: MaskSettings) -> None:
    """Print one row for each (sigma, method, tau): radius, Dice clean, noisy, published and guaranteed, abstained."""
    table = Table(box=SIMPLE_HEAD, padding=0)
    headings = ["sigma", "radius", "method", "clean", "noisy", "publ.", "guaranteed", "IoU", "abst."]
    samples = ["samples"] if settings.budget is not None else []
    for heading in headings + samples:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    scored = False
    for sigma, records in runs.items():
        done = [record for record in records if record.certificates]
        for method, tau in product(job.methods, settings.taus):
            name = settings.name(method, tau)
            cells = _row(done, name, job) + [_mean_samples(done, name) for _ in samples]
            scored = scored or any(record.scores for record in done)
            table.add_row(f"{sigma:g}", f"{float(radius_from_lower(tau, sigma)):.3f}", method, *cells)
        if sigma != list(runs)[-1]:
            table.add_section()
    out.print("certified segmentation, Dice and IoU as foreground means:" if scored else "certified segmentation:")
    out.print(table)
    out.print(_LEGEND + (_SAMPLES_LEGEND if samples else ""), style="dim", highlight=False)


_LEGEND = (
    "radius: L2 in [0, 1] units. clean, noisy: Dice of the network without and with one draw of noise (not certified). "
    "publ.: published Dice, over certified pixels, no bound under attack. guaranteed: lowest and highest Dice any "
    "attack below the radius can reach. IoU: guaranteed. abst.: pixels abstained."
)
_SAMPLES_LEGEND = " samples: estimation samples an image, mean."


def _mean_samples(records: Sequence[MaskRecord], name: str) -> str:
    drawn = [record.certificates[name].n for record in records]
    return f"{sum(drawn) / len(drawn):.0f}" if drawn else "-"


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
