"""The size that a planned budget must have drawn, computed anew from the selection samples that agreed.

The rule: what the class's probability under noise may be is its distance to the decision border, -2, -1.9, ..., 5
sigma, weighted by the likelihood of the selection samples; the radius expected of a size is the mean over these of the
one-sided Clopper-Pearson radius at the *expected* (fractional) count; planned is the smallest size whose expected
radius is within the allowed loss of the one expected of the cap. A plan proves nothing; it is checked because a size
that does not follow from the selection samples may have been chosen on the estimation samples, which is not allowed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from certimed.verification.budgets import Allowance

_NORMAL = NormalDist()
_POSITIVE = np.arange(1, 51) / 10
_TIE = 1e-8  # of the loss in sigma: sizes this close to what is allowed may be planned or not
_FRACTIONS = 400  # steps of the continued fraction, which needs about the square root of the samples near the mean

Array = NDArray[np.float64]


def planned_sizes(agreeing: int, n0: int, allowed: Allowance, level: float, sigma: float) -> set[int]:
    """The sizes that this plan may give: one, or several where rounding decides.

    Args:
        agreeing, n0: selection samples that agreed, of how many.
        allowed: a planned budget.
        level: failure probability of the bound.
        sigma: noise standard deviation.
    """
    distances = [round(-2 + 0.1 * step, 1) for step in range(71)]
    logs = [agreeing * _log_phi(z) + (n0 - agreeing) * _log_phi(-z) for z in distances]
    top = max(logs)
    weights = np.array([math.exp(value - top) for value in logs])
    expected = _radii(allowed.looks, level) @ (weights / weights.sum())
    fraction = allowed.loss[0]
    absolute = fraction / 20 if len(allowed.loss) == 1 else allowed.loss[1] / sigma
    loss = expected[-1] - expected
    allowance = max(fraction * float(expected[-1]), absolute)
    loss[-1] = -np.inf  # the cap is always good enough
    first, last = (int(np.argmax(loss <= allowance + tie)) for tie in (_TIE, -_TIE))
    return set(allowed.looks[first : last + 1])


def _log_phi(z: float) -> float:
    return math.log(0.5 * math.erfc(-z / math.sqrt(2)))


@lru_cache(maxsize=16)
def _radii(sizes: tuple[int, ...], level: float) -> Array:
    """Radius at sigma 1, by size and distance; 0 for distances of at most 0, which no bound exceeds."""
    n = np.repeat(np.array(sizes, dtype=np.float64), _POSITIVE.size)
    k = n * np.tile([1 - 0.5 * math.erfc(z / math.sqrt(2)) for z in _POSITIVE], len(sizes))
    # Written out with erfc, the misses stay exact where nearly all agree.
    misses = n * np.tile([0.5 * math.erfc(z / math.sqrt(2)) for z in _POSITIVE], len(sizes))
    lower = _beta_quantile(level, k, misses + 1)
    radii = [max(0.0, _NORMAL.inv_cdf(p)) if 0 < p < 1 else 0.0 for p in lower.tolist()]
    return np.pad(np.array(radii).reshape(len(sizes), -1), ((0, 0), (71 - _POSITIVE.size, 0)))


def _beta_quantile(level: float, a: Array, b: Array) -> Array:
    """x with I_x(a, b) = level; where it is below one half, anything below one half.

    Newton's method for log I_x, which is concave in x (b >= 1): from the left it never oversteps. Left of
    (a + 1) / (a + b + 2), where the continued fraction below converges, lies every level below about a half.
    """
    front = np.array([math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) for p, q in zip(a, b)])
    mean, n = a / (a + b), a + b
    x = np.clip(mean + _NORMAL.inv_cdf(level) * np.sqrt(mean * (1 - mean) / n), 0.4, (a + 1) / (n + 2))
    for _ in range(60):
        value = _beta(x, a, b, front)
        slope = np.exp(front + (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)) / value
        step = (math.log(level) - np.log(value)) / slope
        x = np.clip(x + step, 0.4, (a + 1) / (n + 2))
        if np.abs(step[x > 0.45]).max(initial=0.0) < 1e-12:
            break
    return x


def _beta(x: Array, a: Array, b: Array, front: Array) -> Array:
    """I_x(a, b) for x up to (a + 1) / (a + b + 2): Lentz's evaluation of the continued fraction."""
    tiny = 1e-300
    c, d = np.ones(x.shape), 1 - (a + b) * x / (a + 1)
    d = 1 / np.where(np.abs(d) < tiny, tiny, d)
    value = d.copy()
    for m in range(1, _FRACTIONS):
        step = np.zeros(x.shape)
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            d = 1 / np.where(np.abs(d) < tiny, tiny, d)
            c = 1 + numerator / c
            c = np.where(np.abs(c) < tiny, tiny, c)
            step = c * d
            value = value * step
        if np.abs(step - 1).max() < 1e-13:
            break
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(front + a * np.log(x) + b * np.log1p(-x)) * value / a)
