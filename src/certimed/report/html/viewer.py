"""Segmentation runs read image by image: numbers kept, pixels packed for the page's viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import MaskCertificate
from certimed.certificates.mask_files import smallest_unsigned
from certimed.errors import InputError
from certimed.metrics import MaskScores, mask_scores
from certimed.metrics.segmentation import DICE_HIGH, DICE_LOW
from certimed.report.html.masks import Layers, MaskSeries, RadiusProfile, foreground
from certimed.report.html.numbers import plain
from certimed.report.html.pictures import (
    Budget,
    Pixels,
    WorkedPicture,
    base_picture,
    packed,
    pixels_to_flip,
    worked_picture,
)
from certimed.report.html.sources import Pictures, Run
from certimed.report.html.words import scope_words
from certimed.runs import CERTIFIED, MaskRecord
from certimed.runs.segmentation import prepare

_SECTION = 2


@dataclass
class MaskRun:
    """A segmentation run, read.

    Attributes:
        series: one a method.
        failed: images without a certificate, and why.
        entries: what the viewer shows, one an image; without ``layers`` where the page had no room left.
        notes: what a reader must know about the pictures.
    """

    run: Run
    series: list[MaskSeries] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    worked: dict[str, Any] | None = None


def read_mask_run(run: Run, pictures: Pictures, budget: Budget) -> MaskRun:
    """All records of a run; one image's pixels are in memory at a time."""
    found = MaskRun(run)
    by_method: dict[str, MaskSeries] = {}
    strangers = 0
    for record in run.folder.mask_records():
        if record.status != CERTIFIED:
            found.failed.append((plain(record.item), plain(record.reason or "no reason given")))
            continue
        pixels, truth, known = _pixels(record, pictures)
        strangers += not known
        for method, certificate in record.certificates.items():
            if method not in by_method:
                key = f"r{run.index}m{len(by_method)}"
                by_method[method] = MaskSeries(key, run, method, len(by_method), certificate)
        found.entries.append(_entry(record, by_method, pixels, truth, budget))
        if found.worked is None and pixels is not None:
            found.worked = _worked(record, by_method, pixels, budget)
    found.series = list(by_method.values())
    if strangers:
        found.notes.append(
            f"The truth of {strangers} images is not the one the run was scored with; it is not shown for them."
        )
    return found


def _pixels(record: MaskRecord, pictures: Pictures) -> tuple[Pixels | None, NDArray[np.int64] | None, bool]:
    """Image and truth in the certified space, where they can still be read; False if the truth is not the run's."""
    certificate = next(iter(record.certificates.values()))
    image = pictures.load(record.item)
    if image is None or certificate.mask.ndim != _SECTION:
        return None, None, True
    channels, height, width = certificate.shape
    tensor, truth = prepare(image, 1 if channels == 1 else None, (height, width))
    pixels = np.asarray(tensor.numpy(), dtype=np.float32)
    if truth is None or not record.scores:
        return pixels, None, True
    known = all(_same_scores(record.certificates[name], truth, scores) for name, scores in record.scores.items())
    return pixels, truth if known else None, known


def _same_scores(certificate: MaskCertificate, truth: NDArray[np.int64], recorded: MaskScores) -> bool:
    try:
        scores = mask_scores(certificate, truth, empty=recorded.empty)
    except InputError:
        return False
    return all(
        np.array_equal(scores.per_class[name], recorded.per_class.get(name, ()), equal_nan=True)
        for name in (DICE_LOW, DICE_HIGH)
    )


def _entry(
    record: MaskRecord,
    by_method: Mapping[str, MaskSeries],
    pixels: Pixels | None,
    truth: NDArray[np.int64] | None,
    budget: Budget,
) -> dict[str, Any]:
    """Numbers into the series, pixels into an entry of the viewer."""
    entry: dict[str, Any] = {"name": plain(record.item), "series": {}}
    layers: dict[str, Any] = {}
    for method, certificate in record.certificates.items():
        series, map_ = by_method[method], Layers.of(certificate)
        scores = record.scores.get(method)
        series.add(record, certificate, RadiusProfile(map_, certificate.mask, truth, certificate.num_classes), scores)
        entry["series"][series.key] = _numbers(certificate, scores)
        if certificate.mask.ndim == _SECTION:
            layers[series.key] = _layers(certificate, map_)
    size = next(iter(record.certificates.values())).shape
    shown: dict[str, Any] = {"height": size[-2], "width": size[-1], "channels": size[0], "maps": layers}
    shown["empty"] = next((scores.empty for scores in record.scores.values()), "one")
    if pixels is not None:
        shown["base"] = base_picture(pixels)
    if truth is not None:
        shown["truth"] = packed(truth.astype(np.uint16))
    weight = sum(len(text) for one in layers.values() for text in (one["mask"], one["ranks"]))
    texts = shown.get("base", "") + shown.get("truth", "") + "x" * weight
    if layers and budget.spend(texts) is not None:
        entry["layers"] = shown
    return entry


def _layers(certificate: MaskCertificate, map_: Layers) -> dict[str, Any]:
    ranks = map_.ranks.astype(smallest_unsigned(len(map_.radii)))
    return {
        "mask": packed(certificate.mask.astype(np.uint16)),
        "ranks": packed(ranks),
        "bytes": ranks.itemsize,
        "radii": [float(radius) for radius in map_.radii],
    }


def _numbers(certificate: MaskCertificate, scores: MaskScores | None) -> dict[str, Any]:
    few, unstable = certificate.abstention().values()
    numbers: dict[str, Any] = {
        "share": certificate.share_certified,
        "few": few / certificate.pixels,
        "unstable": unstable / certificate.pixels,
        "radius": certificate.radius,
        "alpha": certificate.alpha,
        "pixels": certificate.pixels,
        "n": certificate.n,
        "tau": certificate.tau,
        "correction": certificate.correction,
        "proved": certificate.threshold is not None,
        "scope": scope_words(certificate.scope),
        "space": certificate.space,
        "native": None,
        "stopped": None if certificate.stopped is None else plain(certificate.stopped),
    }
    if certificate.native is not None:
        numbers["native"] = {"norm": certificate.native.norm, "shape": list(certificate.native.shape)}
    if scores is not None and not scores.tolerant:
        low, high = (foreground(np.array(scores.per_class[name])) for name in (DICE_LOW, DICE_HIGH))
        numbers |= {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}
    return numbers


def _worked(
    record: MaskRecord, by_method: Mapping[str, MaskSeries], pixels: Pixels, budget: Budget
) -> dict[str, Any] | None:
    """The method with the most certified pixels of the first image, its radius drawn; None where nothing is proved."""
    method, certificate = max(record.certificates.items(), key=lambda pair: pair[1].share_certified)
    if certificate.threshold is None:
        return None
    drawn: WorkedPicture = worked_picture(pixels, certificate.radius, record.item, certificate.seed)
    if budget.spend(drawn.image + drawn.perturbed + drawn.difference) is None:
        return None
    return {
        "what": "The radius of a mask",
        "series": by_method[method],
        "certificate": certificate,
        "item": plain(record.item),
        "answer": f"{certificate.share_certified:.0%} of the pixels certified",
        "units": certificate.units(),
        "flips": pixels_to_flip(certificate.radius, certificate.shape[0]),
        "picture": drawn,
        "statement": plain(certificate.statement(), 2000),
    }


def viewer_data(runs: Sequence[MaskRun]) -> dict[str, Any]:
    """All segmentation runs as data for the page's script."""
    return {
        "runs": [
            {
                "name": run.run.name,
                "classes": [run.run.class_name(index) for index in range(run.series[0].example.num_classes)],
                "series": [
                    {"key": one.key, "name": f"{one.name} · sigma {one.sigma}", "sigma": one.example.sigma}
                    for one in run.series
                ],
                "images": run.entries,
                "failed": [{"name": name, "reason": reason} for name, reason in run.failed],
            }
            for run in runs
            if run.series
        ]
    }
