"""The part of the page about runs of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from certimed.certificates import END_TO_END, NATIVE, TOO_FEW_SAMPLES, ClassCertificate, ClassClaim
from certimed.report.html.charts import Curve, histogram_chart, line_chart
from certimed.report.html.gallery import Gallery
from certimed.report.html.numbers import down, percent
from certimed.report.html.part import Line, Material, Part, grey_levels, run_title, shares
from certimed.report.html.pictures import worked_example
from certimed.report.html.words import copies
from certimed.report.sentences import clumps
from certimed.report.series import Series
from certimed.report.tables import Table, accuracy_table, per_cent, span_text, telling_radii

_MOST_POINTS = 120
_MOST_COLUMNS = 6
_BINS = 24


class ClassPart(Part):
    """Labels: certified accuracy, the distribution of radii, every image."""

    template = "classification.html.j2"
    contents = (("accuracy", "Labels"), ("images", "Images"))
    scripts = ("charts.js", "gallery.js")

    def __init__(self, material: Material) -> None:
        super().__init__(lines := material.of(ClassClaim.kind))
        self.labelled = all(line.of.labels is not None for line in lines)
        self.largest = max(line.of.largest for line in lines) or 1.0
        self.radii = telling_radii([line.of for line in lines], _MOST_COLUMNS)
        self.table_notes = list(dict.fromkeys(note for table in self.tables() for note in table[1].notes))
        self._worked = [
            found
            for what, line, c in _examples(lines)
            if (found := worked_example(what, c, line, material.pictures[line.run.index].load(c.item), material.budget))
            and found.update(answer=_answer(line, c)) is None
        ]
        self.gallery = Gallery(self.runs, material.pictures, material.budget)
        self.pictures = self.gallery.pictures
        # The same kind of space, and at the model's input also the same size.
        every = [c for line in lines for c in line.of.certificates]
        self.comparable = len({(c.space, None if c.space == NATIVE else c.shape) for c in every}) <= 1

    @classmethod
    def of(cls, material: Material) -> Part | None:
        return cls(material) if material.of(ClassClaim.kind) else None

    def samples(self) -> list[str]:
        every = [c for line in self.lines for c in line.of.certificates]
        return [f"For labels, {copies((c.n0 for c in every), (c.n for c in every))}."]

    def worked(self) -> list[dict[str, Any]]:
        return self._worked

    def data(self) -> dict[str, Any]:
        return {"gallery-data": self.gallery.data}

    def clumps(self) -> list[str]:
        """Why radii clump, in sentences."""
        return clumps([line.of for line in self.lines])

    def outcomes(self) -> list[dict[str, Any]]:
        """For each series of each run, the share of images of each outcome; shares sum to one."""
        return [
            {"title": f"{run_title(own)}, {own[0].of.images} images", "rows": [(x, outcome_parts(x.of)) for x in own]}
            for own in self.runs
        ]

    def panels(self) -> list[dict[str, Any]]:
        """Certified accuracy curves, one panel a run with a line a method; or one panel where runs have one method."""
        single = len(self.runs) > 1 and all(len(own) == 1 for own in self.runs)
        if single and self.comparable:
            return [self._panel(0, "all runs", self.lines, [line.run.name for line in self.lines])]
        return [
            self._panel(index, run_title(own), own, [line.name for line in own]) for index, own in enumerate(self.runs)
        ]

    def _panel(self, index: int, title: str, lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any]:
        what = "certified accuracy" if self.labelled else "images certified"
        curves = [self._curve(line, place) for place, line in enumerate(lines)]
        rms = grey_levels(lines)
        starts = (f"{name} starts at {percent(curve.ys[0], side='lower')}" for curve, name in zip(curves, names))
        chart = line_chart(
            f"accuracy-{index}",
            f"{what.capitalize()} against the radius: {title}",
            "; ".join(starts) + ". The table below the charts holds the values.",
            curves,
            x_max=1.02 * self.largest,
            x_label="radius, L2" + (" (below: RMS grey levels per value)" if rms else ""),
            y_label=f"{what}, %",
            grey_levels=rms,
        )
        legend = [
            {"key": curve.key, "style": curve.style, "name": name, "why": line.why}
            for curve, line, name in zip(curves, lines, names)
        ]
        return {"title": title, "chart": chart, "legend": legend}

    def _curve(self, line: Line, style: int) -> Curve:
        """The band ends where the curve reaches zero: beyond it nothing is certified for anyone to be sure about."""
        radii = sorted({0.0, *(c.radius for c in line.of.certificates)})
        if len(radii) > _MOST_POINTS:
            radii = [float(radius) for radius in np.linspace(0, radii[-1], _MOST_POINTS)]
        found = line.of.curve(radii, labelled=self.labelled)
        return Curve(line.key, style, (*radii, 1.02 * self.largest), (*found.values, 0.0), found.low, found.high)

    def tables(self) -> list[tuple[str, Table]]:
        """Certified accuracy at round radii with its interval, beside clean and noisy accuracy and abstentions."""
        return [(run_title(own), accuracy_table([line.of for line in own], self.radii, places=0)) for own in self.runs]

    def lower(self) -> list[dict[str, Any]]:
        """Lower bounds on the true certified accuracy of these images, one row a series."""
        return [
            {
                "line": line,
                "cells": [per_cent(low, 1, "lower") for low in line.of.accuracy(self.radii).accuracy_lower or ()],
            }
            for line in self.lines
        ]

    def histograms(self) -> list[dict[str, Any]]:
        """Distribution of the certified radii, one chart a run, one strip a method."""
        charts = []
        for place, own in enumerate(self.runs):
            rows = []
            for line in own:
                radii = [c.radius for c in line.of.certificates if not c.abstained]
                counts = np.histogram(radii, bins=_BINS, range=(0, self.largest))[0]
                middle = f"median {down(float(np.median(radii)))}" if radii else "none"
                text = f"{line.name}: {len(radii)} certified, {middle}"
                rows.append((text, line.style, [int(count) for count in counts]))
            title, said = run_title(own), "; ".join(text for text, _, _ in rows)
            label = "radius, L2; height: number of images"
            chart = histogram_chart(
                f"radii-{place}", f"Certified radii: {title}", said, rows, self.largest, label
            )  # fmt: skip
            charts.append({"title": title, "chart": chart})
        return charts

    def per_class(self) -> list[dict[str, Any]]:
        """One table a series: every class by itself; empty without labels."""
        tables = []
        for line in self.lines:
            rows = [
                {
                    "class": row["class"],
                    "cells": [
                        str(row["images"]),
                        str(row["failed"]),
                        per_cent(row["noisy_accuracy"]),
                        *(per_cent(row[f"certified at {radius:g}"], side="lower") for radius in self.radii),
                        span_text(row["low"], row["high"]),
                        down(row["mean_radius"]),
                        per_cent(row["too_few_samples"]),
                        per_cent(row["unstable"]),
                    ],
                }
                for row in line.of.per_class(self.radii)
            ]
            if rows:
                tables.append({"line": line, "rows": rows})
        return tables


def _answer(line: Line, certificate: ClassCertificate) -> str:
    """The certified answer, and the truth where it is another."""
    answer = line.of.class_name(certificate.prediction)
    label = next(record.label for record in line.of.records if record.item == certificate.item)
    if label is None or label == certificate.prediction:
        return answer
    return f"{answer} (wrong; truth: {line.of.class_name(label)})"


def _examples(lines: Sequence[Line]) -> list[tuple[str, Line, ClassCertificate]]:
    """(words, line, certificate) of the largest end-to-end radius, and of the middle radius of that series."""
    proved = [(line, c) for line in lines for c in line.of.certificates if not c.abstained]
    whole = [pair for pair in proved if pair[1].scope == END_TO_END]
    if not proved:
        return []
    top, largest = max(whole or proved, key=lambda pair: pair[1].radius)
    own = sorted((c for c in top.of.certificates if not c.abstained), key=lambda c: c.radius)
    middle = own[len(own) // 2]
    examples = [("The largest radius" + " that covers the whole pipeline" * bool(whole), top, largest)]
    return examples if middle.item == largest.item else [*examples, ("A radius from the middle", top, middle)]


def outcome_parts(series: Series[Any]) -> list[dict[str, Any]]:
    """Shares of images by outcome: certified (right, wrong), abstained by reason, failed."""
    certified = [c for c in series.certificates if not c.abstained]
    if series.labels is None:
        parts = [("certified", "certified", len(certified))]
    else:
        right = sum(not c.abstained and c.prediction == y for c, y in zip(series.certificates, series.labels))
        parts = [("right", "certified, correct", right), ("wrong", "certified, wrong", len(certified) - right)]
    few = sum(c.abstention == TOO_FEW_SAMPLES for c in series.certificates)
    unstable = len(series.certificates) - len(certified) - few
    parts += [("few", "abstained: too few samples", few), ("unstable", "abstained: unstable under noise", unstable)]
    return shares([*parts, ("failed", "failed", series.failed)], series.images)
