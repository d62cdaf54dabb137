"""Arithmetic before any sampling: how far n samples can reach, and how many samples a wish costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray
from certimed.statistics.binomial import binomial_tail, clopper_pearson_lower, radius_from_lower

Correction = Literal["holm", "bonferroni"]
CORRECTION_NAMES: tuple[Correction, ...] = get_args(Correction)

_SCAN = 4096


def radius_ceiling(n: ArrayLike, alpha: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Largest radius n unanimous samples can certify: sigma * Phi^-1(alpha^(1/n)), rounded down.

    Source: Cohen et al. 2019, section 3.2.2 with k = n. 0 where n samples can certify nothing.

    Args:
        n: estimation samples, any shape.
        alpha: failure probability, broadcast.
        sigma: noise standard deviation, broadcast; the radius has its units.

    Raises:
        InputError: an argument out of range.

    >>> radius_ceiling([100, 1_000, 10_000], 0.001, 1.0).round(3).tolist()
    [1.5, 2.463, 3.199]
    """
    return radius_from_lower(clopper_pearson_lower(n, n, alpha), sigma)


def samples_for_radius(radius: float, sigma: float, alpha: float) -> int:
    """Smallest n at which unanimous samples certify at least ``radius``: n >= ln(alpha) / ln(Phi(radius / sigma)).

    No image can be certified at this radius with fewer samples (Cohen et al. 2019, section 3.2.2 with k = n).

    Args:
        radius: wanted L2 radius, above 0, in the units of sigma.
        sigma: noise standard deviation.
        alpha: failure probability.

    Raises:
        InputError: an argument out of range; a radius that needs more than 1e9 samples.

    >>> samples_for_radius(1.5, 1.0, 0.001)
    100
    """
    wanted = check.scalar_positive("radius", radius)
    scale = check.scalar_positive("sigma", sigma)
    level = check.scalar_open_unit("alpha", alpha)
    estimate = math.log(level) / float(special.log_ndtr(wanted / scale)) if wanted / scale < 30 else math.inf
    advice = f"radius={wanted} at sigma={scale} needs more than {check.MAX_SAMPLES} samples; use a larger sigma"
    return _first_from(estimate, lambda n: float(radius_ceiling(n, level, scale)) >= wanted, advice)


def samples_for_radius_at(p: float, radius: float, sigma: float, alpha: float) -> int:
    """Smallest n at which the typical count floor(n p) of an image with true probability p certifies ``radius``.

    The condition is P(Bin(n, Phi(radius / sigma)) >= floor(n p)) <= alpha, i.e. a Clopper-Pearson bound of at least
    Phi(radius / sigma) at that count. An actual count falls below floor(n p) in up to about half of the runs, so this n
    certifies such an image about every other time: a plan, not a promise.

    Args:
        p: true probability of the top class under noise, Phi(radius / sigma) < p <= 1.
        radius: wanted L2 radius, above 0, in the units of sigma.
        sigma: noise standard deviation.
        alpha: failure probability.

    Raises:
        InputError: an argument out of range; p too small for the radius at any n, or only beyond 1e9 samples.

    >>> samples_for_radius_at(0.99, 1.0, 1.0, 0.001)
    54
    """
    wanted = check.scalar_positive("radius", radius)
    scale = check.scalar_positive("sigma", sigma)
    level = check.scalar_open_unit("alpha", alpha)
    if not 0.0 < p <= 1.0:
        raise InputError(f"p must satisfy 0 < p <= 1, but is {p}")
    needed = float(special.ndtr(wanted / scale))
    if p <= needed:
        raise InputError(
            f"p={p} can never certify radius={wanted} at sigma={scale}, which needs p > {needed:.6g}; "
            "use a smaller radius or a larger sigma"
        )
    if p == 1.0:
        return samples_for_radius(wanted, scale, level)
    start = _relaxed_samples(p, needed, level)
    # Rounding n p down makes the condition a saw-tooth in n: look at every n from the relaxed answer upwards.
    while start <= check.MAX_SAMPLES:
        sizes = np.arange(start, start + _SCAN)
        # The small addend keeps a product such as 100 * 0.29 = 28.999999999999996 at its real value.
        counts = np.floor(sizes * p + 1e-9).astype(np.int64)
        good = binomial_tail(counts, sizes, needed) <= level
        if good.any():
            return int(sizes[good.argmax()])
        start += _SCAN
    raise InputError(f"p={p} certifies radius={wanted} at sigma={scale} only beyond {check.MAX_SAMPLES} samples")


def samples_for_tau(tau: float, alpha: float, pixels: int = 1, correction: Correction | str = "holm") -> int:
    """Smallest n that can certify any pixel at all: n >= ln(alpha / pixels) / ln(tau).

    A pixel all of whose n samples agree has the p-value tau^n, and the first step of Holm's test, like Bonferroni's,
    asks for alpha / pixels.

    Args:
        tau: probability threshold, strictly between 0 and 1.
        alpha: failure probability of the image.
        pixels: number of pixels tested.
        correction: "holm" or "bonferroni".

    Raises:
        InputError: an argument out of range, an unknown correction.

    >>> [samples_for_tau(tau, 0.001, 512 * 512) for tau in (0.75, 0.9, 0.95, 0.99)]
    [68, 184, 378, 1929]
    """
    threshold = check.scalar_open_unit("tau", tau)
    level = check.scalar_open_unit("alpha", alpha)
    total = check.scalar_count("pixels", pixels)
    if correction not in CORRECTION_NAMES:
        raise InputError(f"correction must be one of {', '.join(CORRECTION_NAMES)}, but is {correction!r}")
    first_step = level / total
    advice = f"tau={threshold} needs more than {check.MAX_SAMPLES} samples; use a smaller tau"
    return _first_from(
        math.log(first_step) / math.log(threshold),
        lambda n: float(binomial_tail(n, n, threshold)) <= first_step,
        advice,
    )


def require_samples_for_tau(
    n: int, tau: float, alpha: float, pixels: int, *, correction: Correction | str = "holm"
) -> None:
    """Refuse a setting that could only abstain, before any sampling, and name the n that would do.

    Args:
        n: estimation samples intended.
        tau, alpha, pixels, correction: as :func:`samples_for_tau`.

    Raises:
        InputError: n is below :func:`samples_for_tau`; an argument out of range.

    >>> require_samples_for_tau(100, 0.9, 0.001, 512 * 512)
    Traceback (most recent call last):
    ...
    certimed.errors.InputError: n=100 cannot certify tau=0.9 over 262144 pixels at alpha=0.001; use n >= 184
    """
    needed = samples_for_tau(tau, alpha, pixels, correction)
    if check.scalar_count("n", n) < needed:
        raise InputError(f"n={n} cannot certify tau={tau} over {pixels} pixels at alpha={alpha}; use n >= {needed}")


def _first_from(estimate: float, certifies: Callable[[int], bool], advice: str) -> int:
    """Smallest n that certifies, given its real-arithmetic value, which outward rounding can only move up a little."""
    if estimate > 0.99 * check.MAX_SAMPLES:
        raise InputError(advice)
    failing = max(math.ceil(estimate * (1.0 - 1e-9)) - 1, 0)
    step = 1
    while not certifies(failing + step):
        failing, step = failing + step, 2 * step
    return _bisect(failing, failing + step, certifies)


def _bisect(failing: int, passing: int, certifies: Callable[[int], bool]) -> int:
    while passing - failing > 1:
        middle = (failing + passing) // 2
        failing, passing = (failing, middle) if certifies(middle) else (middle, passing)
    return passing


def _relaxed_samples(p: float, needed: float, alpha: float) -> int:
    """Smallest n whose tail at the unrounded count n p is at most alpha; the tail at floor(n p) is never smaller."""

    def certifies(n: int) -> bool:
        return bool(special.betainc(n * p, n * (1.0 - p) + 1.0, needed) <= alpha)

    passing = 1
    while not certifies(passing) and passing <= check.MAX_SAMPLES:
        passing *= 2
    return _bisect(passing // 2, passing, certifies)
