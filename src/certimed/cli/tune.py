"""``certimed tune``: learn a prompt under noise on your own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

if TYPE_CHECKING:
    from certimed.prompts import Prompt

HELP = """Learn a prompt under noise (PromptSmooth) and write a small prompt file; the model itself stays frozen.

[bold]Examples[/]

  certimed tune --model hf:vinid/plip --data train/ --shots 16 --out prompt.safetensors

  certimed tune --model hf:vinid/plip --data train/ --test test/ --context "An H&E image of" --out prompt.safetensors

  certimed tune --model demo --data unlabelled/ --method pool --classes "covid,normal" --out pool.safetensors
"""
_TUNING = "Tuning"


_Sigmas = Annotated[str, typer.Option(help="Noise levels mixed in one prompt.", rich_help_panel=_TUNING)]
_Recipe = Annotated[str, typer.Option(help="default, or published (CoOp's optimiser).", rich_help_panel=_TUNING)]
_Context = Annotated[
    str, typer.Option(help="Words to start from, or a number of random tokens.", rich_help_panel=_TUNING)
]
_Position = Annotated[
    str, typer.Option(help="Where the class name stands: end, middle, front.", rich_help_panel=_TUNING)
]
_HeldOut = Annotated[
    int, typer.Option(min=0, help="Images per class held back to watch accuracy.", rich_help_panel=_TUNING)
]
_EarlyStop = Annotated[
    int | None, typer.Option(help="Stop after this many epochs without progress.", rich_help_panel=_TUNING)
]
_Copies = Annotated[int, typer.Option(min=1, help="Noisy copies of each image of a pool.", rich_help_panel=_TUNING)]


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
    sigmas: _Sigmas = "0,0.1,0.25,0.5,1",
    recipe: _Recipe = "default",
    context: _Context = "5",
    per_class: Annotated[bool, typer.Option(help="One context for each class.", rich_help_panel=_TUNING)] = False,
    position: _Position = "end",
    held_out: _HeldOut = 0,
    early_stop: _EarlyStop = None,
    copies: _Copies = 100,
    seed: opt.Seed = 0,
    labels: opt.Labels = None,
    split: opt.Split = None,
    window: opt.Window = None,
    frame: opt.Frame = 0,
    axis: opt.Axis = "axial",
    slice_: opt.Slice = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.classifiers import load_prompted
        from certimed.cli import inputs
        from certimed.cli.watching import tuning_line
        from certimed.prompts import TUNED, TuningPlan, tune_prompt
        from certimed.runs import DataSpec, class_names, words_before_name

        inputs.one_of("--method", method, TUNED)
        target = inputs.new_file("--out", inputs.needed("--out", out, "prompt.safetensors"))
        reading = inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_)
        entries = inputs.class_entries(classes)
        source = DataSpec(
            str(inputs.needed("--data", data, "train/")),
            None if entries is None else tuple(entries),
            None if labels is None else str(labels),
            split=split,
            reading=reading,
        )
        plan = TuningPlan(
            sigmas=inputs.numbers("--sigmas", sigmas),
            shots=shots,
            epochs=epochs,
            recipe=recipe,
            context=words_before_name(template[0]) if template else int(context) if context.isdecimal() else context,
            per_class=per_class,
            position=position,  # type: ignore[arg-type]
            held_out=held_out,
            early_stop=early_stop,
            seed=seed,
            batch_size=batch_size,
            copies=copies,
        )
        dataset = source.open()
        names = class_names(dataset, entries)
        tested = None if test is None else DataSpec(str(test), reading=reading).open()
        vlm = load_prompted(inputs.needed("--model", model, "hf:vinid/plip"), device, allow_code=allow_code)
        with tuning_line() as progress:
            prompt = tune_prompt(vlm, dataset, names, plan, method=method, test=tested, progress=progress)
        prompt.save(target)
        _say(prompt, target)


def _say(prompt: Prompt, target: Path) -> None:
    for part, by_sigma in prompt.accuracies.items():
        levels = ", ".join(f"sigma {level}: {100 * share:.0f} %" for level, share in by_sigma.items())
        say(f"accuracy on {part} images: {levels}")
    say(f"prompt written to {harmless(str(target))} ({target.stat().st_size:,} bytes)")
