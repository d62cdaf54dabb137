"""How much the certify loop costs over bare noise and forward passes.

    python -m benchmarks.overhead [--n 2000] [--repeats 7] [--batch-size 100]

Both sides run on the demo model at the same batch size, in turn, in one process; the medians' ratio is the overhead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from certimed.assets import demo_prompts
from certimed.classification import SmoothedClassifier
from certimed.vlm import ZeroShotClassifier, load


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def bare_loop(model: torch.nn.Module, x: torch.Tensor, sigma: float, n: int, batch_size: int) -> None:
    """Noise and forward passes and nothing else: no keys, no checks, no counting."""
    with torch.inference_mode():
        for begin in range(0, n, batch_size):
            size = min(batch_size, n - begin)
            model(torch.randn((size, *x.shape)).mul_(sigma).add_(x))


def main() -> None:
    """Run the comparison and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=100)
    arguments = parser.parse_args()
    prompts = demo_prompts()
    vlm = load("demo")
    model = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    x = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedClassifier(model, len(prompts["classes"]), 0.5)
    n, size = arguments.n, arguments.batch_size
    sides: dict[str, Callable[[], object]] = {
        "bare noise + forward": lambda: bare_loop(model, x, 0.5, n, size),
        "certify": lambda: smoothed.certify(x, n0=size, n=n - size, batch_size=size),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()
    for _ in range(arguments.repeats):
        for name, work in sides.items():
            times[name].append(timed(work))
    for name, seconds in times.items():
        print(f"{name:>22}: median {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    pairs = [b / a for a, b in zip(times["bare noise + forward"], times["certify"])]
    print(f"overhead: {100 * (statistics.median(pairs) - 1):+.1f} % (median of {len(pairs)} pairs)")


if __name__ == "__main__":
    main()
