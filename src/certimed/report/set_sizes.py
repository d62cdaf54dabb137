"""A figure of runs of sets: their size and coverage against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from certimed.errors import InputError
from certimed.metrics.sets import set_rows
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure
from certimed.report.series import Series, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
