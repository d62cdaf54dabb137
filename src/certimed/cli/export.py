"""``certimed export``: a run in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

HELP = """Write a run for other programs: tables (csv, parquet), the log of Cohen et al. (cohen), layers of masks (png,
nifti), and DICOM objects about DICOM images (dicom-seg, dicom-pm, dicom-sr).

[bold]Examples[/]

  certimed export runs/plip --out plip.csv

  certimed export runs/plip --as cohen --method few-shot --out plip-few-shot.tsv

  certimed export runs/brain --as nifti --out brain-layers

  certimed export runs/lungs --as dicom-seg --codes codes.json --out lungs-dicom
"""


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    target: Annotated[Path, typer.Option("--out", help="File to write; a folder for formats of single images.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="csv, parquet, cohen, png, nifti, dicom-seg, dicom-pm or dicom-sr; default: by the ending of --out.",
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Certificates of this method only; tables hold all.")] = None,
    item: Annotated[list[str] | None, typer.Option(help="Id of an image to write; repeat for several.")] = None,
    codes: Annotated[Path | None, typer.Option(help="JSON file of coded terms for DICOM.")] = None,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Leave out what the DICOM header says of patient and study.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Where the images are now.")] = None,
    masks: opt.Masks = None,
    labels: opt.Labels = None,
    split: opt.Split = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.exports.formats import export as write
        from certimed.exports.options import ExportOptions
        from certimed.runs import RunFolder

        asked = ExportOptions(method, tuple(item or ()), data, masks, labels, split, codes, anonymise)
        done = write(RunFolder.open(run), target, kind, asked)
        for note in done.notes:
            say(harmless(note))
        what = f"{len(done.files)} files" if done.rows is None else f"{done.rows} rows"
        say(f"{what} written to {harmless(str(target))}")
