"""``certimed calibrate``: scores of labelled images, kept for sets of classes that are right under attack."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from certimed.cli.console import harmless, one_sentence_errors, say, tell
from certimed.cli.request import Typed, request, verb_command

HELP = """Calibrate a model on labelled images, for sets of classes that hold the true one under attack.

One noisy copy of each image is scored. Calibration and test images must be exchangeable: one population, one scanner,
and no image (patient, sequence) in both.

[bold]Examples[/]

  certimed calibrate --model hf:vinid/plip --data calibration/ --radius 0.1 --coverage 0.9 --out calibration.json

  certimed calibrate --model timm:resnet18:weights.pth --data calibration/ --radius 0,0.1,0.25 --score aps --group '^([^_]+)_' --out by-patient.json
"""  # noqa: E501
_PANEL = "Calibration"
_MORE: dict[str, Any] = {
    "out_": (Annotated[Path, typer.Option("--out", help="New JSON file.", rich_help_panel=_PANEL)], ...),
    "radius": (
        Annotated[
            str,
            typer.Option(
                help="L2 norms of attacks to be withstood, by commas, fixed beforehand; 0: no attack.",
                rich_help_panel=_PANEL,
            ),
        ],
        ...,
    ),
    "coverage": (
        Annotated[float, typer.Option(help="Probability of holding the true class.", rich_help_panel=_PANEL)],
        0.9,
    ),
    "score": (
        Annotated[str, typer.Option(help="lac (smallest sets) or aps (adaptive).", rich_help_panel=_PANEL)],
        "lac",
    ),
    "class_conditional": (
        Annotated[
            bool,
            typer.Option("--class-conditional", help="The coverage within every class.", rich_help_panel=_PANEL),
        ],
        False,
    ),
    "group": (
        Annotated[
            str | None,
            typer.Option(
                help="Regular expression whose one bracket finds the group (patient, sequence) in an image's id; "
                "default: the groups that the data names. Groups are then the units.",
                rich_help_panel=_PANEL,
            ),
        ],
        None,
    ),
    "config": (Annotated[Path | None, typer.Option(help="Request as .yaml, .toml or .json.")], None),
    "allow_code": (Annotated[bool, typer.Option("--allow-code", help="Consent to run a python: model.")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="Only errors.")], False),
}


def run(
    verb: str,
    typed: Typed,
    *,
    out_: Path,
    radius: str,
    coverage: float,
    score: str,
    class_conditional: bool,
    group: str | None,
    config: Path | None,
    allow_code: bool,
    quiet: bool,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.cli import inputs
        from certimed.errors import InputError
        from certimed.runs import CalibrationSpec, RunSpec
        from certimed.runs import calibrate as make

        if not 0 < coverage < 1:
            raise InputError(f"--coverage {coverage} must lie between 0 and 1, e.g. 0.9")
        spec = CalibrationSpec(
            RunSpec.from_dict(request(verb, typed, config)),
            radii=inputs.numbers("--radius", radius),
            alpha=float(1 - Decimal(repr(coverage))),
            score=score,
            class_conditional=class_conditional,
            group=group,
        )
        target = inputs.new_file("--out", out_)
        found = make(spec, allow_code=allow_code, watch=None if quiet else _progress)
        found.save(target)
        if not quiet:
            for name, count in found.left_out.items():
                if count:
                    say(f"{count} images left out: {name}")
            say(found.statement())
            for radius_, level, row in zip(found.radii, found.levels(), found.thresholds):
                shown = ", ".join(f"{one:.4g}" for one in dict.fromkeys(row))
                say(f"radius {radius_:g}: calibrated at a miss probability of {level:.4g}; threshold {shown}")
            say(f"written to {harmless(str(target))}")


def _progress(done: int, total: int) -> None:
    if done == total or done % 100 == 0:
        tell(f"{done} of {total} scored")


calibrate = verb_command("calibrate", run, _MORE)
