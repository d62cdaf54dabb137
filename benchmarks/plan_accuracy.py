"""How well ``certimed plan`` predicts the time of a run: its forecast beside runs that follow it.

    python -m benchmarks.plan_accuracy [--images 22] [--repeats 3] [--precision float32] [--tasks classify,segment]

The demo model on the embedded images under the default budget, and the demo's U-Net behind its denoiser on the demo's
own slices (or any folder, with --masks-data). Forecast and run alternate, so that both see the machine alike; the
median of the ratios run / forecast is printed, and whether it is within 25 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from certimed.acceleration import Acceleration
from certimed.assets import asset
from certimed.cli import classify, forecast, inputs, segment
from certimed.cli.prompting import parse_prompts
from certimed.data import DEFAULT_READ
from certimed.runs import MaskSettings, RunFolder, data_section

ALLOWED = 0.25
Sides = tuple[Callable[[], float], Callable[[Path], object]]
"""Seconds forecast, and the run itself into a new folder."""


def source(place: Path) -> inputs.Source:
    """A folder of images as ``--data`` names it."""
    return inputs.Source(place, None, None, None, DEFAULT_READ, None)


def classification(images: int, acceleration: Acceleration) -> Sides:
    """The demo model under the default budget."""
    settings = classify.Settings(0.25, 100, None, 1e-3, "one-sided", 0, None, acceleration=acceleration)
    job = classify.prepare(
        model="demo",
        source=source(asset("demo_images")),
        templates=None,
        prompting=parse_prompts("none"),
        limit=images,
        seed=0,
        device="cpu",
    )

    def run(place: Path) -> None:
        comparison = job.comparison(settings.sigma, settings.space, acceleration)
        with RunFolder.create(place, {"data": data_section(job.dataset)}) as folder:
            classify.certify(job, comparison, settings, folder)

    return lambda: forecast.classification(job, settings).seconds, run


def segmentation(images: int, acceleration: Acceleration, data: Path) -> Sides:
    """The demo's U-Net, alone and behind the demo's denoiser."""
    settings = MaskSettings(0.25, acceleration=acceleration)
    job = segment.prepare(
        model="demo", denoiser="demo", methods=None, dataset=source(data).open(), limit=images, device="cpu"
    )

    def run(place: Path) -> None:
        with RunFolder.create(place, {"data": data_section(job.dataset)}) as folder:
            segment.certify(job, settings, folder)

    return lambda: forecast.segmentation(job, settings).seconds, run


def compare(name: str, sides: Sides, repeats: int) -> None:
    """Print forecasts, runs and the median of their ratios."""
    predict, run = sides
    pairs = []
    for _ in range(repeats):
        predicted = predict()
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            run(Path(place) / "run")
            pairs.append((predicted, time.perf_counter() - begin))
    ratios = sorted(real / predicted for predicted, real in pairs)
    ratio = statistics.median(ratios)
    predicted, real = (statistics.median(column) for column in zip(*pairs))
    verdict = "within" if abs(ratio - 1) <= ALLOWED else "NOT within"
    print(
        f"{name}: forecast {predicted:.1f} s, run {real:.1f} s (medians of {repeats}); run / forecast {ratio:.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), {verdict} {ALLOWED:.0%}",
        flush=True,
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=22)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--tasks", default="classify,segment")
    parser.add_argument("--masks-data", type=Path, default=asset("demo_segmentation_images"))
    options = parser.parse_args()
    acceleration = Acceleration(options.precision)
    tasks = options.tasks.split(",")
    if "classify" in tasks:
        compare("classification", classification(options.images, acceleration), options.repeats)
    if "segment" in tasks:
        data = segmentation(max(1, options.images // 5), acceleration, options.masks_data)
        compare("segmentation", data, options.repeats)


if __name__ == "__main__":
    main()
