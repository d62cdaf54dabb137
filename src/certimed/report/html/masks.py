"""The part of the page about runs of masks: numbers kept, pixels packed for the page's viewer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.budgets import Fixed, parse_budget
from certimed.certificates import MaskCertificate, MaskClaim, shown
from certimed.certificates.words import stop_text
from certimed.data import Geometry, MedicalImage
from certimed.errors import InputError
from certimed.metrics import (
    MaskCounts,
    MaskScores,
    MaskSummary,
    count_pixels,
    mask_scores,
    mean_interval,
    overlap_scores,
    with_failed,
)
from certimed.metrics.segmentation import ALL_CLASSES, DICE_HIGH, DICE_LOW, DICE_PUBLISHED, FOREGROUND
from certimed.report.html.charts import Curve, line_chart
from certimed.report.html.layers import SECTION, viewer_layers, weight
from certimed.report.html.numbers import down, percent, plain
from certimed.report.html.part import Line, Material, Part, grey_levels, run_title, shares
from certimed.report.html.pictures import Budget, certified_space, worked_example
from certimed.report.html.sources import Run
from certimed.report.html.words import SCOPES, copies
from certimed.report.profiles import Layers, RadiusProfile, foreground
from certimed.report.tables import Table, bound, mask_table, score
from certimed.runs import CERTIFIED, Record
from certimed.runs.images import Pictures

_MOST_POINTS, _FEW_POINTS, _FEW_IMAGES = 120, 33, 60


@dataclass
class MaskReader:
    """Takes in the records of a run one by one; one image's pixels are in memory at a time.

    Attributes:
        profiles: what each image's radius map keeps, by label.
        keys: short names of the labels inside the page.
        entries: what the viewer shows, one an image; without ``layers`` where the page had no room left.
        strangers: images whose truth is not the one the run was scored with.
        counts: of the images' certified pixels against their truth, by label, as far as every image has one.
        best: the certificate of the first image that has one with something proved, and the image.
    """

    run: Run
    pictures: Pictures
    budget: Budget
    profiles: dict[str, list[RadiusProfile]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    strangers: int = 0
    counts: dict[str, list[MaskCounts]] = field(default_factory=dict)
    best: tuple[MaskCertificate, MedicalImage] | None = None

    def __call__(self, record: Record) -> None:
        """Numbers into the profiles, pixels into an entry of the viewer."""
        if record.status != CERTIFIED:
            return
        certificates = {label: one for label, one in record.certificates.items() if isinstance(one, MaskCertificate)}
        first = next(iter(certificates.values()))
        image = self.pictures.load(record.item)
        pixels, truth = (None, None) if image is None else certified_space(image, first)
        if truth is not None and not all(
            _same_scores(record.certificates[label], truth, scores) for label, scores in record.scores.items()
        ):
            self.strangers += 1
            truth = None
        truth = truth if record.scores else None
        entry: dict[str, Any] = {"name": plain(record.item), "series": {}}
        drawn: dict[str, tuple[MaskCertificate, Layers]] = {}
        for label, certificate in certificates.items():
            layers = Layers.of(certificate)
            key = self.keys.setdefault(label, f"r{self.run.index}m{len(self.keys)}")
            own = self.profiles.setdefault(label, [])
            own.append(RadiusProfile(layers, certificate.mask, truth, certificate.num_classes))
            if truth is not None:
                counted = count_pixels(certificate.mask, certificate.certified, truth, certificate.num_classes)
                self.counts.setdefault(label, []).append(counted)
            entry["series"][key] = _numbers(certificate, record.scores.get(label))
            drawn[key] = certificate, layers
        place = None if record.place is None else Geometry.from_dict(record.place)
        shown = viewer_layers(drawn, pixels, truth, place)
        if self.budget.spend("x" * weight(shown)) is not None:
            empty = next((scores.empty for scores in record.scores.values()), "one")
            entry["layers"] = {**shown, "empty": empty}
        if self.best is None and image is not None and first.mask.ndim == SECTION:
            best = max(certificates.values(), key=lambda one: one.share_certified)
            if not best.abstained:
                self.best = best, image
        self.entries.append(entry)


def _same_scores(certificate: MaskCertificate, truth: NDArray[np.int64], recorded: MaskScores) -> bool:
    try:
        scores = mask_scores(certificate, truth, empty=recorded.empty)
    except InputError:
        return False
    return all(
        np.array_equal(scores.per_class[name], recorded.per_class.get(name, ()), equal_nan=True)
        for name in (DICE_LOW, DICE_HIGH)
    )


def _numbers(certificate: MaskCertificate, scores: MaskScores | None) -> dict[str, Any]:
    few, unstable = certificate.abstention().values()
    fixed, placed = isinstance(parse_budget(certificate.budget), Fixed), certificate.about.placement
    numbers: dict[str, Any] = {
        "share": certificate.share_certified,
        "few": few / certificate.pixels,
        "unstable": unstable / certificate.pixels,
        "radius": certificate.radius,
        "risk": shown(certificate.alpha, "upper", digits=3),
        "risks": shown(2 * certificate.alpha, "upper", digits=3),
        "pixels": certificate.pixels,
        "n": certificate.n,
        "tau": certificate.tau,
        "correction": certificate.correction,
        "proved": certificate.threshold is not None,
        "scope": SCOPES[certificate.scope],
        "space": certificate.space,
        "loss": math.nextafter(placed.rounding + placed.slack, math.inf) if placed.rounding + placed.slack else 0.0,
        "native": None,
        "stopped": None if fixed else stop_text(certificate.stop, certificate.n, certificate.n0),
    }
    if certificate.native is not None:
        numbers["native"] = {"norm": certificate.native.norm, "shape": list(certificate.native.shape)}
    if scores is not None:
        low, high = (foreground(np.array(scores.per_class[name])) for name in (DICE_LOW, DICE_HIGH))
        numbers |= {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high}
    return numbers


class MaskPart(Part):
    """Masks: what is guaranteed of them, every class, and a slider over each image's radius map."""

    template = "segmentation.html.j2"
    contents = (("masks", "Masks"), ("viewer", "Radius slider"))
    scripts = ("charts.js", "planes.js", "viewer.js")

    def __init__(self, material: Material) -> None:
        super().__init__(lines := material.of(MaskClaim.kind))
        self.readers = readers = material.masks
        entries = (entry for reader in readers.values() for entry in reader.entries)
        self.pictures = sum("base" in entry.get("layers", {}) for entry in entries)
        self._grid = self._curve_grid()
        self._dice = {line.key: line.of.dice() for line in lines}
        self.scored = all(found is not None for found in self._dice.values())
        self.table_notes = list(dict.fromkeys(note for table in self.tables() for note in table[1].notes))

    @classmethod
    def of(cls, material: Material) -> Part | None:
        return cls(material) if material.of(MaskClaim.kind) else None

    def samples(self) -> list[str]:
        sizes = (n for line in self.lines for n in line.of.tally.sizes)
        said = copies((line.of.first.n0 for line in self.lines), sizes)
        return [f"For masks, {said} in each pixel; the test accounts for all pixels of an image at once."]

    def notes(self) -> list[str]:
        return [
            f"{reader.run.name}: The truth of {reader.strangers} images is not the one the run was scored with; it is "
            "not shown for them."
            for reader in self.readers.values()
            if reader.strangers
        ]

    def worked(self) -> list[dict[str, Any]]:
        drawn = []
        for own in self.runs:
            reader = self.readers[own[0].run.index]
            if reader.best is None:
                continue
            certificate, image = reader.best
            line = next(line for line in own if line.of.label == certificate.label)
            found = worked_example("The radius of a mask", certificate, line, image, reader.budget)
            if found is not None:
                answered = np.count_nonzero(certificate.mask)
                kept = np.count_nonzero((certificate.mask > 0) & certificate.certified)
                front = percent(kept / answered if answered else 0.0, side="lower")
                drawn.append({**found, "answer": f"{front} of the pixels answered as foreground certified"})
        return drawn

    def data(self) -> dict[str, Any]:
        return {"viewer-data": self.viewer()}

    def _profiles(self, line: Line) -> list[RadiusProfile]:
        return self.readers[line.run.index].profiles[line.of.label]

    def tables(self) -> list[tuple[str, Table]]:
        """Dice, IoU and pixels certified, one table a run."""
        return [(run_title(own), mask_table([line.of for line in own])) for own in self.runs]

    def parts(self, line: Line) -> list[dict[str, Any]]:
        """Shares of the pixels of the images that did not fail."""
        tally = line.of.tally
        counted = [
            ("certified", "certified", tally.pixels - tally.few - tally.unstable),
            ("few", "abstained: too few samples", tally.few),
            ("unstable", "abstained: unstable under noise", tally.unstable),
        ]
        return shares(counted, tally.pixels)

    def panels(self) -> list[dict[str, Any]]:
        """Mean guaranteed Dice against the radius, one panel a run, one line a method; without truth, pixels kept."""
        panels = []
        for place, own in enumerate(self.runs):
            with_truth = all(profile.has_truth for line in own for profile in self._profiles(line))
            curves = [self._curve(line, with_truth) for line in own]
            what = "guaranteed Dice (mean), %" if with_truth else "pixels certified (mean), %"
            rms = grey_levels(own)
            starts = (f"{line.name} starts at {percent(c.ys[0], side='lower')}" for line, c in zip(own, curves))
            chart = line_chart(
                f"dice-{place}",
                f"{what.split(',', maxsplit=1)[0]} against the radius: {run_title(own)}",
                "; ".join(starts) + ".",
                curves,
                x_max=1.02 * self._grid[-1],
                x_label="radius, L2" + (" (below: RMS grey levels per value)" if rms else ""),
                y_label=what,
                grey_levels=rms,
            )
            legend = [{"key": c.key, "style": c.style, "name": line.name, "why": ""} for c, line in zip(curves, own)]
            panels.append({"title": run_title(own), "chart": chart, "legend": legend})
        return panels

    def _curve(self, line: Line, with_truth: bool) -> Curve:
        """A value drawn from one radius of the grid to the next is the one at the next: never more than is proved."""
        profiles, scores = self._profiles(line), line.of.scores
        empty = scores[0].empty if scores else "one"

        def read(profile: RadiusProfile, radius: float) -> float:
            if not with_truth:
                return profile.share(radius)
            return foreground(overlap_scores(profile.counts(radius), empty)[DICE_LOW])

        columns = [
            with_failed([read(profile, radius) for profile in profiles], line.of.failed)
            for radius in [*self._grid[1:], math.inf]
        ]
        means = [mean_interval(column, line.of.groups) for column in columns]
        band = not any(math.isnan(mean.low) for mean in means)
        ys = [0.0 if math.isnan(mean.mean) else mean.mean for mean in means]
        return Curve(
            line.key,
            line.style,
            [*self._grid, 1.02 * self._grid[-1]],
            [*ys, ys[-1]],
            [*(mean.low for mean in means), means[-1].low] if band else [],
            [*(mean.high for mean in means), means[-1].high] if band else [],
        )

    def _curve_grid(self) -> list[float]:
        """0 and every radius of every map, or an even grid where there are too many, or too many images to read at."""
        radii = sorted({0.0, *(float(r) for line in self.lines for one in self._profiles(line) for r in one.radii)})
        most = _MOST_POINTS if max(len(line.of.records) for line in self.lines) <= _FEW_IMAGES else _FEW_POINTS
        if 1 < len(radii) <= most:
            return radii
        return [float(radius) for radius in np.linspace(0, radii[-1] or 1.0, _FEW_POINTS)]

    def per_class(self) -> list[dict[str, Any]]:
        """One table a series: every class by itself; empty without truth."""
        tables = []
        for line in self.lines:
            if (summary := self._dice[line.key]) is None:
                continue
            names = list(dict.fromkeys(name for name, metric in summary.rows if metric == DICE_LOW))
            rows = [{"class": n, "mean": n in (FOREGROUND, ALL_CLASSES), "cells": _cells(summary, n)} for n in names]
            tables.append({"line": line, "rows": rows, "radius": down(line.of.first.radius)})
        return tables

    def viewer(self) -> dict[str, Any]:
        """All runs as data for the page's script."""
        return {
            "runs": [
                {
                    "name": own[0].run.name,
                    "classes": [own[0].of.class_name(index) for index in range(own[0].of.first.num_classes)],
                    "series": [{"key": line.key, "name": line.title} for line in own],
                    "images": self.readers[own[0].run.index].entries,
                    "failed": own[0].of.failed,
                }
                for own in self.runs
            ]
        }


def _cells(summary: MaskSummary, name: str) -> list[str]:
    observed = [score(summary, metric, name) for metric in ("Dice (clean)", "Dice (noisy)", DICE_PUBLISHED)]
    low, high = (summary[name, metric].mean for metric in (DICE_LOW, DICE_HIGH))
    return [bound(low, "lower"), bound(high, "upper"), *observed]
