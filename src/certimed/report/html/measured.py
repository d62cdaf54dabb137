"""The part of the page about measurements: a forest plot a measurement, which a slider moves to any radius."""

from __future__ import annotations

import html
import math
from typing import Any

from certimed.certificates import IntervalCertificate, IntervalClaim
from certimed.certificates.words import interval_text, median_text
from certimed.report.html.charts import nice_between
from certimed.report.html.numbers import plain
from certimed.report.html.part import Line, Material, Part, run_title
from certimed.report.tables import Table, interval_table

_MOST_ROWS, _STEPS = 60, 24
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 640, 150, 14, 10, 20, 40


class MeasurePart(Part):
    """Measurements: tables, forest plots with a slider, intervals in words.

    Every interval that the slider shows is read off a band that holds for all radii at once
    (:meth:`certimed.certificates.IntervalCertificate.interval`); the tables hold those at the radii asked for.
    """

    template = "measured.html.j2"
    contents = (("measured", "Measurements"),)
    scripts = ("forests.js",)

    def __init__(self, material: Material) -> None:
        super().__init__(material.of(IntervalClaim.kind))
        self.table_notes = list(dict.fromkeys(note for table in self.tables() for note in table[1].notes))
        self._plots: list[dict[str, Any]] = []
        self.forests = [
            forest for line in self.lines for place in range(len(line.of.first.claim.intervals))
            if (forest := self._forest(line, place))
        ]  # fmt: skip

    @classmethod
    def of(cls, material: Material) -> Part | None:
        return cls(material) if material.of(IntervalClaim.kind) else None

    def samples(self) -> list[str]:
        counts = sorted({c.n for line in self.lines for c in line.of.certificates})
        between = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return [
            f"For measurements, the number is read off the mask of each of {between} noisy copies. What holds is their "
            "median: it is the median under noise that must be reported."
        ]

    def tables(self) -> list[tuple[str, Table]]:
        """One table a run."""
        return [(run_title(own), interval_table([line.of for line in own])) for own in self.runs]

    def statements(self) -> list[tuple[str, list[tuple[str, str, list[str]]]]]:
        """For each series, image by image: its id, and of each measurement median and intervals in words."""
        found = []
        for line in self.lines:
            rows = []
            for certificate in line.of.certificates[:_MOST_ROWS]:
                for one in certificate.claim.intervals:
                    texts = [interval_text(one, index) for index in range(len(certificate.radii))]
                    rows.append((f"{plain(certificate.item, 80)}: {plain(one.name)}", median_text(one), texts))
            found.append((line.title, rows))
        return found

    def data(self) -> dict[str, Any]:
        return {"forest-data": {"plots": self._plots}}

    def _forest(self, line: Line, place: int) -> dict[str, Any] | None:
        shown: list[IntervalCertificate] = list(line.of.certificates[:_MOST_ROWS])
        named = shown[0].claim.intervals[place]
        largest = shown[0].radii[-1]
        radii = [largest * (step / _STEPS) for step in range(_STEPS + 1)]
        ends = [[one.interval(named.name, radius) for radius in radii] for one in shown]
        finite = [end for own in ends for pair in own for end in pair if math.isfinite(end)]
        finite += [named.threshold] if named.threshold is not None else []
        if not finite:
            return None
        ticks = nice_between(min(finite), max(finite))
        low, high = min(ticks[0], *finite), max(ticks[-1], *finite)
        key = f"f{len(self._plots)}"

        def x(value: float) -> float:
            inside = _WIDTH - _LEFT - _RIGHT
            return _LEFT + inside * (min(max(value, low), high) - low) / ((high - low) or 1.0)

        height = _TOP + _ROW * len(shown) + _BOTTOM
        parts = []
        for tick in ticks:
            at, foot = x(tick), height - _BOTTOM
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{foot}"/>')
            parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{tick:g}</text>')
        unit = f"{named.name}, {named.unit}" if named.unit else named.name
        centre = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{centre}" y="{height - 6}" text-anchor="middle">{html.escape(plain(unit))}</text>')
        if named.threshold is not None:
            at = x(named.threshold)
            parts.append(f'<line class="threshold" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        rows = []
        for number, (one, own) in enumerate(zip(shown, ends)):
            middle, measured = _TOP + _ROW * (number + 0.5), one.claim.intervals[place]
            name = html.escape(plain(one.item, 22))
            parts.append(f'<text x="{_LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end" class="quiet">{name}</text>')
            left, right = math.floor(10 * x(own[-1][0])) / 10, math.ceil(10 * x(own[-1][1])) / 10
            parts.append(
                f'<line class="interval" data-row="{number}" x1="{left:.1f}" x2="{right:.1f}" y1="{middle:.1f}" '
                f'y2="{middle:.1f}"/>'
            )
            if measured.median is not None:
                parts.append(f'<circle class="median" cx="{x(measured.median):.1f}" cy="{middle:.1f}" r="3.5"/>')
            # Outwards, as every bound that a person reads.
            rows.append([[math.floor(10 * x(a)) / 10, math.ceil(10 * x(b)) / 10] for a, b in own])
        self._plots.append({"key": key, "radii": radii, "rows": rows})
        title = f"{line.title}: {plain(named.name)}"
        svg = (
            f'<svg class="chart" id="{key}" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{key}-t">'
            f'<title id="{key}-t">{html.escape(title)}: intervals and medians, image by image; the table has the '
            f"numbers</title>{''.join(parts)}</svg>"
        )
        left_out = len(line.of.certificates) - len(shown)
        return {
            "title": title, "chart": svg, "key": key, "radius": largest, "steps": _STEPS, "left_out": left_out,
            "threshold": named.threshold,
        }  # fmt: skip
