"""``certimed reproduce``: the published protocols on their data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say
from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.studies import Study

app = typer.Typer(
    help="Run a published protocol on its data set and print its table.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

HELP = """Certified accuracy of medical vision-language models with learnt prompts (PromptSmooth, MICCAI 2024).

Tunes on the training part, certifies 500 class-balanced test images at sigma 0.1, 0.25, 0.5 and 1, and writes the \
table (methods by radii, with confidence intervals) as CSV and LaTeX. Started again with the same --out, it goes on \
where it stopped. Folder layouts: docs/reproduce.md.

[bold]Examples[/]

  certimed reproduce promptsmooth --dataset kather --model plip --data-root data/kather --out runs/kather-plip

  certimed reproduce promptsmooth --dataset kather --model plip --data-root data/kather --limit 20 --n 1000 \
--sigma 0.25 --out runs/quick

  certimed reproduce promptsmooth --dataset rsna18 --model medclip:weights/medclip-vit --data-root data/rsna \
--sweep shots --out runs/shots
"""
_PROTOCOL = "Protocol"


_Dataset = Annotated[str | None, typer.Option(help="kather, pannuke, sicapv2, skincancer, covid19 or rsna18.")]
_Model = Annotated[
    str | None, typer.Option(help="plip, quiltnet, medclip, biomedclip, or any model as in certimed certify classes.")
]
_Sigma = Annotated[str | None, typer.Option(help="Noise levels; published: 0.1,0.25,0.5,1.", rich_help_panel=_PROTOCOL)]
_Methods = Annotated[
    str | None,
    typer.Option(
        help="Methods out of plain, few-shot, zero-shot, both, pool, per-sample, split; default: the first four.",
        rich_help_panel=_PROTOCOL,
    ),
]
_N = Annotated[
    int | None, typer.Option("--n", min=1, help="Noisy copies; published: 10 000.", rich_help_panel=_PROTOCOL)
]
_Budget = Annotated[
    str | None, typer.Option(help="Instead of a fixed n, as for certify, e.g. grid.", rich_help_panel=_PROTOCOL)
]
_Limit = Annotated[
    int | None, typer.Option(min=1, help="Test images; published: 500, in sweeps 100.", rich_help_panel=_PROTOCOL)
]
_Shots = Annotated[
    int | None, typer.Option(min=1, help="Tuning images a class; published: 16.", rich_help_panel=_PROTOCOL)
]
_Epochs = Annotated[
    int | None, typer.Option(min=1, help="Of few-shot tuning; published: 50.", rich_help_panel=_PROTOCOL)
]
_Recipe = Annotated[
    str | None, typer.Option(help="published (CoOp's optimiser) or default (better).", rich_help_panel=_PROTOCOL)
]
_Sweep = Annotated[
    str | None, typer.Option(help="Ablation over shots, context, steps or copies.", rich_help_panel=_PROTOCOL)
]
_Values = Annotated[
    str | None, typer.Option(help="Values of the sweep, separated by commas.", rich_help_panel=_PROTOCOL)
]
_BaselineTemplate = Annotated[
    str,
    typer.Option(
        help="Template of method plain: same (as learnt methods start from), published, or a text with {}.",
        rich_help_panel=_PROTOCOL,
    ),
]
_Seed = Annotated[int | None, typer.Option(help="Of subset, shots and noise; published: 3.", rich_help_panel=_PROTOCOL)]


@app.command(help=HELP)
def promptsmooth(
    dataset: _Dataset = None,
    model: _Model = None,
    allow_code: opt.AllowCode = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; new, or of this run stopped.")] = None,
    sigma: _Sigma = None,
    methods: _Methods = None,
    n: _N = None,
    budget: _Budget = None,
    limit: _Limit = None,
    shots: _Shots = None,
    epochs: _Epochs = None,
    recipe: _Recipe = None,
    sweep: _Sweep = None,
    values: _Values = None,
    baseline_template: _BaselineTemplate = "same",
    seed: _Seed = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = 1,
    progress: opt.Progress = "auto",
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from dataclasses import replace

        from certimed.cli import inputs
        from certimed.cli.watching import tuning_line, watcher
        from certimed.studies import PROTOCOL
        from certimed.studies import promptsmooth as study

        changes = {"n": n, "shots": shots, "epochs": epochs, "recipe": recipe, "seed": seed, "batch_size": batch_size}
        given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        if n is not None and budget is not None:
            raise InputError(f"--n {n} and --budget {budget} both say how many samples; give one of them")
        if sigma is not None:
            given["sigmas"] = inputs.numbers("--sigma", sigma)
        with watcher(progress) as watch, tuning_line() as tuning:
            found = study(
                inputs.needed("--dataset", dataset, "kather"),
                inputs.needed("--model", model, "plip"),
                inputs.needed("--data-root", data_root, "data/kather"),
                inputs.needed("--out", out, "runs/kather-plip"),
                protocol=replace(PROTOCOL, **given),
                methods=None if methods is None else [name.strip() for name in methods.split(",")],
                sweep=sweep,
                values=None if values is None else inputs.numbers("--values", values),
                images=limit,
                budget=budget,
                template=baseline_template,
                device=device,
                workers=workers,
                allow_code=allow_code,
                watcher=watch,
                progress=tuning,
            )
        _conclude(found, out)
    inputs.exit_for_failures(found.failed)


def _conclude(study: Study, out: Path | None) -> None:
    from certimed.cli.tables import MOST_RADII, print_table

    print_table(study.table(most=MOST_RADII))
    say(f"table.csv, table.tex and a run folder for each sigma are in {harmless(str(out))}")


MASK_HELP = """Certified Dice and IoU with and without one-step diffusion denoising (Laousy et al., MICCAI 2023).

Certifies the test part at sigma 0.25, 0.5 and 1 and writes the table (method by sigma: radius, Dice, IoU, abstained) \
as CSV and LaTeX. Started again with the same --out, it goes on where it stopped. Layouts and splits: docs/reproduce.md.

[bold]Examples[/]

  certimed reproduce segmentation --dataset jsrt --model smp:my_unet --denoiser my_ddpm --data-root data/jsrt \
--out runs/jsrt

  certimed reproduce segmentation --dataset cvc-clinicdb --split leak-free --model smp:my_unet --data-root data/cvc \
--limit 10 --out runs/cvc
"""


@app.command(help=MASK_HELP)
def segmentation(
    dataset: Annotated[str | None, typer.Option(help="jsrt, montgomery, shenzhen, isic2018 or cvc-clinicdb.")] = None,
    model: Annotated[str | None, typer.Option(help="Network, as in certimed certify masks.")] = None,
    allow_code: opt.AllowCode = False,
    denoiser: opt.Denoiser = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; new, or of this run stopped.")] = None,
    split: Annotated[str, typer.Option(help="published, or leak-free (by video sequence where there are any).")] = (
        "published"
    ),
    sigma: Annotated[str | None, typer.Option(help="Noise levels; published: 0.25,0.5,1.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Samples an image; published: 100.")] = None,
    limit: opt.Limit = None,
    output: opt.Output = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    workers: opt.Workers = 1,
    progress: opt.Progress = "auto",
) -> None:
    """See :data:`MASK_HELP`."""
    with one_sentence_errors():
        from dataclasses import replace

        from certimed.cli import inputs
        from certimed.cli.watching import watcher
        from certimed.studies import SEGMENTATION_PROTOCOL
        from certimed.studies import segmentation as study

        given: dict[str, Any] = {} if n is None else {"n": n}
        if sigma is not None:
            given["sigmas"] = inputs.numbers("--sigma", sigma)
        with watcher(progress) as watch:
            found = study(
                inputs.needed("--dataset", dataset, "jsrt"),
                inputs.needed("--model", model, "smp:my_unet"),
                inputs.needed("--data-root", data_root, "data/jsrt"),
                inputs.needed("--out", out, "runs/jsrt"),
                denoiser=denoiser,
                protocol=replace(SEGMENTATION_PROTOCOL, **given),
                split=split,
                images=limit,
                output=output,
                seed=seed,
                device=device,
                workers=workers,
                allow_code=allow_code,
                watcher=watch,
            )
        _conclude(found, out)
    inputs.exit_for_failures(found.failed)
