"""``certimed plan``: what n is needed, what n can reach, and how long it will take here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from certimed.cli import options as opt
from certimed.cli.console import err, one_sentence_errors, out, printable

if TYPE_CHECKING:
    from certimed.cli.forecast import Forecast

HELP = """Plan a run: samples needed, radius ceiling, and time on this machine.

[bold]Examples[/]

  certimed plan --sigma 0.5

  certimed plan --sigma 0.5 --radius 1.0

  certimed plan --tau 0.9 --pixels 262144

  certimed plan --model demo --images 500 --n 10000

  certimed plan --model hf:vinid/plip --data slides/ --precision bfloat16

  certimed plan --task segment --model smp:FOLDER --denoiser ddpm/ --data xray/ --tau 0.75
"""

_SIZES = (100, 1_000, 10_000, 100_000)
_IMAGES = 500


def plan(
    sigma: opt.Sigma = 0.25,
    alpha: opt.Alpha = 1e-3,
    n0: opt.SelectionSamples = None,
    n: opt.Samples = None,
    budget: opt.Budget = None,
    radius: Annotated[float | None, typer.Option(help="Radius wanted: smallest n that can reach it.")] = None,
    tau: Annotated[float | None, typer.Option(help="Segmentation: agreement threshold wanted, e.g. 0.75.")] = None,
    pixels: Annotated[int, typer.Option(help="Segmentation: pixels of one image.")] = 512 * 512,
    correction: Annotated[str, typer.Option(help="Segmentation: holm or bonferroni.")] = "holm",
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    task: Annotated[str, typer.Option(help="classify, or segment (whose time needs --data).")] = "classify",
    data: opt.Data = None,
    images: Annotated[
        int | None, typer.Option(min=1, help=f"Images of the run; default: those of --data, else {_IMAGES}.")
    ] = None,
    classes: opt.Classes = None,
    labels: opt.Labels = None,
    split: opt.Split = None,
    masks: opt.Masks = None,
    template: opt.Template = None,
    prompts: opt.Prompts = "none",
    denoiser: opt.Denoiser = None,
    methods: opt.Methods = None,
    output: opt.Output = None,
    size: opt.Size = None,
    device: opt.Device = "cpu",
    precision: opt.Precision = "float32",
    compile_: opt.Compile = False,
    channels_last: opt.ChannelsLast = False,
    batch_size: opt.AutoBatchSize = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.budgets import as_budget, as_pixel_budget
        from certimed.classification import check_samples
        from certimed.cli import inputs
        from certimed.sampling import check_sigma
        from certimed.threads import check

        check_sigma(sigma)
        segmenting = inputs.one_of("--task", task, ("classify", "segment")) == "segment"
        chosen = as_pixel_budget(budget, n, 100) if segmenting else as_budget(budget, n)
        cap = chosen if isinstance(chosen, int) else chosen.cap
        selection = (10 if segmenting else 100) if n0 is None else n0
        check_samples(n0=selection, n=cap, alpha=alpha)
        _ceilings(sigma, alpha, cap)
        if radius is not None:
            _needed_for_radius(radius, sigma, alpha)
        if tau is not None:
            _needed_for_tau(tau, alpha, pixels, correction, sigma)
        if model is None:
            return
        for sentence in check():
            err.print(sentence, style="dim", highlight=False)
        settings: dict[str, Any] = {
            "sigma": sigma,
            "n0": selection,
            "alpha": alpha,
            "seed": 0,
            "batch_size": inputs.batch_size(batch_size),
            "acceleration": inputs.acceleration(precision, compile_, channels_last, device),
        }
        common = {"model": model, "limit": None, "device": device, "denoiser": denoiser, "allow_code": allow_code}
        if data is None:
            inputs.needed("--data", None if segmenting else "", "images/")
            _time_without_data({**common, "size": inputs.size("--size", size)}, settings, cap, images or _IMAGES)
            return
        source = _source(data, classes, labels, split, masks)
        if segmenting:
            settings |= {"tau": tau or 0.75, "correction": correction, "size": inputs.size("--size", size)}
            loading = {**common, "methods": methods, "output": output, "class_names": source.classes}
            _time_of_masks(source, loading, settings, budget, n, images)
        else:
            settings |= {"budget": chosen, "bound": "one-sided"}
            asked = {**common, "source": source, "templates": template, "size": inputs.size("--size", size), "seed": 0}
            _time_of_classes(asked, settings, prompts, images)


def _ceilings(sigma: float, alpha: float, n: int) -> None:
    from rich.table import Table

    from certimed.statistics import radius_ceiling

    out.print(f"largest radius n samples can certify (sigma {sigma:g}, alpha {alpha:g}):", highlight=False)
    table = Table()
    for heading in ("n", "radius", "in sigma"):
        table.add_column(heading, justify="right")
    for size in sorted({*_SIZES, n}):
        ceiling = float(radius_ceiling(size, alpha, sigma))
        table.add_row(f"{size:,}", f"{ceiling:.4f}", f"{ceiling / sigma:.3f}")
    out.print(table)


def _needed_for_radius(radius: float, sigma: float, alpha: float) -> None:
    from certimed.statistics import samples_for_radius

    n = int(samples_for_radius(radius, sigma, alpha))
    out.print(f"radius {radius:g} needs n >= {n:,}, and every one of them agreeing", highlight=False)


def _needed_for_tau(tau: float, alpha: float, pixels: int, correction: str, sigma: float) -> None:
    from scipy.special import ndtri

    from certimed.statistics import samples_for_tau

    n = int(samples_for_tau(tau, alpha, pixels, correction))
    out.print(
        f"tau {tau:g} (radius {sigma * float(ndtri(tau)):.4f}) over {pixels:,} pixels with {correction} "
        f"needs n >= {n:,}",
        highlight=False,
    )


def _source(data: Path, classes: str | None, labels: Path | None, split: str | None, masks: Path | None) -> Any:
    from certimed.cli import inputs
    from certimed.data import DEFAULT_READ

    return inputs.Source(data, inputs.class_entries(classes), labels, split, DEFAULT_READ, masks)


def _time_of_classes(asked: dict[str, Any], settings: dict[str, Any], prompts: str, images: int | None) -> None:
    from certimed.cli import classify, forecast
    from certimed.cli.prompting import parse_prompts

    chosen = classify.Settings(**settings).checked()
    job = classify.prepare(**asked, prompting=parse_prompts(prompts))
    _say(asked["model"], forecast.classification(job, chosen), images, f"budget {chosen.budget}")


def _time_of_masks(
    source: Any,
    loading: dict[str, Any],
    settings: dict[str, Any],
    budget: str | None,
    n: int | None,
    images: int | None,
) -> None:
    from certimed.cli import forecast, segment
    from certimed.runs import MaskSettings

    chosen = segment.checked(MaskSettings(**settings, **segment.sample_settings(budget, n)))
    job = segment.prepare(dataset=source.open(), **loading)
    _say(loading["model"], forecast.segmentation(job, chosen), images, chosen.budget or f"n {chosen.n}")


def _say(spec: str, found: Forecast, images: int | None, budget: str) -> None:
    from dataclasses import replace

    total = found if images is None else replace(found, images=images)
    out.print(
        f"{printable(spec)}: {1 / found.copy_seconds:,.0f} noisy copies/s here, {found.copies:,.0f} of them an image "
        f"({printable(budget)}, as {found.piloted} of the images went), {found.overhead:.2f} s an image besides; "
        f"{total.images} images take about {_clock(total.seconds)} in one process",
        highlight=False,
    )


def _time_without_data(asked: dict[str, Any], settings: dict[str, Any], cap: int, images: int) -> None:
    import statistics

    import torch

    from certimed.classifiers import load_classifier
    from certimed.embeddings import ImageEncoder
    from certimed.sampling import default_batch_size
    from certimed.throughput import probe_batch_size, sample_seconds

    model = load_classifier(asked["model"], asked["device"], allow_code=asked["allow_code"], size=asked["size"])
    encoder = ImageEncoder(model, acceleration=settings["acceleration"])
    x = torch.full(model.input_shape, 0.5, device=model.device)
    size = settings["batch_size"] or default_batch_size(model.input_shape, model.device)
    size = probe_batch_size(encoder, x) if isinstance(size, str) else size
    seconds = statistics.median(sample_seconds(encoder, x, size, repeats=5))
    copies = settings["n0"] + cap
    out.print(
        f"{printable(asked['model'])}: {1 / seconds:,.0f} noisy copies/s here in batches of {size}; {images} images of "
        f"{copies:,} copies, the most the budget allows, take about {_clock(images * copies * seconds)}; with --data "
        "a few images tell how many they need",
        highlight=False,
    )


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s"
