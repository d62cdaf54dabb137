"""``certimed certify``: certify a model on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import one_sentence_errors

HELP = """Certify a model on your own images and write a run folder.

[bold]Examples[/]

  certimed certify --model hf:vinid/plip --data slides/ --template "An H&E image patch of {}." --out runs/plip

  certimed certify --model hf:vinid/plip --data slides/ --prompts none,prompt.safetensors,zero-shot --out runs/learnt

  certimed certify --model demo --data scan.nii.gz --axis axial --sigma 0.5 --n 1000 --out runs/scan

  certimed certify --model FOLDER --data images/ --labels labels.csv --classes "covid,normal" --sigma 0.1 --out runs/x
"""


def certify(
    model: opt.Model = None,
    data: opt.Data = None,
    out: Annotated[Path | None, typer.Option(help="New run folder to write.")] = None,
    task: Annotated[str, typer.Option(help="classify.")] = "classify",
    classes: opt.Classes = None,
    template: opt.Template = None,
    prompts: opt.Prompts = "none",
    initial_context: opt.InitialContext = None,
    copies: opt.Copies = 100,
    tuning_steps: opt.TuningSteps = 1,
    tuning_lr: opt.TuningRate = 5e-3,
    sigma: opt.Sigma = 0.25,
    n0: opt.SelectionSamples = 100,
    n: opt.Samples = 10_000,
    alpha: opt.Alpha = 1e-3,
    bound: opt.Bound = "one-sided",
    seed: opt.Seed = 0,
    limit: opt.Limit = None,
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
        from certimed.cli import classify, inputs
        from certimed.cli.prompting import parse_prompts

        inputs.one_of("--task", task, ("classify",))
        settings = classify.Settings(
            sigma=sigma, n0=n0, n=n, alpha=alpha, bound=bound, seed=seed, batch_size=batch_size
        ).checked()
        reading = inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_)
        job = classify.prepare(
            model=inputs.needed("--model", model, "hf:vinid/plip"),
            data=inputs.needed("--data", data, "images/"),
            classes=inputs.class_entries(classes),
            templates=template,
            prompting=parse_prompts(
                prompts, initial_context=initial_context, copies=copies, steps=tuning_steps, lr=tuning_lr
            ),
            labels=labels,
            split=split,
            reading=reading,
            limit=limit,
            seed=seed,
            device=device,
        )
        failed = classify.run(job, settings, inputs.needed("--out", out, "runs/first"))
    inputs.exit_for_failures(failed)
