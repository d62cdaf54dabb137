"""``certimed report``: runs as one page that a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

HELP = """Write one self-contained HTML page about one or several runs: what is proved, what is not, and every image.

The page needs no network. Classification and segmentation runs may be mixed. (extra: report)

[bold]Examples[/]

  certimed report runs/plip

  certimed report runs/sigma-0.25 runs/sigma-0.5 runs/sigma-1 --out report.html

  certimed report runs/lungs --data xray/  (the images have moved)
"""


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.", show_default=False)],
    target: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: report.html in the first run folder.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the images are now; default: where the runs read them.")
    ] = None,
    labels: opt.Labels = None,
    masks: opt.Masks = None,
    split: opt.Split = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Recompute every statement first (extra: verify).")
    ] = True,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.attacks.page import SandwichPart
        from certimed.report.html import write_report

        made = write_report(
            runs,
            target or runs[0] / "report.html",
            data=data,
            labels=labels,
            masks=masks,
            split=split,
            verify=verify,
            more=(SandwichPart,),
        )
        for note in made.notes:
            say(harmless(note, 500))
        say(
            f"{made.images} images, {made.pictures} with a picture, {made.size / 1e6:.1f} MB; written to "
            f"{harmless(str(made.path))}"
        )
