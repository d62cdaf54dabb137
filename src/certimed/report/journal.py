"""Figures as journals want them: exact widths, embedded fonts, colours all can tell apart, equal bytes each time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certimed.errors import InputError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"single": 88.0, "double": 180.0}
"""Column widths in millimetres: one column, and the whole page."""

FORMATS = ("pdf", "svg", "png")
MM = 1 / 25.4
LEAST_WIDTH, MOST_WIDTH = 30.0, 400.0
_DPI = 600
_SCREEN_DPI = 110

# Okabe and Ito's palette, and a line style for each: told apart in grey print, by colour-blind readers, and one atop
# another.
STYLES: tuple[tuple[str, Any], ...] = (
    ("#000000", "-"),
    ("#0072B2", "--"),
    ("#D55E00", "-."),
    ("#009E73", ":"),
    ("#CC79A7", (0, (5, 1))),
    ("#E69F00", (0, (3, 1, 1, 1))),
    ("#56B4E9", (0, (1, 1))),
)

# Type 42 keeps text as text in a PDF, as publishers ask for; an SVG's text becomes outlines, so no font can be missing.
_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "certimed",
    "hatch.linewidth": 0.4,
}

_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"Creator": "certimed", "CreationDate": None, "ModDate": None},
    "svg": {"Creator": "certimed", "Date": None},
    "png": {"Software": "certimed"},
}


@contextmanager
def journal_style() -> Iterator[None]:
    """Small sans-serif text and thin lines, whatever the user's own settings are; restored afterwards.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "figures")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def width_in_mm(text: str) -> float:
    """``"single"``, ``"double"`` or a number of millimetres.

    Raises:
        InputError: anything else, or a width no page has.
    """
    try:
        width = WIDTHS[text] if text in WIDTHS else float(text)
    except ValueError as error:
        raise InputError(f"width {text!r:.40} must be single, double or a number of millimetres, e.g. 88") from error
    if not LEAST_WIDTH <= width <= MOST_WIDTH:
        raise InputError(f"width {text} mm fits no page; use {LEAST_WIDTH:g} to {MOST_WIDTH:g}")
    return width


def file_format(path: Path) -> str:
    """``"pdf"``, ``"svg"`` or ``"png"`` by the file's ending; InputError for another."""
    found = path.suffix.lower().lstrip(".")
    if found not in FORMATS:
        raise InputError(f"{path.name} must end in {', '.join('.' + name for name in FORMATS)}, which says its format")
    return found


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many millimetres; as the last line of a notebook's cell it shows itself."""
    return _figure_class()(figsize=(width * MM, height * MM), layout="constrained")


@lru_cache(maxsize=1)
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that needs no pyplot, and none of its global state, to be shown."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            with journal_style():
                self.savefig(buffer, format="png", dpi=_SCREEN_DPI, metadata=_METADATA["png"])
            return buffer.getvalue()

    return ShownFigure


def save(figure: Figure, path: Path, *, dpi: int = _DPI) -> None:
    """Write a figure in its own size; the same figure gives the same bytes, as no date is written.

    Raises:
        InputError: an unknown ending, or a file that cannot be written.
    """
    kind = file_format(path)
    try:
        with journal_style():
            figure.savefig(path, format=kind, dpi=dpi, metadata=_METADATA[kind])
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error
