"""``certimed export``: a run as a table for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import harmless, one_sentence_errors, say
from certimed.errors import InputError

HELP = """Write a run as CSV, Parquet, or the log of Cohen et al. (idx, label, predict, radius, correct, time).

[bold]Examples[/]

  certimed export runs/plip --out plip.csv

  certimed export runs/plip --out plip.parquet

  certimed export runs/plip --format cohen --method few-shot --out plip-few-shot.tsv
"""

_ENDINGS = {".csv": "csv", ".parquet": "parquet", ".tsv": "cohen"}


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    target: Annotated[Path, typer.Option("--out", help="File to write.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="csv, parquet or cohen; default: by the ending of --out.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Method to write in the cohen format.")] = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.exports.tables import TABLES, write_cohen
        from certimed.runs import RunFolder

        known = _ENDINGS.get(target.suffix.lower())
        if format_ is None and known is None:
            raise InputError(f"--out {target} ends in none of {', '.join(_ENDINGS)}; say which it is with --format")
        kind = inputs.one_of("--format", format_ or str(known), tuple(TABLES))
        folder = RunFolder.open(run)
        if method is not None and kind != "cohen":
            raise InputError(f"--method {method} is of the cohen format; other tables hold every method")
        rows = write_cohen(folder, target, method) if kind == "cohen" else TABLES[kind](folder, target)
        say(f"{rows} rows written to {harmless(str(target))}")
