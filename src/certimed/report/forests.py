"""Figures of runs without curves: a forest plot of the intervals of measurements, and set sizes against the radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from certimed.errors import InputError
from certimed.metrics.sets import set_rows
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure
from certimed.report.series import Series, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 40


def forest_figure(series: Sequence[Series[Any]], *, width: float = WIDTHS["double"]) -> Figure:
    """Where the median under noise of each measurement stays: one panel a series and measurement, one row an image.

    Bars are the certified intervals at every radius asked for, the thickest at the smallest; a bar that has no end on a
    side reaches the panel's edge and ends in an arrow. Dots: medians of the samples. Dashed: the threshold that was
    asked for. At most 40 images are drawn, the first ones; the table and the export have all.

    Args:
        series: of measurements.
        width: in millimetres.

    Raises:
        InputError: no series of measurements.
    """
    places = [(one, title, place) for one, title in zip(series, titles(series)) if one.measured
              for place in range(len(one.first.claim.intervals))]  # fmt: skip
    if not places:
        raise InputError("there is nothing to draw: no measurement was certified")
    most = max(min(len(one.certificates), _MOST_ROWS) for one, _, _ in places)
    with journal_style():
        figure = new_figure(width, 18.0 + 3.6 * most)
        axes = figure.subplots(1, len(places), squeeze=False)[0]
        for axis, (one, title, place) in zip(axes, places):
            _forest(axis, one, title, place)
    return figure


def _forest(axis: Any, one: Series[Any], title: str, place: int) -> None:
    shown = list(one.certificates[:_MOST_ROWS])
    own = [certificate.claim.intervals[place] for certificate in shown]
    radii = shown[0].radii
    finite = [end for row in own for end in (*row.lower, *row.upper) if math.isfinite(end)]
    finite += [row.median for row in own if row.median is not None]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    edge = 0.05 * (high - low) or 0.5
    for height, row in enumerate(own):
        for number, (left, right) in reversed(list(enumerate(zip(row.lower, row.upper)))):
            ends = left if math.isfinite(left) else low - edge, right if math.isfinite(right) else high + edge
            colour = STYLES[1][0]
            axis.plot(ends, (height, height), color=colour, lw=0.6 + 1.6 / (1 + number), solid_capstyle="butt",
                      alpha=1 - 0.5 * number / len(radii))  # fmt: skip
            for end, marker, at in ((left, "<", low - edge), (right, ">", high + edge)):
                if math.isinf(end):
                    axis.plot([at], [height], marker, color=colour, ms=2.5)
        if row.median is not None:
            axis.plot([row.median], [height], "o", color="black", ms=2)
    if own[0].threshold is not None:
        axis.axvline(own[0].threshold, color="black", lw=0.6, linestyle="--")
    told = ", ".join(f"{radius:g}" for radius in radii)
    unit = f" ({own[0].unit})" if own[0].unit else ""
    axis.set(title=f"{title}, radius {told}", xlabel=f"{own[0].name}{unit}", ylim=(len(own) - 0.5, -0.5))
    axis.set_yticks(range(len(own)), [certificate.item[-24:] for certificate in shown])


def size_figure(series: Sequence[Series[Any]], *, width: float = WIDTHS["double"]) -> Figure:
    """Set size and coverage without an attack against the radius that was calibrated for, one line a series.

    Coverage comes with its Clopper-Pearson interval over new images at this calibration; dotted: the target.

    Args:
        series: of sets.
        width: in millimetres.

    Raises:
        InputError: no series of sets, or more than can be told apart.
    """
    own = [(one, title) for one, title in zip(series, titles(series)) if one.set_valued]
    if not own or len(own) > len(STYLES):
        raise InputError(f"{len(own)} series of sets cannot be drawn; choose 1 to {len(STYLES)}")
    with journal_style():
        figure = new_figure(width, 62.0)
        sizes, shares = figure.subplots(1, 2)
        for (one, title), (colour, style) in zip(own, STYLES):
            rows = set_rows(one.certificates, one.labels)
            radii = [row["radius"] for row in rows]
            label = f"{title}{one.marks}, sigma {one.sigma:g}"
            sizes.plot(
                radii, [row["size"] for row in rows], linestyle=style, color=colour, marker="o", ms=2, label=label
            )
            shares.plot(radii, [row["target"] for row in rows], ":", color=colour, lw=0.8)
            if rows[0]["coverage"] is not None:
                covered = [row["coverage"] for row in rows]
                reach = [
                    [share - row["low"] for share, row in zip(covered, rows)],
                    [row["high"] - share for share, row in zip(covered, rows)],
                ]
                shares.errorbar(radii, covered, yerr=reach, linestyle=style, color=colour, marker="o", ms=2, lw=0.8)
        where = "radius (L2, [0, 1] units)"
        sizes.set(xlabel=where, ylabel="mean set size", ylim=(0, None))
        shares.set(xlabel=where, ylabel="coverage, no attack", ylim=(None, 1.01))
        sizes.legend(frameon=False)
    return figure
