"""``certimed export``: a run as a table for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import one_sentence_errors, out, printable

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
        from certimed.runs import load_run
        from certimed.runs.export import FORMATS

        kind = inputs.one_of("--format", format_ or _ENDINGS.get(target.suffix.lower(), "unknown"), FORMATS)
        loaded = load_run(run)
        if kind == "cohen":
            rows = loaded.to_cohen(target, method)
        else:
            rows = loaded.to_csv(target) if kind == "csv" else loaded.to_parquet(target)
        out.print(f"{rows} rows written to {printable(str(target))}", highlight=False)
