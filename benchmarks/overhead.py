"""How much the certify loop costs over bare noise and forward passes.

    python -m benchmarks.overhead [--task classify|segment] [--n 2000] [--repeats 7] [--batch-size 100]

Both sides run on the demo models at the same batch size, in turn, in one process; the medians' ratio is the overhead.
For segmentation the model is denoiser and network together: one denoiser call serves a whole batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from certimed.assets import asset, demo_prompts
from certimed.classification import SmoothedClassifier
from certimed.denoising import Compose, load_denoiser
from certimed.segmentation import SmoothedSegmenter
from certimed.segmenters import load_segmenter
from certimed.vlm import ZeroShotClassifier, load

SIGMA = 0.5


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


def classifier(n: int, batch_size: int) -> tuple[torch.nn.Module, torch.Tensor, Callable[[], object]]:
    """The demo's classifier, an image, and its certification."""
    prompts = demo_prompts()
    vlm = load("demo")
    model = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    x = torch.rand(vlm.input_shape, generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedClassifier(model, len(prompts["classes"]), SIGMA)
    return model, x, lambda: smoothed.certify(x, n0=batch_size, n=n - batch_size, batch_size=batch_size)


def segmenter(n: int, batch_size: int) -> tuple[torch.nn.Module, torch.Tensor, Callable[[], object]]:
    """The demo's denoiser and U-Net, an image, and its certification."""
    network = load_segmenter(str(asset("demo_unet")))
    model = Compose(load_denoiser(str(asset("demo_denoiser"))).at(SIGMA), network).eval()
    x = torch.rand((1, 128, 128), generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedSegmenter(model, network.num_classes, SIGMA)
    return model, x, lambda: smoothed.certify(x, n0=batch_size, n=n - batch_size, batch_size=batch_size)


def main() -> None:
    """Run the comparison and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["classify", "segment"], default="classify")
    parser.add_argument("--n", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=100)
    arguments = parser.parse_args()
    n, size = arguments.n, arguments.batch_size
    model, x, certify = (classifier if arguments.task == "classify" else segmenter)(n, size)
    sides: dict[str, Callable[[], object]] = {
        "bare noise + forward": lambda: bare_loop(model, x, SIGMA, n, size),
        "certify": certify,
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
