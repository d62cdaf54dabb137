"""``certimed tune``: learn a prompt or an adapter under noise on your own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say
from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.data import Dataset
    from certimed.runs import DataSpec

HELP = """Learn under noise, and write a small file; the model itself stays frozen.

A prompt (PromptSmooth) changes the text alone; an adapter changes the image side: LoRA, visual prompt tokens, affine
parts.

[bold]Examples[/]

  certimed tune --model hf:vinid/plip --data train/ --shots 16 --out prompt.safetensors

  certimed tune --model hf:vinid/plip --data train/ --test test/ --method lora --out lora.safetensors

  certimed tune --model demo --data unlabelled/ --method lora --recipe unlabelled --classes "covid,normal" --out lora.safetensors

  certimed tune --task masks --model smp:FOLDER --data xray/ --method lora --out lora.safetensors
"""  # noqa: E501 - a command is one line
PROMPTS = {"prompt": "few-shot", "few-shot": "few-shot", "pool": "pool"}
JOINT = "joint"
_TUNING, _ADAPTER = "Tuning", "Adapters"
_METHODS = (
    "What is learnt: prompt (few-shot), pool (a prompt without labels), lora, visual-prompt, layernorm, joint (lora "
    "and prompt), or several joined by +."
)


def tune(
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    data: opt.Data = None,
    out: Annotated[Path | None, typer.Option(help="File to write, e.g. prompt.safetensors.")] = None,
    method: Annotated[str, typer.Option(help=_METHODS)] = "prompt",
    task: Annotated[str, typer.Option(help="classes, or masks (a segmentation network).")] = "classes",
    classes: opt.Classes = None,
    template: opt.Template = None,
    test: Annotated[Path | None, typer.Option(help="Images that must not be tuned on: an overlap is refused.")] = None,
    shots: Annotated[
        int, typer.Option(min=1, help="Labelled images per class; of masks, images.", rich_help_panel=_TUNING)
    ] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="Of prompts.", rich_help_panel=_TUNING)] = 50,
    sigmas: Annotated[
        str, typer.Option(help="Noise levels mixed in one file.", rich_help_panel=_TUNING)
    ] = "0,0.1,0.25,0.5,1",
    recipe: Annotated[
        str,
        typer.Option(
            help="Of prompts: default, published (CoOp's optimiser). Of adapters: default, consistent, distilled, "
            "unlabelled, masks.",
            rich_help_panel=_TUNING,
        ),
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
        int | None, typer.Option(help="Stop after this many looks without progress.", rich_help_panel=_TUNING)
    ] = None,
    copies: Annotated[
        int, typer.Option(min=1, help="Noisy copies of each image of a pool.", rich_help_panel=_TUNING)
    ] = 100,
    rank: Annotated[int, typer.Option(min=1, help="Of LoRA.", rich_help_panel=_ADAPTER)] = 8,
    targets: Annotated[
        str, typer.Option(help="Layers of LoRA: all, linear, attention, mlp.", rich_help_panel=_ADAPTER)
    ] = "all",
    tokens: Annotated[int, typer.Option(min=1, help="Visual prompt tokens.", rich_help_panel=_ADAPTER)] = 8,
    deep: Annotated[bool, typer.Option(help="Tokens of its own for each block.", rich_help_panel=_ADAPTER)] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the optimiser; 400.", rich_help_panel=_ADAPTER)] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Noisy copies a step; 32, masks 8.", rich_help_panel=_ADAPTER)
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak; 0.002.", rich_help_panel=_ADAPTER)] = None,
    noise: Annotated[
        str, typer.Option(help="Noise law of the copies: grid or float32.", rich_help_panel=_ADAPTER)
    ] = "grid",
    bfloat16: Annotated[bool, typer.Option(help="Network in autocast bfloat16.", rich_help_panel=_ADAPTER)] = False,
    denoiser: opt.Denoiser = None,
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH masks are learnt at, or a python: classifier takes.", rich_help_panel=_ADAPTER),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(help="As of certify, where the network's files do not say.", rich_help_panel=_ADAPTER),
    ] = None,
    masks: opt.Masks = None,
    output: opt.Output = None,
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
    given = dict(locals())
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.runs import DataSpec

        inputs.one_of("--task", task, ("classes", "masks"))
        target = inputs.new_file("--out", inputs.needed("--out", out, "prompt.safetensors"))
        reading = inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_)
        entries = inputs.class_entries(classes)
        source = DataSpec(
            str(inputs.needed("--data", data, "train/")),
            None if entries is None else tuple(entries),
            None if labels is None else str(labels),
            masks=None if masks is None else str(masks),
            split=split,
            reading=reading,
        )
        tested = None if test is None else DataSpec(str(test), reading=reading).open()
        inputs.needed("--model", model, "hf:vinid/plip")
        learn = _prompt if method in PROMPTS else _adapter
        made = learn(given, source, tested, entries)
        made.save(target)
        for part, by_sigma in made.accuracies.items():
            levels = ", ".join(f"sigma {level}: {100 * share:.0f} %" for level, share in by_sigma.items())
            say(f"accuracy on {part.replace('_', ' ')} images: {levels}")
        what = "prompt" if learn is _prompt else f"{made.name} adapter of {made.size:,} numbers"
        say(f"{what} written to {harmless(str(target))} ({target.stat().st_size:,} bytes)")


def _prompt(given: dict[str, Any], source: DataSpec, test: Dataset | None, entries: list[str] | None) -> Any:
    from certimed.classifiers import load_prompted
    from certimed.cli import inputs
    from certimed.cli.watching import tuning_line
    from certimed.prompts import TuningPlan, tune_prompt
    from certimed.runs import class_names

    if given["task"] != "classes":
        raise InputError(
            f"--method {given['method']} learns text, which a segmentation network does not read; use lora"
        )
    same = (
        "shots",
        "epochs",
        "recipe",
        "per_class",
        "position",
        "held_out",
        "early_stop",
        "seed",
        "batch_size",
        "copies",
    )
    plan = TuningPlan(
        sigmas=inputs.numbers("--sigmas", given["sigmas"]),
        context=_context(given),
        **{name: given[name] for name in same},
    )
    dataset = source.open()
    names = class_names(dataset, entries)
    vlm = load_prompted(given["model"], given["device"], allow_code=given["allow_code"])
    with tuning_line() as progress:
        return tune_prompt(vlm, dataset, names, plan, method=PROMPTS[given["method"]], test=test, progress=progress)


def _adapter(given: dict[str, Any], source: DataSpec, test: Dataset | None, entries: list[str] | None) -> Any:
    from certimed.adapters import Draw, tune_adapter
    from certimed.cli import inputs
    from certimed.cli.watching import tuning_line
    from certimed.engine import model_device
    from certimed.runs import load_front, load_tuned

    plan = adapter_plan(given)
    size = None if given["size"] is None else inputs.size("--size", given["size"])
    dataset = source.open()
    model, names, templates = load_tuned(
        given["model"],
        dataset,
        entries,
        task=given["task"],
        device=given["device"],
        allow_code=given["allow_code"],
        output=given["output"],
        normalise=given["normalise"],
        size=None if given["task"] == "masks" else size,
        templates=given["template"],
    )
    front = load_front(given["denoiser"], model_device(model), given["allow_code"])
    with tuning_line() as progress:
        return tune_adapter(
            model,
            dataset,
            names,
            plan,
            Draw(given["shots"], given["held_out"], size),
            test=test,
            progress=progress,
            templates=templates,
            denoiser=front,
            checkpoint=given["out"].with_name(f"{given['out'].name}.checkpoint"),
        )


def adapter_plan(given: dict[str, Any]) -> Any:
    """The plan that the options describe."""
    from dataclasses import replace

    from certimed.adapters import KINDS, RECIPES, AdapterPlan, Parts
    from certimed.cli import inputs

    words = "lora+prompt" if given["method"] == JOINT else given["method"]
    named = words.split("+")
    for one in named:
        inputs.one_of("--method", one, (*PROMPTS, *KINDS, JOINT))
    kinds = tuple(one for one in named if one in KINDS)
    if not kinds or "pool" in named:
        raise InputError(
            f"--method {given['method']} does not join; name one or more of {', '.join(KINDS)}, and prompt"
        )
    recipe = "masks" if (given["recipe"], given["task"]) == ("default", "masks") else given["recipe"]
    inputs.one_of("--recipe", recipe, tuple(RECIPES))
    changed = {"steps": given["steps"], "batch": given["batch"], "lr": given["learning_rate"]}
    same = ("early_stop", "noise", "bfloat16", "per_class", "seed")
    return AdapterPlan(
        Parts(kinds, given["rank"], 2.0 * given["rank"], given["targets"], given["tokens"], given["deep"]),
        replace(RECIPES[recipe], **{name: value for name, value in changed.items() if value is not None}),
        inputs.numbers("--sigmas", given["sigmas"]),
        prompt="prompt" in named,
        context=_context(given),
        **{name: given[name] for name in same},
    )


def _context(given: dict[str, Any]) -> str | int:
    from certimed.runs import words_before_name

    if given["template"]:
        return words_before_name(given["template"][0])
    context: str = given["context"]
    return int(context) if context.isdecimal() else context
