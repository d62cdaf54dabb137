"""``certimed demo``: certificates on real brain MRI slices, offline, with nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

HELP = """Certify the embedded demo models on real MRI slices; needs no network and no data.

[bold]Examples[/]

  certimed demo

  certimed demo --out results/demo --images 11
"""


def demo(
    out: Annotated[Path, typer.Option(help="New folder for the results.")] = Path("certimed-demo"),
    images: Annotated[int, typer.Option(min=1, help="Test slices to classify at each sigma.")] = 22,
    n: Annotated[int, typer.Option("--n", min=1, help="Noisy copies of a slice to classify.")] = 300,
    masks: Annotated[int, typer.Option(min=0, help="Test slices to segment and measure at each sigma.")] = 4,
    mask_n: Annotated[int, typer.Option(min=1, help="Noisy copies of a slice to segment.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    progress: opt.Progress = "auto",
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli.tables import MOST_RADII, print_table
        from certimed.cli.watching import tuning_line, watcher
        from certimed.studies import demo as study

        with watcher(progress) as watch, tuning_line() as tuning:
            found = study(
                out, images=images, n=n, masks=masks, mask_n=mask_n, seed=seed, watcher=watch, progress=tuning
            )
        place, prompts = harmless(str(out)), found.prompts
        say(
            f"{prompts.series[0].images} held-out slices of the MNI152 brain template, {len(prompts.folders)} noise "
            f"levels, a small CLIP trained without noise, and what was learnt under noise: a prompt (few-shot) and an "
            f"adapter of the image side (lora); {n:,} noisy copies an image, alpha 0.001."
        )
        print_table(prompts.table(most=MOST_RADII))
        if found.masks is not None:
            say(
                f"{masks} held-out slices, a small U-Net trained without noise, with and without one diffusion step in "
                f"front; {mask_n:,} noisy copies an image, alpha 0.001 for the measurement and all pixels (tau 0.75)."
            )
            if (measured := found.masks.measured()) is not None:
                print_table(measured)
            print_table(found.masks.table())
        statement = found.largest().statement(prompts.series[0].class_names)
        say(f"The largest radius, in words. {harmless(statement, 1000)}")
        say(f"A run for each sigma, pictures of masks (masks-sigma-*/pictures) and the prompt are in {place}.")
        say(f"As a page: certimed report {place}/*-sigma-*")
        say(f"As evidence: certimed pack {place}/*-sigma-* --out evidence")
