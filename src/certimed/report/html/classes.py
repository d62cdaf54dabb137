"""The part of the page about classification runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certimed.certificates import END_TO_END, NATIVE, PROMPT_FROZEN, TOO_FEW_SAMPLES, ClassCertificate
from certimed.metrics import PUBLISHED_RADII, ClassificationSummary, per_class_rows, summarise
from certimed.report.html.charts import Curve, histogram_chart, line_chart
from certimed.report.html.gallery import Gallery
from certimed.report.html.numbers import down, percent, plain
from certimed.report.html.pictures import Budget, certified_space, pixels_to_flip, worked_picture
from certimed.report.html.sources import Pictures, Run
from certimed.report.html.words import headline
from certimed.runs import CERTIFIED, ClassRecord

_MOST_POINTS = 120
_MOST_COLUMNS = 6
_BINS = 24


@dataclass(frozen=True)
class Series:
    """One method of one run: its certificates, and what they amount to.

    Attributes:
        key: short name inside the page.
        certificates, labels, clean: one an image, failed images left out; labels None if any image lacks one.
        summary: failed images count as not certified.
    """

    key: str
    run: Run
    method: str
    style: int
    records: tuple[ClassRecord, ...]
    certificates: tuple[ClassCertificate, ...]
    labels: tuple[int, ...] | None
    summary: ClassificationSummary

    @property
    def frozen(self) -> bool:
        """Whether some certificate holds for the frozen prompt only."""
        return any(certificate.scope == PROMPT_FROZEN for certificate in self.certificates)

    @property
    def name(self) -> str:
        """The method, marked where its scope is narrower."""
        return plain(self.method, 80) + "*" * self.frozen


@dataclass(frozen=True)
class ClassRun:
    """A classification run, read."""

    run: Run
    records: tuple[ClassRecord, ...]
    series: tuple[Series, ...]

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Images without a certificate, and why."""
        return [(plain(r.item), plain(r.reason or "no reason given")) for r in self.records if r.status != CERTIFIED]


def read_class_run(run: Run) -> ClassRun:
    """All records of a run, and one series a method."""
    records = tuple(run.folder.records())
    done = [record for record in records if record.status == CERTIFIED]
    methods = list(dict.fromkeys(method for record in done for method in record.certificates))
    series = []
    for index, method in enumerate(methods):
        own = tuple(record for record in done if method in record.certificates)
        series.append(_series(run, method, index, own, failed=len(records) - len(own)))
    return ClassRun(run, records, tuple(series))


def _series(run: Run, method: str, index: int, records: tuple[ClassRecord, ...], failed: int) -> Series:
    certificates = tuple(record.certificates[method] for record in records)
    known = tuple(record.label for record in records if record.label is not None)
    labels = known if len(known) == len(records) else None
    clean = [record.clean[method] for record in records if method in record.clean]
    summary = summarise(
        certificates,
        labels,
        clean if len(clean) == len(records) else None,
        radii=_curve_radii(certificates),
        failed=failed,
    )
    return Series(f"r{run.index}m{index}", run, method, index, records, certificates, labels, summary)


def _curve_radii(certificates: Sequence[ClassCertificate]) -> list[float]:
    """Every radius at which the curve falls, or a grid where there are too many."""
    distinct = sorted({0.0, *(certificate.radius for certificate in certificates)})
    if len(distinct) > _MOST_POINTS:
        return [float(radius) for radius in np.linspace(0, distinct[-1], _MOST_POINTS)]
    return distinct


class ClassPart:
    """Everything the template needs about the classification runs of a report."""

    def __init__(self, runs: Sequence[ClassRun], pictures: dict[int, Pictures], budget: Budget) -> None:
        self.runs = [run for run in runs if run.series]
        self.series = [series for run in self.runs for series in run.series]
        self.labelled = all(series.labels is not None for series in self.series)
        self.largest = max((c.radius for series in self.series for c in series.certificates), default=0.0) or 1.0
        self._pictures = pictures
        self.worked = self._worked(budget)
        self.gallery = Gallery.of_classes(runs, self.series, pictures, budget)

    @property
    def comparable(self) -> bool:
        """Whether all radii live in one space: the same kind, and at the model's input also the same size."""
        certificates = [c for series in self.series for c in series.certificates]
        return len({(c.space, None if c.space == NATIVE else c.shape) for c in certificates}) <= 1

    def headlines(self) -> list[dict[str, str]]:
        """One sentence a run."""
        found = []
        for run in self.runs:
            shares = [_at_zero(series.summary, self.labelled) for series in run.series]
            sentence = headline(shares, run.series[0].summary.images, self.labelled)
            found.append({"run": run.run.name, "sigma": _sigma(run), "sentence": sentence})
        return found

    def outcomes(self) -> list[dict[str, Any]]:
        """For each series of each run, the share of images of each outcome; shares sum to one."""
        return [
            {
                "run": run.run.name,
                "sigma": _sigma(run),
                "images": run.series[0].summary.images,
                "rows": [{"series": series, "parts": outcome_parts(series)} for series in run.series],
            }
            for run in self.runs
        ]

    def panels(self) -> list[dict[str, Any]]:
        """Certified accuracy curves, one panel a run with a line a method; or one panel where runs have one method."""
        single = len(self.runs) > 1 and all(len(run.series) == 1 for run in self.runs)
        if single and self.comparable:
            return [self._panel(0, "all runs", self.series, [run.run.name for run in self.runs])]
        return [
            self._panel(index, _title(run), run.series, [s.name for s in run.series])
            for index, run in enumerate(self.runs)
        ]

    def _panel(self, index: int, title: str, series: Sequence[Series], names: Sequence[str]) -> dict[str, Any]:
        what = "certified accuracy, %" if self.labelled else "images certified, %"
        curves = [self._curve(one, place) for place, one in enumerate(series)]
        shapes = {certificate.shape for one in series for certificate in one.certificates}
        units = series[0].certificates[0].units()
        rms = 255 / units.values**0.5 if len(shapes) == 1 else None
        chart = line_chart(
            f"accuracy-{index}",
            f"{what.split(',', maxsplit=1)[0].capitalize()} against the radius: {title}",
            "; ".join(_described(one, name, self.labelled) for one, name in zip(series, names))
            + ". The table below the charts holds the values.",
            curves,
            x_max=1.02 * self.largest,
            x_label="radius, L2" + (" (below: RMS grey levels per value)" if rms else ""),
            y_label=what,
            grey_levels=rms,
        )
        legend = [
            {"key": curve.key, "style": curve.style, "name": name, "why": words_of(one.method)}
            for curve, one, name in zip(curves, series, names)
        ]
        return {"title": title, "chart": chart, "legend": legend}

    def _curve(self, series: Series, style: int) -> Curve:
        """The band ends where the curve reaches zero: beyond it nothing is certified for anyone to be sure about."""
        summary = series.summary
        ys = summary.certified_accuracy or summary.certified_share
        low, high = zip(*summary.intervals) if summary.intervals else ((), ())
        return Curve(series.key, style, (*summary.radii, 1.02 * self.largest), (*ys, 0.0), low, high)

    def table(self) -> dict[str, Any]:
        """Certified accuracy at round radii with its interval, beside clean and noisy accuracy and abstentions."""
        columns = informative(self.largest)
        blocks: dict[int, list[dict[str, Any]]] = {}
        for series in self.series:
            read = summarise(series.certificates, series.labels, radii=columns, failed=series.summary.failed)
            shares = read.certified_accuracy or read.certified_share
            spans: Sequence[Any] = read.intervals or [None] * len(columns)
            lower: Sequence[Any] = read.accuracy_lower or [None] * len(columns)
            blocks.setdefault(series.run.index, []).append(
                {
                    "series": series,
                    "summary": series.summary,
                    "cells": [
                        {"share": share, "span": span, "lower": low} for share, span, low in zip(shares, spans, lower)
                    ],
                }
            )
        named = [{"run": run.run.name, "sigma": _sigma(run), "rows": blocks[run.run.index]} for run in self.runs]
        return {"radii": columns, "blocks": named}

    def histograms(self) -> list[dict[str, Any]]:
        """Distribution of the certified radii, one chart a run, one strip a method."""
        charts = []
        for place, run in enumerate(self.runs):
            rows, said = [], []
            for series in run.series:
                radii = [c.radius for c in series.certificates if not c.abstained]
                counts = np.histogram(radii, bins=_BINS, range=(0, self.largest))[0]
                middle = f"median {down(float(np.median(radii)))}" if radii else "none"
                text = f"{series.name}: {len(radii)} certified, {middle}"
                said.append(text)
                rows.append((text, series.style, [int(count) for count in counts]))
            title = f"Certified radii: {_title(run)}"
            chart = histogram_chart(
                f"radii-{place}", title, "; ".join(said), rows, self.largest, "radius, L2; height: number of images"
            )
            charts.append({"title": _title(run), "chart": chart})
        return charts

    def per_class(self) -> list[dict[str, Any]]:
        """One table a series: every class by itself; empty without labels."""
        columns = informative(self.largest)
        tables = []
        for series in self.series:
            if series.labels is None:
                continue
            names = [series.run.class_name(index) for index in range(1 + max(series.labels))]
            rows = per_class_rows(series.certificates, series.labels, names, radii=columns)
            for row in rows:
                row["cells"] = [row[f"certified at {radius:g}"] for radius in columns]
            tables.append({"series": series, "sigma": _sigma_of(series), "radii": columns, "rows": rows})
        return tables

    def _worked(self, budget: Budget) -> list[dict[str, Any]]:
        """The largest radius of the report, and the middle one of its series, drawn."""
        found: list[dict[str, Any]] = []
        chosen = _examples(self.series)
        for what, series, certificate in chosen:
            image = self._pictures[series.run.index].load(certificate.item)
            if image is None:
                continue
            pixels = certified_space(image, certificate)
            drawn = worked_picture(pixels, certificate.radius, certificate.item, certificate.seed)
            if budget.spend(drawn.image + drawn.perturbed + drawn.difference) is None:
                continue
            found.append(
                {
                    "what": what,
                    "series": series,
                    "certificate": certificate,
                    "item": plain(certificate.item),
                    "answer": _answer(series, certificate),
                    "units": certificate.units(),
                    "flips": pixels_to_flip(certificate.radius, certificate.shape[0]),
                    "picture": drawn,
                    "statement": plain(certificate.statement(), 2000),
                }
            )
        return found


def _answer(series: Series, certificate: ClassCertificate) -> str:
    """The certified answer, and the truth where it is another."""
    answer = series.run.class_name(certificate.prediction)
    label = series.records[series.certificates.index(certificate)].label
    if label is None or label == certificate.prediction:
        return answer
    return f"{answer} (wrong; truth: {series.run.class_name(label)})"


def _examples(series: Sequence[Series]) -> list[tuple[str, Series, ClassCertificate]]:
    """(words, series, certificate) of the largest end-to-end radius, and of the middle radius of that series."""
    proved = [(s, c) for s in series for c in s.certificates if not c.abstained]
    proved = [pair for pair in proved if pair[1].scope == END_TO_END] or proved
    if not proved:
        return []
    top, largest = max(proved, key=lambda pair: pair[1].radius)
    own = sorted((c for c in top.certificates if not c.abstained), key=lambda c: c.radius)
    middle = own[len(own) // 2]
    examples = [("The largest radius that covers the whole pipeline", top, largest)]
    if largest.scope != END_TO_END:
        examples = [("The largest radius", top, largest)]
    return examples if middle.item == largest.item else [*examples, ("A radius from the middle", top, middle)]


def outcome_parts(series: Series) -> list[dict[str, Any]]:
    """Shares of images by outcome: certified (right, wrong), abstained by reason, failed."""
    images = series.summary.images
    certified = [c for c in series.certificates if not c.abstained]
    if series.labels is None:
        parts = [("certified", "certified", len(certified))]
    else:
        right = sum(not c.abstained and c.prediction == y for c, y in zip(series.certificates, series.labels))
        parts = [("right", "certified, correct", right), ("wrong", "certified, wrong", len(certified) - right)]
    few = sum(c.abstention == TOO_FEW_SAMPLES for c in series.certificates)
    unstable = len(series.certificates) - len(certified) - few
    parts += [("few", "abstained: too few samples", few), ("unstable", "abstained: unstable under noise", unstable)]
    parts += [("failed", "failed", series.summary.failed)]
    return [
        {"kind": kind, "name": name, "count": count, "share": count / images, "text": percent(count / images)}
        for kind, name, count in parts
        if count
    ]


def informative(largest: float) -> list[float]:
    """Published radii up to the largest certified one, thinned to what fits a table."""
    shown = [radius for radius in PUBLISHED_RADII if radius < largest] or [0.0]
    return shown[:: -(-len(shown) // _MOST_COLUMNS)]


def words_of(method: str) -> str:
    """What a method is, where the project has words for it."""
    from certimed.report.html.words import METHODS

    return METHODS.get(method, "")


def _described(series: Series, name: str, labelled: bool) -> str:
    return f"{name} starts at {percent(_at_zero(series.summary, labelled))}"


def _at_zero(summary: ClassificationSummary, labelled: bool) -> float | None:
    curve = summary.certified_accuracy if labelled else summary.certified_share
    return None if curve is None else curve[0]


def _title(run: ClassRun) -> str:
    spaces = {c.space for series in run.series for c in series.certificates}
    return f"{run.run.name}, sigma {_sigma(run)}" + ", at native resolution" * (NATIVE in spaces)


def _sigma(run: ClassRun) -> str:
    return _sigma_of(run.series[0])


def _sigma_of(series: Series) -> str:
    return ", ".join(f"{sigma:g}" for sigma in sorted({c.sigma for c in series.certificates}))
