"""``certimed figure``: runs as figures and tables a paper can print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

CURVE_HELP = """Draw certified accuracy (of masks: the share of pixels certified) against the radius.

One panel for each sigma, method or run; bands are over images. PDF, SVG or PNG by the ending of [bold]--out[/], at the
width of a journal's column, fonts embedded, the same bytes every time. (extra: figures)

[bold]Examples[/]

  certimed figure curve runs/plip --out curve.pdf

  certimed figure curve runs/sigma-0.25 runs/sigma-0.5 --by method --width single --out curves.svg

  certimed figure curve runs/plip --method plain,few-shot --native --out native.png
"""

TABLE_HELP = """Write results as a LaTeX (booktabs) or CSV table in the papers' layout, by the ending of --out.

[bold]Examples[/]

  certimed figure table runs/sigma-0.25 runs/sigma-0.5 --out table.tex

  certimed figure table runs/lungs --out lungs.csv
"""

PANELS_HELP = """Draw some images of one run with what was proved; masks with abstained pixels and radius maps.

The images are read again from where the run read them, or from [bold]--data[/].

[bold]Examples[/]

  certimed figure panels runs/lungs --first 3 --out lungs.pdf

  certimed figure panels runs/plip --item slide-1.png --item slide-7.png --data slides/ --width single --out plip.png
"""

INTERVALS_HELP = """Draw the certified intervals of measurements, image by image, with their medians under noise.

[bold]Examples[/]

  certimed figure intervals runs/ctr --out ctr.pdf
"""

Runs = Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.", show_default=False)]
Target = Annotated[Path, typer.Option("--out", help="File to write.", show_default=False)]
MethodNames = Annotated[str | None, typer.Option("--method", help="Methods to show, by commas; default: all.")]
Width = Annotated[str, typer.Option(help="single (88 mm), double (180 mm), or a number of millimetres.")]
Native = Annotated[bool, typer.Option("--native", help="Radii at native resolution.")]
Confidence = Annotated[float, typer.Option(help="Of bands and intervals over images.")]

app = typer.Typer(help="Figures and tables for papers.", no_args_is_help=True, rich_markup_mode="rich")


@app.command(help=CURVE_HELP)
def curve(
    runs: Runs,
    target: Target,
    method: MethodNames = None,
    by: Annotated[str, typer.Option(help="One panel for each sigma, method or run.")] = "sigma",
    width: Width = "double",
    native: Native = False,
    confidence: Confidence = 0.95,
) -> None:
    """See :data:`CURVE_HELP`."""
    with one_sentence_errors():
        from certimed.report.figures import draw_curves

        draw_curves(runs, target, _names(method), by=by, width=width, native=native, confidence=confidence)
        _say(target)


@app.command(help=TABLE_HELP)
def table(
    runs: Runs,
    target: Target,
    method: MethodNames = None,
    radii: Annotated[str | None, typer.Option(help="Radii of the columns, by commas; default: the papers'.")] = None,
    caption: Annotated[str, typer.Option(help="Caption of the LaTeX table.")] = "",
    label: Annotated[str, typer.Option(help="Label of the LaTeX table.")] = "",
    native: Native = False,
    confidence: Confidence = 0.95,
) -> None:
    """See :data:`TABLE_HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.report.figures import write_table

        wanted = None if radii is None else inputs.numbers("--radii", radii)
        chosen = _names(method)
        write_table(
            runs, target, chosen, radii=wanted, caption=caption, label=label, native=native, confidence=confidence
        )
        _say(target)


@app.command(help=INTERVALS_HELP)
def intervals(runs: Runs, target: Target, method: MethodNames = None, width: Width = "double") -> None:
    """See :data:`INTERVALS_HELP`."""
    with one_sentence_errors():
        from certimed.report.figures import draw_intervals

        draw_intervals(runs, target, _names(method), width=width)
        _say(target)


@app.command(help=PANELS_HELP)
def panels(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    target: Target,
    method: MethodNames = None,
    item: Annotated[list[str] | None, typer.Option(help="Id of an image to show; repeat for several.")] = None,
    first: Annotated[int, typer.Option(min=1, help="Without --item: show the first N images.")] = 4,
    width: Width = "double",
    data: Annotated[Path | None, typer.Option(help="Where the images are now.")] = None,
    masks: opt.Masks = None,
    labels: opt.Labels = None,
    split: opt.Split = None,
) -> None:
    """See :data:`PANELS_HELP`."""
    with one_sentence_errors():
        from certimed.report.figures import draw_images
        from certimed.runs.images import Images

        images = Images(run, data, masks=masks, labels=labels, split=split)
        draw_images(images, target, _names(method), items=item, first=first, width=width)
        _say(target)


def _names(text: str | None) -> list[str] | None:
    """``--method``: names by commas, or None for all."""
    return None if text is None else [name.strip() for name in text.split(",")]


def _say(target: Path) -> None:
    say(f"written to {harmless(str(target))}")
