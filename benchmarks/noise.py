"""The grid law beside the float32 law: seconds a value, what a certification costs more, and what radii lose.

    python -m benchmarks.noise [--parts sampler,demo,plip,replay] [--repeats 15]

``sampler``, ``demo`` and ``plip`` time the whole noise step (drawing and adding), alone and with the forward pass of
the demo model in float32 and of a CLIP of PLIP's exact size in bfloat16. The two laws run in turn, in one process, on
one thread; medians with their range are printed. ``replay`` takes the recorded winners of each noisy copy and computes
the mean certified radius under both laws from the same counts; the radius for real perturbations is beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.models import clip_sized
from benchmarks.performance.recordings import recording_path, runs
from benchmarks.timing import Times, alternate
from certimed.assets import demo_prompts
from certimed.engine import Acceleration, Model, noisy_batches
from certimed.noise import LAW_NAMES, GridGaussian, NoiseKey, NoiseLaw, named_law
from certimed.statistics import clopper_pearson_lower, lower_less
from certimed.vlm import VisionLanguageModel, ZeroShotClassifier, load

PARTS = ("sampler", "demo", "plip", "replay")
REAL = "grid, real perturbations"
SIGMA, ALPHA = 0.25, 0.001
RADIUS_BAR = 0.5
SHAPES = ((1, 128, 128), (3, 112, 112), (3, 224, 224), (3, 512, 512))
KEY = NoiseKey(0, "benchmark", "probe")
# The recorded sets and the size of their images, on which the charged variation depends.
RECORDED = {"demo": (3, 112, 112), "lc25000": (3, 128, 128)}


def work(law: NoiseLaw, image: torch.Tensor, copies: int, size: int, model: Model | None = None) -> None:
    """Noisy copies, and their forward pass if there is a model."""
    with torch.inference_mode():
        for batch in noisy_batches(image, law, KEY, copies, batch_size=size):
            if model is not None:
                model(batch)


def laws_in_turn(
    image: torch.Tensor, copies: int, size: int, repeats: int, model: Model | None = None
) -> dict[str, list[Times]]:
    """Processor and clock times of both laws."""
    sides: dict[str, Callable[[], object]] = {
        name: partial(work, named_law(name, SIGMA), image, copies, size, model) for name in LAW_NAMES
    }
    return alternate(sides, repeats)


def spread_of(values: list[float], unit: str, digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}) {unit}"


def sampler(repeats: int) -> None:
    """Nanoseconds a value of the whole noise step."""
    print("\nthe noise step")
    for shape in SHAPES:
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        times = laws_in_turn(image, 64, 32, repeats)
        per = {name: [run.seconds / (64 * image.numel()) * 1e9 for run in runs_of] for name, runs_of in times.items()}
        size = "x".join(map(str, shape))
        told = "; ".join(f"{name} {spread_of(values, 'ns a value')}" for name, values in per.items())
        charged = GridGaussian(SIGMA).variation(image.numel())
        print(f"  {size:<10} {told}; variation charged {charged:.2e}", flush=True)


def with_model(title: str, vlm: VisionLanguageModel, dtype: str, copies: int, repeats: int, bar: float) -> None:
    """What certification costs more under the grid law, with the model's forward pass."""
    prompts = demo_prompts()
    model = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    fast = Acceleration(precision=dtype).wrap(model)
    image = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(0))
    times = laws_in_turn(image, copies, 16, repeats, fast)
    print(f"\n{title}")
    for name, runs_of in times.items():
        print(f"  {name:<8} {spread_of([copies / run.seconds for run in runs_of], 'noisy copies a second', 1)}")
    over = [100 * (a.seconds / b.seconds - 1) for a, b in zip(times["grid"], times["float32"], strict=True)]
    print(f"  grid over float32: {spread_of(over, '%')}; bar {bar:g} %", flush=True)


def mean_radii(results: Path, name: str, shape: tuple[int, ...]) -> dict[str, float]:
    """Mean certified radius from a set's recorded winners: under both laws, and for real perturbations."""
    radii: dict[str, list[float]] = {side: [] for side in (*LAW_NAMES, REAL)}
    prepared = torch.rand(shape, generator=torch.Generator().manual_seed(0))  # lies anywhere between grid points
    for run in runs(recording_path(results, name)):
        top = int(np.bincount(run.selection).argmax())
        p = clopper_pearson_lower(int((run.estimation == top).sum()), len(run.estimation), ALPHA)
        for side in LAW_NAMES:
            law = named_law(side, run.sigma)
            radii[side].append(float(law.radius(lower_less(p, law.variation(prepared.numel())))))
        radii[REAL].append(GridGaussian(run.sigma).placement(prepared).real_radius(radii["grid"][-1]))
    return {side: statistics.mean(values) for side, values in radii.items()}


def replay(results: Path) -> None:
    """Mean certified radius under both laws."""
    print("\nmean certified radius from recorded winners")
    for name, shape in RECORDED.items():
        means = mean_radii(results, name, shape)
        told = "; ".join(f"{side} {mean:.6f}" for side, mean in means.items())
        loss = 100 * (1 - means["grid"] / means["float32"])
        print(f"  {name}: {told}; the grid loses {loss:.2g} % (bar {RADIUS_BAR:g} %)")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = arguments.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown part {sorted(unknown)[0]}; use {', '.join(PARTS)}")
    if "sampler" in parts:
        sampler(arguments.repeats)
    if "demo" in parts:
        with_model("demo model, float32", load("demo"), "float32", 96, arguments.repeats, 15)
    if "plip" in parts:
        with tempfile.TemporaryDirectory() as folder:
            with_model("PLIP's size, bfloat16", clip_sized(Path(folder)), "bfloat16", 16, arguments.repeats, 5)
    if "replay" in parts:
        replay(arguments.results)


if __name__ == "__main__":
    main()
