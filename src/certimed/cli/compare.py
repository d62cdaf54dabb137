"""``certimed compare``: did the second run lose certificates of the first?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import EXIT_FALSE, harmless, one_sentence_errors, say

HELP = """Compare two runs on the same images and noise: did the second, a new checkpoint say, lose certificates?

Certified accuracy at each radius, of masks the guaranteed Dice of each class, paired image by image, with intervals
that hold together. Exit code 1: some figure fell by more than --margin, beyond what the choice of images explains. Runs
on other images, or with another sigma, noise, alpha or target, are refused.

[bold]Examples[/]

  certimed compare runs/old runs/new

  certimed compare runs/old runs/new --margin 0.02 --json

  certimed compare runs/plip runs/plip --method plain --against few-shot
"""


def compare(
    before: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run folder to start from.")],
    after: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run folder of what is new.")],
    method: Annotated[str | None, typer.Option(help="Method of RUN_A; default: all that both have.")] = None,
    against: Annotated[str | None, typer.Option(help="Method of RUN_B; default: that of RUN_A.")] = None,
    radius: Annotated[
        str | None, typer.Option(help="Radii of certified accuracy, by commas; default: the published ones.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="That all intervals hold together.")] = 0.95,
    margin: Annotated[float, typer.Option(help="A fall up to this, a share, is no loss.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="The comparison as JSON on standard output.")] = False,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.cli.tables import MOST_RADII, print_table
        from certimed.report.comparison import compare as compared

        radii = None if radius is None else inputs.numbers("--radius", radius)
        found = compared(
            before, after, method=method, against=against, radii=radii, confidence=confidence, margin=margin
        )
        if as_json:
            print(json.dumps(found.to_dict(), allow_nan=False))
        else:
            print_table(found.table(most=MOST_RADII if radius is None else None))
            for name, (was, now) in found.changed.items():
                say(f"differs: {harmless(name)}, {harmless(str(was), 80)} before and {harmless(str(now), 80)} after")
            say(harmless(found.verdict(), 400))
    if found.losses:
        raise typer.Exit(EXIT_FALSE)
