"""How many estimation samples an image is worth, judged from its selection samples alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.statistics.sequential import look_sizes

# What the class's probability under noise may be, as its distance to the decision border in sigma, all equally likely.
_DISTANCES = np.arange(-2.0, 5.01, 0.1)


def plan_sizes(cap: int) -> tuple[int, ...]:
    """Sample sizes that can be planned: 32 to the cap, in steps of about a sixteenth."""
    return look_sizes(cap, first=32, ratio=1.0625)


@lru_cache(maxsize=4096)
def planned_size(agreeing: int, n0: int, cap: int, alpha: float, fraction: float, absolute: float) -> int:
    """Smallest size whose expected radius is within a loss of the one expected from ``cap`` samples (at sigma 1).

    The expectation is over what ``agreeing`` of ``n0`` selection samples leave possible. A forecast: any size chosen on
    selection samples is sound.

    Args:
        agreeing: selection samples of the selected class.
        n0: selection samples.
        cap: largest size.
        alpha: failure probability of the one-sided bound that is forecast.
        fraction, absolute: loss allowed, the larger of ``fraction`` of the expected radius and ``absolute``.
    """
    p = special.ndtr(_DISTANCES)
    logs = special.xlogy(agreeing, p) + special.xlog1py(n0 - agreeing, -p)
    likely = np.exp(logs - logs.max())
    radii = _forecast(cap, alpha) @ (likely / likely.sum())
    allowed = max(fraction * float(radii[-1]), absolute)
    return plan_sizes(cap)[int(np.argmax(radii[-1] - radii <= allowed))]


@lru_cache(maxsize=16)
def _forecast(cap: int, alpha: float) -> NDArray[np.float64]:
    """Radius at sigma 1 by size and distance, from the share of samples that is expected to agree."""
    size = np.asarray(plan_sizes(cap), dtype=np.float64)[:, None]
    agreeing = size * special.ndtr(_DISTANCES)
    lower = special.betaincinv(agreeing, size - agreeing + 1.0, alpha)
    return np.asarray(np.maximum(special.ndtri(lower), 0.0))
