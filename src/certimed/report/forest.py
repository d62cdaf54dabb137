"""Certified intervals of measurements, image by image, for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from certimed.errors import InputError
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure
from certimed.report.series import Series, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 40
_ROW, _ROOM = 3.4, 16.0


def forest_figure(series: Sequence[Series[Any]], *, width: float = WIDTHS["double"]) -> Figure:
    """One panel a measurement, one row an image: the median under noise, and the interval in which it stays at each of
    the radii asked for, the widest for the largest. Intervals without an end reach the edge of their panel.

    Args:
        series: of measurements, of the same images.
        width: in millimetres.

    Raises:
        InputError: nothing was measured, or more series than can be told apart.
    """
    series = [one for one in series if one.measured]
    if not series:
        raise InputError("there is nothing to draw: these runs have no measurements")
    if len(series) > len(STYLES):
        raise InputError(f"{len(series)} series in one panel cannot be told apart; choose some with --method")
    items = [one.item for one in series[0].certificates][:_MOST_ROWS]
    names = [one.name for one in series[0].first.claim.intervals]
    with journal_style():
        figure = new_figure(width, _ROOM + _ROW * len(items) * max(1.0, len(series) / 2))
        axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for place, (axis, name) in enumerate(zip(axes, names)):
            own = [_of(one, place, items) for one in series]
            ends = [end for rows in own for row in rows for pair in row[1] for end in pair if math.isfinite(end)]
            low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
            margin = 0.05 * ((high - low) or 1.0)
            axis.set_xlim(low - margin, high + margin)
            for number, (rows, title, (colour, _)) in enumerate(zip(own, titles(series, by_method=True), STYLES)):
                _draw(axis, rows, (number + 0.5) / len(series) - 0.5, colour, title)
            named = series[0].first.claim.intervals[place]
            if named.threshold is not None:
                axis.axvline(named.threshold, color="0.4", ls=":", lw=0.8)
            axis.set_xlabel(f"{name}, {named.unit}" if named.unit else name)
            axis.grid(alpha=0.25, lw=0.3, axis="x")
        axes[0].set_yticks(range(len(items)), [item.rpartition("/")[2][:24] for item in items])
        axes[0].invert_yaxis()
        axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _of(one: Series[Any], place: int, items: Sequence[str]) -> list[tuple[float | None, list[tuple[float, float]]]]:
    """Median and intervals of each of these images; nothing where a series lacks one."""
    found = {c.item: c.claim.intervals[place] for c in one.certificates}
    rows: list[tuple[float | None, list[tuple[float, float]]]] = []
    for item in items:
        measured = found.get(item)
        rows.append((None, []) if measured is None else (measured.median, list(zip(measured.lower, measured.upper))))
    return rows


def _draw(axis: Any, rows: Sequence[Any], shift: float, colour: str, title: str) -> None:
    left, right = axis.get_xlim()
    for number, (median, pairs) in enumerate(rows):
        for step, (low, high) in enumerate(pairs):
            at = number + 0.8 * shift
            line = 3.0 - 2.2 * step / max(1, len(pairs) - 1)
            ends = [max(low, left), min(high, right)]
            label = title if (number, step) == (0, 0) else None
            axis.plot(ends, [at, at], color=colour, lw=line, alpha=0.75, solid_capstyle="butt", label=label)
        if median is not None:
            axis.plot([median], [number + 0.8 * shift], "o", ms=2.2, color="white", mec=colour, mew=0.7)
