"""The figures that the documentation quotes and that no other benchmark measures, each computed anew.

    python -m benchmarks.quoted

Second looks: how often a bound at level alpha fails if it is computed again after more samples of the same stream, and
the last one is kept: exactly, over all true probabilities of a grid. Norms of resizing: the proved bound, for common
sizes. Overlaps: how likely two images share noise where PyTorch's generator is started from 32 bits.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from certimed.noise.keys import CHUNK
from certimed.operators import Geometry, norm_bound
from certimed.operators.geometry import Axis
from certimed.statistics import clopper_pearson_lower

ALPHA = 0.001
TENFOLD = (100, 1_000, 10_000)
DOUBLING = tuple(100 * 2**step for step in range(8))
SAMPLES = 10_000


def rerun_failure(sizes: tuple[int, ...], p: float, alpha: float = ALPHA) -> float:
    """Probability that at one of growing sample sizes the lower bound at level alpha exceeds the true p: exact, by the
    distribution of the counts of those streams that have not failed yet."""
    alive, before = np.ones(1), 0
    for size in sizes:
        grown = np.convolve(alive, stats.binom.pmf(np.arange(size - before + 1), size - before, p))
        grown[clopper_pearson_lower(np.arange(size + 1), size, alpha) > p] = 0
        alive, before = grown, size
    return 1 - float(alive.sum())


def worst_rerun(sizes: tuple[int, ...]) -> float:
    """The largest failure probability over true probabilities from 0.5 to 0.99, in alphas."""
    return max(rerun_failure(sizes, float(p)) for p in np.linspace(0.5, 0.99, 50)) / ALPHA


def resize_norm(before: int, after: int) -> float:
    """Bound of the norm of resizing a square image of one channel, bilinear with antialiasing."""
    axis = Axis(before, (0, 0), after, (0, 0))
    return norm_bound(Geometry("same", 1, (axis, axis), "bilinear"))


def overlap(samples: int = SAMPLES) -> float:
    """Probability that two images share noise of one phase where seeds have 32 bits."""
    return (2 * math.ceil(samples / CHUNK) - 1) / 2**32


def main() -> None:
    """Print all of them."""
    for name, sizes in (("tenfold", TENFOLD), ("doubling", DOUBLING)):
        print(f"second looks, {name} ({', '.join(map(str, sizes))} samples): {worst_rerun(sizes):.1f} alpha")
    for before, after in ((512, 224), (150, 224)):
        print(
            f"resizing {before} to {after}, bilinear with antialiasing: norm at most {resize_norm(before, after):.3g}"
        )
    print(f"two images share noise at {SAMPLES} samples from 32-bit seeds: {overlap():.2g} a pair")


if __name__ == "__main__":
    main()
