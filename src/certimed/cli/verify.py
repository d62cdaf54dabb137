"""``certimed verify``: is everything true that a run or a certificate says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import one_sentence_errors, out, printable

EXIT_FALSE = 1

HELP = """Recompute every statement of a run or certificate from its recorded counts; exit code 1 if one is false.

Needs no model, no data and no GPU, and computes with an implementation of its own (extra: verify).
[bold]--resample[/] also draws some images' noise again and compares the counts; that needs model and data.

[bold]Examples[/]

  certimed verify runs/plip

  certimed verify runs/plip --expect 5f0c...  (the digest noted when the run was finished)

  certimed verify certificate.json

  certimed verify runs/plip --resample 5 --model hf:vinid/plip --data slides/

  certimed verify runs/lungs --resample 5 --model smp:FOLDER --denoiser ddpm/ --data xray/
"""


def verify(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_CERTIFICATE", help="Run folder, or a certificate's JSON.")],
    expect: Annotated[str | None, typer.Option(help="Digest the run must have, noted elsewhere.")] = None,
    allow_incomplete: Annotated[bool, typer.Option(help="Take missing images for images not done yet.")] = False,
    resample: Annotated[int, typer.Option(min=0, help="Draw so many images' noise again.")] = 0,
    salt: Annotated[str | None, typer.Option(help="Chooses the images; default: random, and printed.")] = None,
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    size: opt.Size = None,
    denoiser: opt.Denoiser = None,
    output: opt.Output = None,
    data: opt.Data = None,
    classes: opt.Classes = None,
    labels: opt.Labels = None,
    split: opt.Split = None,
    prompts: Annotated[str | None, typer.Option(help="Methods and prompt files, as for certify.")] = None,
    device: opt.Device = "cpu",
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.verification import verify as check

        verdict = check(path, expect=expect, allow_incomplete=allow_incomplete)
        for where, fault in verdict.faults:
            out.print(
                f"[bold red]false[/] {printable(where)}: {printable(fault, 400)}", highlight=False, soft_wrap=True
            )
        if not verdict.ok:
            raise typer.Exit(EXIT_FALSE)
        failed = f", {verdict.failed} images failed" if verdict.failed else ""
        out.print(f"true: {verdict.certificates} certificates of {verdict.images} images{failed}", highlight=False)
        if verdict.digest is not None:
            out.print(f"digest {verdict.digest}", highlight=False, soft_wrap=True)
        if resample:
            from certimed.cli import inputs
            from certimed.cli.resampling import Sources, compare

            sources = Sources(
                model=model,
                data=data,
                classes=inputs.class_entries(classes),
                labels=labels,
                split=split,
                prompts=prompts,
                device=device,
                denoiser=denoiser,
                allow_code=allow_code,
                size=inputs.size("--size", size),
                output=output,
            )
            if not compare(path, resample, salt, sources):
                raise typer.Exit(EXIT_FALSE)
