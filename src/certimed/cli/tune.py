"""``certimed tune``: learn a prompt under noise on your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import one_sentence_errors

HELP = """Learn a prompt under noise (PromptSmooth) and write a small prompt file; the model itself stays frozen.

[bold]Examples[/]

  certimed tune --model hf:vinid/plip --data train/ --shots 16 --out prompt.safetensors

  certimed tune --model hf:vinid/plip --data train/ --test test/ --context "An H&E image of" --out prompt.safetensors

  certimed tune --model demo --data unlabelled/ --method pool --classes "covid,normal" --out pool.safetensors
"""
_TUNING = "Tuning"


def tune(
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    data: opt.Data = None,
    out: Annotated[Path | None, typer.Option(help="Prompt file to write, e.g. prompt.safetensors.")] = None,
    method: Annotated[str, typer.Option(help="few-shot (labelled) or pool (unlabelled).")] = "few-shot",
    classes: opt.Classes = None,
    template: opt.Template = None,
    test: Annotated[Path | None, typer.Option(help="Images that must not be tuned on: an overlap is refused.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Labelled images per class.", rich_help_panel=_TUNING)] = 16,
    epochs: Annotated[int, typer.Option(min=1, rich_help_panel=_TUNING)] = 50,
    sigmas: Annotated[
        str, typer.Option(help="Noise levels mixed in one prompt.", rich_help_panel=_TUNING)
    ] = "0,0.1,0.25,0.5,1",
    recipe: Annotated[
        str, typer.Option(help="default, or published (CoOp's optimiser).", rich_help_panel=_TUNING)
    ] = "default",
    context: Annotated[
        str, typer.Option(help="Words to start from, or a number of random tokens.", rich_help_panel=_TUNING)
    ] = "5",
    per_class: Annotated[bool, typer.Option(help="One context for each class.", rich_help_panel=_TUNING)] = False,
    position: Annotated[
        str, typer.Option(help="Where the class name stands: end, middle, front.", rich_help_panel=_TUNING)
    ] = "end",
    held_out: Annotated[
        int, typer.Option(min=0, help="Images per class held back to watch accuracy.", rich_help_panel=_TUNING)
    ] = 0,
    early_stop: Annotated[
        int | None, typer.Option(help="Stop after this many epochs without progress.", rich_help_panel=_TUNING)
    ] = None,
    copies: Annotated[
        int, typer.Option(min=1, help="Noisy copies of each image of a pool.", rich_help_panel=_TUNING)
    ] = 100,
    seed: opt.Seed = 0,
    labels: opt.Labels = None,
    split: opt.Split = None,
    window: opt.Window = None,
    frame: opt.Frame = 0,
    axis: opt.Axis = "axial",
    slice_: opt.Slice = None,
    device: opt.Device = "cpu",
    batch_size: opt.BatchSize = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs, tuning

        inputs.one_of("--method", method, ("few-shot", "pool"))
        target = inputs.new_file("--out", inputs.needed("--out", out, "prompt.safetensors"))
        source = inputs.Source(
            path=inputs.needed("--data", data, "train/"),
            classes=inputs.class_entries(classes),
            labels=labels,
            split=split,
            reading=inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_),
        )
        how = tuning.Tuning(
            sigmas=inputs.numbers("--sigmas", sigmas),
            shots=shots,
            epochs=epochs,
            recipe=recipe,
            context=tuning.context_start(context, template),
            per_class=per_class,
            position=position,
            held_out=held_out,
            early_stop=early_stop,
            seed=seed,
            batch_size=batch_size,
            copies=copies,
        )
        spec = inputs.needed("--model", model, "hf:vinid/plip")
        tuning.run(spec, source, test, how, method, device, target, allow_code=allow_code)
