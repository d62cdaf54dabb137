"""A run shown in a notebook: its results as a table, and its curves."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from certimed.report.curves import curve_figure
from certimed.report.journal import width_in_mm
from certimed.report.series import panels, series
from certimed.report.tables import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_card(path: Path) -> str:
    """The results of a run as an HTML table, one row a series."""
    found = series([path])
    shown, first = table(found), found[0]
    about = f"{len(first.records)} images certified, {first.failed} failed; budget {first.spec.budget}; {shown.title}."
    notes = "".join(f"<br>{escape(note)}" for note in shown.notes)
    return f"<p><b>{escape(path.name)}</b>: {escape(about)}</p>{shown.html()}<p><small>{notes[4:]}</small></p>"


def run_figure(path: Path, *, by: str = "sigma", width: str = "double", native: bool = False) -> Figure:
    """The curves of a run; see :mod:`certimed.report.curves`."""
    return curve_figure(panels(series([path], native=native), by), width=width_in_mm(width))
