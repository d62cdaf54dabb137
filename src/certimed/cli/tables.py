"""Result tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table as Grid

from certimed.cli.console import harmless, say
from certimed.report.tables import DASH, Table

MOST_RADII = 4
"""As many columns of radii as fit a terminal."""


_SHORT = {"measurement": "measure", "guaranteed": "guar.", "published": "publ.", "certified": "cert."}


def _heading(text: str) -> str:
    """A heading in short words, one a line."""
    return "\n".join(_SHORT.get(word.rstrip(","), word.rstrip(",")) for word in text.split())


def print_table(table: Table) -> None:
    """Print a table with what a reader needs beside it; intervals stand below the cells."""
    grid = Grid(box=SIMPLE_HEAD, padding=0)
    # A column that says nothing gives its room to the others: nothing may be cut at 80 columns.
    told = [
        i for i, column in enumerate(table.columns) if column.left or {row.cells[i] for row in table.rows} - {"0", DASH}
    ]
    for index in told:
        column = table.columns[index]
        # Where it is too narrow for all, words are broken and numbers are not.
        side, overflow = ("left", "fold") if column.left else ("right", "ellipsis")
        grid.add_column(_heading(column.text), justify=side, overflow=overflow, no_wrap=not column.left)  # type: ignore[arg-type]
    before = None
    for row in table.rows:
        if before not in (None, row.block):
            grid.add_section()
        before = row.block
        cells = [(row.cells[index], row.small[index] if row.small else "") for index in told]
        grid.add_row(*(harmless(cell) + (f"\n{text}" if text else "") for cell, text in cells))
    say(f"{table.title}:")
    say(grid)
    for note in table.notes:
        say(harmless(note, 1000), style="dim")
