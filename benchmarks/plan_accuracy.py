"""How well ``certimed plan`` predicts the time of a run: its forecast beside runs that follow it.

    python -m benchmarks.plan_accuracy [--images 22] [--repeats 3] [--precision float32] [--tasks classes,masks]

The demo model on the embedded images under the default budget, and the demo's U-Net behind its denoiser on the demo's
own slices (or any folder, with --masks-data). Forecast and run alternate, so that both see the machine alike; the
median of the ratios run / forecast is printed, and whether it is within 25 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from certimed.assets import asset
from certimed.engine import Acceleration
from certimed.runs import DataSpec, MaskTarget, RunSpec, execute
from certimed.runs.forecast import forecast

ALLOWED = 0.25


def compare(name: str, spec: RunSpec, repeats: int) -> None:
    """Print forecasts, runs and the median of their ratios."""
    pairs = []
    for _ in range(repeats):
        job = spec.load()
        predicted = forecast(job).seconds
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            execute(spec, Path(place) / "run", job=job)
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
    parser.add_argument("--tasks", default="classes,masks")
    parser.add_argument("--masks-data", type=Path, default=asset("demo_segmentation_images"))
    given = parser.parse_args()
    speed, tasks = Acceleration(given.precision), given.tasks.split(",")
    if "classes" in tasks:
        spec = RunSpec("demo", DataSpec(str(asset("demo_images")), limit=given.images), speed=speed)
        compare("classes", spec, given.repeats)
    if "masks" in tasks:
        data = DataSpec(str(given.masks_data), limit=max(1, given.images // 5))
        methods = ("plain", "denoised")
        compare("masks", RunSpec("demo", data, MaskTarget(), methods, denoiser="demo", speed=speed), given.repeats)


if __name__ == "__main__":
    main()
