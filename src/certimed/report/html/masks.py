"""The part of the page about segmentation runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE, MaskCertificate
from certimed.metrics import MaskCounts, MaskScores, MaskSummary, mean_interval, overlap_scores, summarise_masks
from certimed.metrics.segmentation import ALL_CLASSES, DICE_HIGH, DICE_LOW, DICE_PUBLISHED, FOREGROUND, IOU_LOW
from certimed.report.html.charts import Curve, line_chart
from certimed.report.html.numbers import down, percent, plain, score, up
from certimed.report.html.sources import Run
from certimed.runs import MaskRecord

_MOST_POINTS, _FEW_POINTS, _FEW_IMAGES = 120, 33, 60


@dataclass(frozen=True)
class Layers:
    """The radius map of one certificate as small numbers: all that the slider needs.

    Attributes:
        radii: the distinct positive radii of the map, rising.
        ranks: for each pixel how many of them it reaches: it keeps its class below ``radii[ranks - 1]``; 0: none.
    """

    radii: NDArray[np.float64]
    ranks: NDArray[np.uint32]

    @classmethod
    def of(cls, certificate: MaskCertificate) -> Layers:
        """Number the radii of a certificate's map; no radius is changed."""
        values, places = np.unique(certificate.radius_map(), return_inverse=True)
        positive = values > 0
        skipped = int((~positive).sum())
        ranks = np.maximum(places.reshape(certificate.mask.shape) + 1 - skipped, 0)
        return cls(values[positive], ranks.astype(np.uint32))


class RadiusProfile:
    """What one radius map keeps at every radius, from one pass over the pixels.

    Args:
        layers: the map.
        mask, truth: integers ``space``; without a truth only shares of pixels are known.
    """

    def __init__(self, layers: Layers, mask: NDArray[Any], truth: NDArray[Any] | None, classes: int) -> None:
        steps = len(layers.radii) + 1
        true = mask if truth is None else truth
        place = (layers.ranks.astype(np.int64) * classes + true) * classes + mask.astype(np.int64)
        joint = np.bincount(place.ravel(), minlength=steps * classes * classes).reshape(steps, classes, classes)
        # kept[j]: pixels, by truth and prediction, whose radius is at least radii[j - 1]; kept[0] are all pixels.
        self._kept = joint[::-1].cumsum(axis=0)[::-1].astype(np.int32)
        self.radii = layers.radii
        self.has_truth = truth is not None

    def _reaching(self, radius: float) -> NDArray[np.int64]:
        step = 1 + int(np.searchsorted(self.radii, radius, side="left"))
        kept = self._kept[step] if step < len(self._kept) else np.zeros_like(self._kept[0])
        return np.asarray(kept, dtype=np.int64)

    def share(self, radius: float) -> float:
        """Share of pixels whose own radius is at least ``radius`` (positive)."""
        return float(self._reaching(radius).sum() / self._kept[0].sum())

    def counts(self, radius: float) -> MaskCounts:
        """Counts where a pixel is certified if its own radius is at least ``radius`` (positive)."""
        kept, truth = self._reaching(radius), self._kept[0].sum(axis=1).astype(np.int64)
        return MaskCounts(
            true_positive=np.diagonal(kept).copy(),
            predicted=kept.sum(axis=0),
            truth=truth,
            abstained=truth - kept.sum(axis=1),
            pixels=int(truth.sum()),
        )


def foreground(values: NDArray[np.float64]) -> float:
    """Mean over all classes but 0 that are not left out; NaN where all are."""
    kept = values[1:][~np.isnan(values[1:])]
    return float(kept.mean()) if kept.size else math.nan


@dataclass
class MaskSeries:
    """One method of one run, its certificates reduced to numbers as they are read.

    Attributes:
        key: short name inside the page.
        items, shares: image ids and shares of pixels certified.
        abstained: pixels abstained for want of samples, and for instability.
        scores: one an image, or fewer where images have no truth.
        profiles: what each image's radius map keeps.
    """

    key: str
    run: Run
    method: str
    style: int
    example: MaskCertificate
    items: list[str] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    abstained: dict[str, int] = field(default_factory=lambda: {TOO_FEW_SAMPLES: 0, UNSTABLE: 0})
    pixels: int = 0
    scores: list[MaskScores] = field(default_factory=list)
    profiles: list[RadiusProfile] = field(default_factory=list)
    scopes: set[str] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)

    def add(
        self, record: MaskRecord, certificate: MaskCertificate, profile: RadiusProfile, scores: MaskScores | None
    ) -> None:
        """Take one certificate in."""
        self.items.append(record.item)
        self.groups.append(record.group)
        self.profiles.append(profile)
        self.shares.append(certificate.share_certified)
        for cause, count in certificate.abstention().items():
            self.abstained[cause] += count
        self.pixels += certificate.pixels
        self.scopes.add(certificate.scope)
        self.sizes.add(certificate.n)
        if scores is not None:
            self.scores.append(scores)

    @property
    def name(self) -> str:
        """The method as shown."""
        return plain(self.method, 80)

    @property
    def sigma(self) -> str:
        """Noise level as shown."""
        return f"{self.example.sigma:g}"

    def summary(self) -> MaskSummary | None:
        """Means over images, where every image has a truth."""
        if not self.scores or len(self.scores) < len(self.items):
            return None
        grouped = None not in self.groups
        names = [self.run.class_name(index) for index in range(self.example.num_classes)]
        # Two classes of one name must not share a row.
        unique = names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names)]
        return summarise_masks(self.scores, groups=self.groups if grouped else None, class_names=unique)

    @property
    def tolerated(self) -> int:
        """Certified pixels of an image that may be wrong; where it is not 0, no Dice is guaranteed."""
        return self.example.k_fwer - 1


class MaskPart:
    """Everything the template needs about the segmentation runs of a report."""

    def __init__(self, series: Sequence[MaskSeries]) -> None:
        self.series = [one for one in series if one.items]
        self._grid = curve_grid(self.series)
        self._summaries = {one.key: one.summary() for one in self.series}
        self.scored = all(found is not None for found in self._summaries.values())
        self.runs = list({id(one.run): one.run for one in self.series}.values())

    def headlines(self) -> list[dict[str, str]]:
        """One sentence a series."""
        found = []
        for one in self.series:
            radius = down(one.example.radius)
            share = percent(sum(one.shares) / len(one.shares))
            images = "one image" if len(one.items) == 1 else f"{len(one.items)} images"
            text = f"{one.name}: {share} of the pixels of {images} are proved at radius {radius}"
            summary = self._summaries[one.key]
            if summary is not None and not one.tolerated:
                low = summary[FOREGROUND, DICE_LOW].mean
                text += f", and no attack below it can push the mean Dice under {_low(low)}"
            found.append({"run": one.run.name, "sigma": one.sigma, "sentence": text})
        return found

    def table(self) -> list[dict[str, Any]]:
        """One row a series: Dice clean, noisy, published, guaranteed to best case, IoU; split of the abstentions."""
        rows = []
        for one in self.series:
            cells: dict[str, str] = {}
            span = ""
            if (summary := self._summaries[one.key]) is not None:
                cells = {
                    "clean": _mean(summary, "Dice (clean)"),
                    "noisy": _mean(summary, "Dice (noisy)"),
                    "published": _mean(summary, DICE_PUBLISHED),
                    "low": _low(_bound(one, summary, FOREGROUND, DICE_LOW)),
                    "high": _high(_bound(one, summary, FOREGROUND, DICE_HIGH)),
                    "iou": _low(_bound(one, summary, FOREGROUND, IOU_LOW)),
                }
                found = summary[FOREGROUND, DICE_LOW]
                if not math.isnan(found.low) and not one.tolerated:
                    span = f"{found.low:.2f}–{found.high:.2f}"
            rows.append({"series": one, "cells": cells, "span": span, "parts": self._parts(one)})
        return rows

    @staticmethod
    def _parts(one: MaskSeries) -> list[dict[str, Any]]:
        certified = one.pixels - sum(one.abstained.values())
        counted = [
            ("certified", "certified", certified),
            ("few", "abstained: too few samples", one.abstained[TOO_FEW_SAMPLES]),
            ("unstable", "abstained: unstable under noise", one.abstained[UNSTABLE]),
        ]
        return [
            {"kind": kind, "name": name, "share": count / one.pixels, "text": percent(count / one.pixels)}
            for kind, name, count in counted
            if count
        ]

    def panels(self) -> list[dict[str, Any]]:
        """Mean guaranteed Dice against the radius, one panel a run, one line a method; without truth, pixels kept."""
        panels = []
        for place, run in enumerate(self.runs):
            own = [one for one in self.series if one.run is run]
            with_truth = all(profile.has_truth for one in own for profile in one.profiles)
            curves = [self._curve(one, with_truth) for one in own]
            title = f"{run.name}, sigma {own[0].sigma}"
            what = "guaranteed Dice (mean), %" if with_truth else "pixels certified (mean), %"
            values = {math.prod(one.example.shape) for one in own}
            rms = 255 / values.pop() ** 0.5 if len(values) == 1 else None
            chart = line_chart(
                f"dice-{place}",
                f"{what.split(',', maxsplit=1)[0]} against the radius: {title}",
                "; ".join(f"{one.name} starts at {percent(c.ys[0])}" for one, c in zip(own, curves)) + ".",
                curves,
                x_max=1.02 * self._grid[-1],
                x_label="radius, L2" + (" (below: RMS grey levels per value)" if rms else ""),
                y_label=what,
                grey_levels=rms,
            )
            legend = [{"key": c.key, "style": c.style, "name": one.name, "why": ""} for c, one in zip(curves, own)]
            panels.append({"title": title, "chart": chart, "legend": legend, "truth": with_truth})
        return panels

    def _curve(self, one: MaskSeries, with_truth: bool) -> Curve:
        """A value drawn from one radius of the grid to the next is the one at the next: never more than is proved."""
        beyond = [*self._grid[1:], math.inf]
        empty = one.scores[0].empty if one.scores else "one"

        def read(profile: RadiusProfile, radius: float) -> float:
            if not with_truth:
                return profile.share(radius)
            return foreground(overlap_scores(profile.counts(radius), empty)[DICE_LOW])

        groups = one.groups if None not in one.groups else None
        means = [mean_interval([read(profile, radius) for profile in one.profiles], groups) for radius in beyond]
        band = not any(math.isnan(mean.low) for mean in means)
        ys = [0.0 if math.isnan(mean.mean) else mean.mean for mean in means]
        end = 1.02 * self._grid[-1]
        return Curve(
            one.key,
            one.style,
            [*self._grid, end],
            [*ys, ys[-1]],
            [*(mean.low for mean in means), means[-1].low] if band else [],
            [*(mean.high for mean in means), means[-1].high] if band else [],
        )

    def per_class(self) -> list[dict[str, Any]]:
        """One table a series: every class by itself; empty without truth."""
        tables = []
        for one in self.series:
            if (summary := self._summaries[one.key]) is None:
                continue
            names = list(dict.fromkeys(name for name, metric in summary.rows if metric == DICE_LOW))
            rows = [
                {
                    "class": name,
                    "mean": name in (FOREGROUND, ALL_CLASSES),
                    "clean": _mean(summary, "Dice (clean)", name),
                    "noisy": _mean(summary, "Dice (noisy)", name),
                    "published": _mean(summary, DICE_PUBLISHED, name),
                    "low": _low(_bound(one, summary, name, DICE_LOW)),
                    "high": _high(_bound(one, summary, name, DICE_HIGH)),
                }
                for name in names
            ]
            tables.append({"series": one, "rows": rows})
        return tables


def curve_grid(series: Sequence[MaskSeries]) -> list[float]:
    """0 and every radius of every map, or an even grid where there are too many, or too many images to read them at."""
    radii = sorted({0.0, *(float(r) for one in series for profile in one.profiles for r in profile.radii)})
    most = _MOST_POINTS if max((len(one.items) for one in series), default=0) <= _FEW_IMAGES else _FEW_POINTS
    largest = radii[-1] or 1.0
    return radii if 1 < len(radii) <= most else [float(radius) for radius in np.linspace(0, largest, _FEW_POINTS)]


def _bound(one: MaskSeries, summary: MaskSummary, name: str, metric: str) -> float:
    """A guaranteed value; NaN where certified pixels may be wrong."""
    return math.nan if one.tolerated else summary[name, metric].mean


def _mean(summary: MaskSummary, metric: str, name: str = FOREGROUND) -> str:
    found = summary.rows.get((name, metric))
    return "–" if found is None else score(found.mean)


def _low(value: float) -> str:
    return "–" if math.isnan(value) else down(value)


def _high(value: float) -> str:
    return "–" if math.isnan(value) else up(value)
