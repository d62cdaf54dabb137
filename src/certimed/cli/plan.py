"""``certimed plan``: what n is needed, what n can reach, and how long a run will take here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from certimed.cli.certify import MORE, Verbs, shorthands
from certimed.cli.console import one_sentence_errors, out, say
from certimed.cli.request import MODEL_AND_DATA, Typed, request, verb_command

if TYPE_CHECKING:
    from certimed.runs import RunSpec

CLASSES_HELP = """Plan a run on labels: radius ceiling, samples needed, and with --model and --data the time here.

[bold]Examples[/]

  certimed plan classes --sigma 0.5

  certimed plan classes --sigma 0.5 --radius 1.0

  certimed plan classes --model hf:vinid/plip --data slides/ --precision bfloat16
"""
MASKS_HELP = """Plan a run on masks: samples needed for a tau, and with --model and --data the time here.

[bold]Examples[/]

  certimed plan masks --tau 0.9 --pixels 262144

  certimed plan masks --model smp:FOLDER --denoiser ddpm/ --data xray/ --tau 0.75
"""
MEASUREMENTS_HELP = """Plan a run on measurements: samples needed for a radius, with --model and --data the time here.

[bold]Examples[/]

  certimed plan measurements --measure ctr --radius 0.1,0.25 --sigma 0.25

  certimed plan measurements --model smp:FOLDER --data xray/ --measure "area:left lung,ctr" --radius 0.1
"""
_SIZES = (100, 1_000, 10_000, 100_000)


def plan(
    verb: str,
    typed: Typed,
    *,
    config: Path | None,
    allow_code: bool,
    n: int | None,
    adapt: str | None,
    radius: float | None = None,
    pixels: int | None = None,
) -> None:
    """Statistics from the options alone; a forecast where model and data are named."""
    with one_sentence_errors():
        from certimed.runs import RunSpec

        typed = shorthands(verb, typed, n, None, adapt)
        named = config is not None or {"model", "data.path"} <= set(typed)
        data = request(verb, typed, config) if named else _unnamed(verb, typed)
        spec = RunSpec.from_dict(data)
        if verb == "classes":
            _ceilings(spec)
            if radius is not None:
                _needed_for_radius(spec, radius)
        job = spec.load(allow_code=allow_code) if named else None
        if spec.masks:
            _needed_for_tau(spec, pixels or (job and job.pixels) or 512 * 512)
        if verb == "measurements":
            _needed_for_ends(spec)
        if job is not None:
            from certimed.cli.rehearsing import rehearse

            rehearse(job)


def _unnamed(verb: str, typed: Typed) -> dict[str, Any]:
    """A request whose model and data do not matter."""
    return request(verb, {**MODEL_AND_DATA, **typed}, None)


def _ceilings(spec: RunSpec) -> None:
    from certimed.statistics import radius_ceiling

    say(f"largest radius n samples can certify (sigma {spec.sigma:g}, alpha {spec.alpha:g}):")
    table = Table()
    for heading in ("n", "radius", "in sigma"):
        table.add_column(heading, justify="right")
    for size in sorted({*_SIZES, spec.cap}):
        ceiling = float(radius_ceiling(size, spec.alpha, spec.sigma))
        table.add_row(f"{size:,}", f"{ceiling:.4f}", f"{ceiling / spec.sigma:.3f}")
    out.print(table)


def _needed_for_radius(spec: RunSpec, radius: float) -> None:
    from certimed.statistics import samples_for_radius

    n = int(samples_for_radius(radius, spec.sigma, spec.alpha))
    say(f"radius {radius:g} needs n >= {n:,}, and every one of them agreeing")


def _needed_for_tau(spec: RunSpec, pixels: int) -> None:
    from certimed.runs import MaskTarget, MeasureTarget
    from certimed.statistics import radius_from_lower, samples_for_tau

    assert isinstance(spec.target, MaskTarget | MeasureTarget)
    for tau in spec.target.taus:
        n = int(samples_for_tau(tau, spec.alpha / len(spec.target.taus), pixels, spec.target.correction))
        say(
            f"tau {tau:g} (radius {float(radius_from_lower(tau, spec.sigma)):.4f}) over {pixels:,} pixels with "
            f"{spec.target.correction} needs n >= {n:,}"
        )


def _needed_for_ends(spec: RunSpec) -> None:
    from certimed.budgets.values import end_level
    from certimed.noise import as_law
    from certimed.runs import MeasureTarget
    from certimed.statistics import samples_for_end

    assert isinstance(spec.target, MeasureTarget)
    level = end_level(spec.alpha, len(spec.target.measurements), len(spec.target.radii))
    law = as_law(spec.noise, spec.sigma)
    for radius in spec.target.radii:
        n = samples_for_end(law.probability(radius), level)
        say(f"radius {radius:g}: a finite interval needs n >= {n:,}; more samples make it narrower")


_SHARED = {name: MORE[name] for name in ("config", "allow_code", "n", "adapt")}
_RADIUS = Annotated[float | None, typer.Option(help="Radius wanted: smallest n that can reach it.")]
_PIXELS = Annotated[int | None, typer.Option(help="Pixels of one image; default: as --data has, else 512 x 512.")]
app = typer.Typer(cls=Verbs, help="Plan a run before it starts.", no_args_is_help=True, rich_markup_mode="rich")
app.command("classes", help=CLASSES_HELP)(verb_command("classes", plan, {**_SHARED, "radius": (_RADIUS, None)}))
app.command("masks", help=MASKS_HELP)(verb_command("masks", plan, {**_SHARED, "pixels": (_PIXELS, None)}))
app.command("measurements", help=MEASUREMENTS_HELP)(verb_command("measurements", plan, _SHARED))
