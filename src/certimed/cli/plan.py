"""``certimed plan``: what n is needed, what n can reach, and how long it will take here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import one_sentence_errors, out, printable

if TYPE_CHECKING:
    from torch import Tensor

    from certimed.vlm.protocol import ImageModel

HELP = """Plan a run: samples needed, radius ceiling, and time on this machine.

[bold]Examples[/]

  certimed plan --sigma 0.5

  certimed plan --sigma 0.5 --radius 1.0

  certimed plan --tau 0.9 --pixels 262144

  certimed plan --model demo --images 500 --n 10000
"""

_SIZES = (100, 1_000, 10_000, 100_000)


def plan(
    sigma: opt.Sigma = 0.25,
    alpha: opt.Alpha = 1e-3,
    n0: Annotated[int, typer.Option("--n0", help="Selection samples.")] = 100,
    n: Annotated[int, typer.Option("--n", help="Estimation samples.")] = 10_000,
    radius: Annotated[float | None, typer.Option(help="Radius wanted: smallest n that can reach it.")] = None,
    tau: Annotated[float | None, typer.Option(help="Segmentation: agreement threshold wanted, e.g. 0.75.")] = None,
    pixels: Annotated[int, typer.Option(help="Segmentation: pixels of one image.")] = 512 * 512,
    correction: Annotated[str, typer.Option(help="Segmentation: holm or bonferroni.")] = "holm",
    model: opt.Model = None,
    allow_code: opt.AllowCode = False,
    size: opt.Size = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the data set, for the time estimate.")] = 500,
    device: opt.Device = "cpu",
    batch_size: opt.BatchSize = None,
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        from certimed.classification import check_samples
        from certimed.sampling import check_sigma

        check_sigma(sigma)
        check_samples(n0=n0, n=n, alpha=alpha)
        _ceilings(sigma, alpha, n)
        if radius is not None:
            _needed_for_radius(radius, sigma, alpha)
        if tau is not None:
            _needed_for_tau(tau, alpha, pixels, correction, sigma)
        if model is not None:
            from certimed.classifiers import load_classifier
            from certimed.cli import inputs

            loaded = load_classifier(model, device, allow_code=allow_code, size=inputs.size("--size", size))
            _time(model, loaded, n0 + n, images, batch_size)


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


def _time(spec: str, model: ImageModel, samples: int, images: int, batch_size: int | None) -> None:
    import torch

    from certimed.sampling import default_batch_size

    size = batch_size or default_batch_size(model.input_shape, model.device)
    x = torch.full(model.input_shape, 0.5, device=model.device)
    rate = _samples_per_second(model, x, size)
    seconds = images * samples / rate
    hours, rest = divmod(round(seconds), 3600)
    out.print(
        f"{printable(spec)}: {rate:,.0f} noisy copies/s here in batches of {size}; {images} images of {samples:,} "
        f"copies take about {hours} h {rest // 60} min {rest % 60} s",
        highlight=False,
    )


def _samples_per_second(model: ImageModel, x: Tensor, batch_size: int) -> float:
    """Median rate of a few batches of noise and forward passes, after one to warm up."""
    import statistics

    import torch

    from certimed.noise import NoiseKey
    from certimed.sampling import noisy_batches

    key = NoiseKey(0, "plan", "probe")
    rates = []
    with torch.inference_mode():
        begin = time.perf_counter()
        for batch in noisy_batches(x, 0.25, key, 6 * batch_size, batch_size=batch_size):
            model.encode_image(batch).cpu()
            now = time.perf_counter()
            rates.append(len(batch) / (now - begin))
            begin = now
    return statistics.median(rates[1:])
