"""Result tables for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table as Grid

from certimed.cli.console import harmless, say
from certimed.report.tables import Table

MOST_RADII = 6
"""As many columns of radii as fit a terminal."""


def print_table(table: Table) -> None:
    """Print a table with what a reader needs beside it; intervals stand below the cells."""
    grid = Grid(box=SIMPLE_HEAD, padding=0)
    for column in table.columns:
        grid.add_column(column.text, justify="left" if column.left else "right", no_wrap=True)
    before = None
    for row in table.rows:
        if before not in (None, row.block):
            grid.add_section()
        before = row.block
        small = row.small or ("",) * len(row.cells)
        grid.add_row(*(harmless(f"{cell}") + (f"\n{text}" if text else "") for cell, text in zip(row.cells, small)))
    say(f"{table.title}:")
    say(grid)
    for note in table.notes:
        say(harmless(note, 1000), style="dim")
