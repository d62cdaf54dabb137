"""The table of any kind of certificates; those of measurements and of sets are made here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certimed.certificates import shown
from certimed.metrics.measured import interval_rows
from certimed.metrics.sets import set_rows
from certimed.report.notes import common_notes
from certimed.report.series import Series, titles
from certimed.report.tables import (
    DASH,
    Column,
    Row,
    Table,
    accuracy_table,
    mask_table,
    per_cent,
    span_text,
    where,
)


def interval_table(series: Sequence[Series[Any]]) -> Table:
    """Measurements: how wide intervals are and what was decided, one row a measurement and radius, a block a series.

    Widths are means over the images whose interval is finite, rounded up.
    """
    columns = [
        Column("method", left=True),
        Column("measurement", left=True),
        Column("unit", left=True),
        Column("radius"),
    ]
    columns += [
        Column("median"),
        Column("width"),
        Column("finite"),
        Column("below"),
        Column("above"),
    ]
    columns += [Column("undecided"), Column("images"), Column("failed")]
    rows = []
    for one, title in zip(series, titles(series, by_method=True)):
        for found in interval_rows(one.certificates):
            median, width = found["median"], found["width"]
            decided = [DASH] * 3
            if found["threshold"] is not None:
                decided = [str(found[name]) for name in ("below", "above")]
                decided.append(str(found["images"] - found["below"] - found["above"]))
            cells = [title + one.marks, found["measurement"], found["unit"], shown(found["radius"], "lower", digits=6)]
            cells += [
                DASH if median is None else f"{median:.4g}",
                DASH if width is None else shown(width, "upper", digits=4),
            ]
            cells += [str(found["finite"]), *decided, str(found["images"]), str(one.failed)]
            rows.append(Row(one, title, tuple(cells)))
    notes = [
        f"radius: L2 in {where(series)}. For every perturbation below it the "
        "median under noise stays in its interval; median, width: means over images (of finite intervals); finite: "
        "images whose interval has two ends; below, above: images whose interval is proved to lie on that side of the "
        "threshold.",
        *common_notes(series),
    ]
    return Table("intervals of measurements", tuple(columns), tuple(rows), tuple(notes))


def set_table(series: Sequence[Series[Any]]) -> Table:
    """Sets of classes: how large they are and how many hold the true class, one row a radius, a block a series."""
    columns = [Column("method", left=True), Column("sigma", r"$\sigma$"), Column("score", left=True), Column("radius")]
    columns += [Column("set size"), Column("one class", r"one class (\%)"), Column("all classes", r"all classes (\%)")]
    columns += [Column("target", r"target (\%)"), Column("coverage", r"coverage (\%)"), Column("images")]
    columns += [Column("failed")]
    rows = []
    for one, title in zip(series, titles(series, by_method=True)):
        for found in set_rows(one.certificates, one.labels):
            cells = [title + one.marks, f"{one.sigma:g}", one.first.claim.score.upper()]
            cells += [shown(found["radius"], "lower", digits=6), shown(found["size"], "upper", places=2)]
            cells += [per_cent(found[name] / found["images"]) for name in ("single", "full")]
            cells += [per_cent(found["target"], 1, "lower"), per_cent(found["coverage"], 1)]
            cells += [str(found["images"]), str(one.failed)]
            low = found["low"]
            small = ("",) * 8 + ("" if low is None else span_text(low, found["high"], 1), "", "")
            rows.append(Row(one, title, tuple(cells), small))
    notes = [
        f"radius: L2 in {where(series)}. Whatever an attack below it does "
        "without seeing the test image's noise, a set holds the true class with the target probability, over "
        "calibration images, test images and noise. set size: mean. coverage: share of these images, without an "
        "attack, whose set holds the true class, with its 95 % interval over new images at this calibration.",
        *common_notes(series),
    ]
    return Table("sets of classes under attack", tuple(columns), tuple(rows), tuple(notes))


def table(series: Sequence[Series[Any]], **how: Any) -> Table:
    """Of series of one kind, by the function for that kind."""
    if series[0].set_valued:
        return set_table(series)
    if series[0].measured:
        return interval_table(series)
    return (mask_table if series[0].masks else accuracy_table)(series, **how)
