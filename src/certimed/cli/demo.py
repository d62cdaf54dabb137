"""``certimed demo``: certificates on real brain MRI slices, offline, with nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli.console import one_sentence_errors

HELP = """Certify the embedded demo models on real MRI slices; needs no network and no data.

[bold]Examples[/]

  certimed demo

  certimed demo --out results/demo --images 11
"""


def demo(
    out: Annotated[Path, typer.Option(help="New folder for the results.")] = Path("certimed-demo"),
    images: Annotated[int, typer.Option(min=1, help="Test slices to classify at each sigma.")] = 22,
    n: Annotated[int, typer.Option("--n", min=1, help="Noisy copies of a slice to classify.")] = 300,
    masks: Annotated[int, typer.Option(min=0, help="Test slices to segment at each sigma.")] = 2,
    mask_n: Annotated[int, typer.Option(min=1, help="Noisy copies of a slice to segment.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import demonstration

        demonstration.prepare_folder(out)
        demonstration.classification(out, images=images, n=n, seed=seed)
        if masks:
            demonstration.masks(out, images=masks, n=mask_n, seed=seed)
