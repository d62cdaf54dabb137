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

  certimed certify --model hf:vinid/plip --data slides/ --budget betting:0.25 --out runs/robust-or-not

  certimed certify --model hf:vinid/plip --data slides/ --protocol published --out runs/as-published

  certimed certify --resume runs/plip

  certimed certify --model demo --data scan.nii.gz --axis axial --sigma 0.5 --n 1000 --out runs/scan

  certimed certify --model python:my_models:make_classifier --allow-code --size 224x224 --data xray/ --out runs/mine

  certimed certify --model hf:vinid/plip --data slides/ --space native --out runs/native

  certimed certify --model hf:vinid/plip --data slides/ --precision bfloat16 --batch-size auto --out runs/fast

  certimed certify --task segment --model smp:FOLDER --denoiser ddpm/ --data xray/ --sigma 0.25 --out runs/lungs
"""


def certify(
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    data: opt.Data = None,
    out: Annotated[Path | None, typer.Option(help="New run folder to write.")] = None,
    resume: opt.Resume = None,
    retry_failed: opt.RetryFailed = False,
    shard: opt.ShardOf = None,
    workers: opt.Workers = 1,
    executor: opt.ExecutorName = "local",
    address: opt.Address = None,
    task: Annotated[str, typer.Option(help="classify or segment.")] = "classify",
    classes: opt.Classes = None,
    template: opt.Template = None,
    prompts: opt.Prompts = "none",
    initial_context: opt.InitialContext = None,
    copies: opt.Copies = 100,
    tuning_steps: opt.TuningSteps = 1,
    tuning_lr: opt.TuningRate = 5e-3,
    sigma: opt.Sigma = 0.25,
    n0: opt.SelectionSamples = None,
    n: opt.Samples = None,
    budget: opt.Budget = None,
    protocol: opt.Protocol = None,
    alpha: opt.Alpha = 1e-3,
    bound: opt.Bound = "one-sided",
    space: opt.Space = "input",
    seed: opt.Seed = 0,
    masks: opt.Masks = None,
    denoiser: opt.Denoiser = None,
    methods: opt.Methods = None,
    tau: opt.Tau = "0.75",
    correction: opt.Correction = "holm",
    size: opt.Size = None,
    empty: opt.Empty = "one",
    output: opt.Output = None,
    pictures: opt.Pictures = 0,
    limit: opt.Limit = None,
    labels: opt.Labels = None,
    split: opt.Split = None,
    window: opt.Window = None,
    frame: opt.Frame = 0,
    axis: opt.Axis = "axial",
    slice_: opt.Slice = None,
    device: opt.Device = "cpu",
    precision: opt.Precision = "float32",
    compile_: opt.Compile = False,
    channels_last: opt.ChannelsLast = False,
    batch_size: opt.AutoBatchSize = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.cli.running import Running, run_classification

        if resume is not None and model is None and data is None:
            repeat_with_recorded_options(resume, retry_failed, workers, executor, address, allow_code)
        inputs.one_of("--task", task, ("classify", "segment"))
        running = Running(out, resume, retry_failed, shard, workers, executor, address).checked()
        source = inputs.Source(
            path=inputs.needed("--data", data, "images/"),
            classes=inputs.class_entries(classes),
            labels=labels,
            split=split,
            reading=inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_),
            masks=masks,
        )
        spec = inputs.needed("--model", model, "hf:vinid/plip")
        published = inputs.published(protocol, n0, n, budget)
        copies_a_pass = inputs.batch_size(batch_size)
        acceleration = inputs.acceleration(precision, compile_, channels_last, device)
        if task == "classify":
            from certimed.budgets import as_budget
            from certimed.cli import classify
            from certimed.cli.prompting import parse_prompts
            from certimed.presets import PROTOCOL

            settings = classify.Settings(
                sigma=sigma,
                n0=PROTOCOL.n0 if n0 is None else n0,
                budget=PROTOCOL.n if published else as_budget(budget, n),
                alpha=alpha,
                bound=bound,
                seed=seed,
                batch_size=copies_a_pass,
                space=inputs.space(space),
                acceleration=acceleration,
            ).checked()
            prompting = parse_prompts(
                prompts, initial_context=initial_context, copies=copies, steps=tuning_steps, lr=tuning_lr
            )
            prepare = {
                "model": spec,
                "source": source,
                "templates": template,
                "prompting": prompting,
                "limit": limit,
                "seed": seed,
                "device": device,
                "denoiser": denoiser,
                "allow_code": allow_code,
                "size": inputs.size("--size", size),
            }
            failed = run_classification(running, prepare, settings)
        else:
            from certimed.cli import segment
            from certimed.runs import MaskSettings

            taus = inputs.numbers("--tau", tau)
            chosen = segment.checked(
                MaskSettings(
                    sigma=sigma,
                    n0=10 if n0 is None else n0,
                    tau=taus[0] if len(taus) == 1 else taus,
                    alpha=alpha,
                    correction=correction,
                    seed=seed,
                    batch_size=copies_a_pass,
                    acceleration=acceleration,
                    size=inputs.size("--size", size),
                    empty=empty,
                    space=inputs.space(space),
                    **segment.sample_settings(budget, n),
                )
            )
            loading = {
                "model": spec,
                "denoiser": denoiser,
                "methods": methods,
                "limit": limit,
                "device": device,
                "class_names": source.classes,
                "output": output,
                "allow_code": allow_code,
            }
            failed = segment.run(source, loading, chosen, running, pictures=pictures)
    inputs.exit_for_failures(failed)


def repeat_with_recorded_options(
    resume: Path, retry_failed: bool, workers: int, executor: str, address: str | None, allow_code: bool
) -> None:
    """Go on with a run by the options it was started with; ends the command with that run's exit code."""
    from certimed.cli.app import app
    from certimed.cli.running import recorded_arguments

    words = ["certify", *recorded_arguments(resume), "--resume", str(resume), "--workers", str(workers)]
    words += ["--executor", executor, *(["--retry-failed"] if retry_failed else [])]
    words += ["--allow-code"] if allow_code else []
    words += [] if address is None else ["--address", address]
    raise typer.Exit(typer.main.get_command(app).main(args=words, standalone_mode=False) or 0)
