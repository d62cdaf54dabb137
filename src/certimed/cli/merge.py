"""``certimed merge``: the shards of a run become one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import harmless, one_sentence_errors, say

HELP = """Merge run folders that are parts of one run; overlaps and different settings are refused.

[bold]Examples[/]

  certimed merge runs/part-1 runs/part-2 runs/part-3 runs/part-4 --out runs/whole
"""


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more run folders.")],
    target: Annotated[Path, typer.Option("--out", help="New run folder to write.")],
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.runs import merge as merge_runs

        with merge_runs(runs, target) as merged:
            images, digest = len(merged.status()), merged.digest()
        say(f"{images} images of {len(runs)} runs written to {harmless(str(target))}")
        say(f"digest {digest}")
