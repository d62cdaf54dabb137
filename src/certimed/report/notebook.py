"""A run shown in a notebook: its results as a table, and its curves."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from certimed.report.curves import curve_figure
from certimed.report.forest import forest_figure
from certimed.report.journal import width_in_mm
from certimed.report.kind_tables import table
from certimed.report.series import by_kind, panels, series
from certimed.report.set_sizes import size_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_card(path: Path) -> str:
    """The results of a run as an HTML table, one row a series."""
    found = series([path])
    first, parts = found[0], []
    for shown in map(table, by_kind(found)):
        notes = "".join(f"<br>{escape(note)}" for note in shown.notes)
        parts.append(f"<p>{escape(shown.title)}</p>{shown.html()}<p><small>{notes[4:]}</small></p>")
    about = f"{len(first.records)} images certified, {first.failed} failed; budget {first.spec.budget}."
    return f"<p><b>{escape(path.name)}</b>: {escape(about)}</p>{''.join(parts)}"


def run_figure(path: Path, *, by: str = "sigma", width: str = "double", native: bool = False) -> Figure:
    """The curves of a run, see :mod:`certimed.report.curves`; without any, its forest plot or set sizes."""
    found = series([path], native=native)
    if all(one.measured for one in found):
        return forest_figure(found, width=width_in_mm(width))
    if all(one.set_valued for one in found):
        return size_figure(found, width=width_in_mm(width))
    return curve_figure(panels(found, by), width=width_in_mm(width))
