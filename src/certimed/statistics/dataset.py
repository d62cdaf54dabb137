"""From many images to one figure: what a certified accuracy proves, and the interval to draw around it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray
from certimed.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from certimed.statistics.multiplicity import minimum_count

_ROUNDING = 1e-15
"""More than a product of two numbers up to 1 is off by."""


def certified_accuracy_lower(
    observed: float, n_images: int, alpha: float, rho: float, method: Literal["exact", "bernstein"] = "exact"
) -> float:
    """Lower bound of the true certified accuracy on these images, given that each certificate may fail with alpha.

    Each image's certificate is wrong with probability at most alpha, independently (each image has its own noise), so
    the number of wrong ones is stochastically at most Bin(N, alpha). Guarantee: with probability at least 1 - rho over
    the noise, the share of the N images that are truly correct and robust at the radius is at least

    * "exact": observed - q / N with q the smallest integer for which P(Bin(N, alpha) > q) <= rho;
    * "bernstein": observed - alpha - sqrt(2 alpha (1 - alpha) ln(1/rho) / N) - ln(1/rho) / (3 N), Bernstein's
      inequality as in the appendix of Cohen et al. 2019. Without the 2 under the root the statement is false.

    Args:
        observed: share of images certified correct at the radius, 0 to 1.
        n_images: number N of images, failures and abstentions included.
        alpha: failure probability of each certificate.
        rho: failure probability of this statement.
        method: "exact" or "bernstein".

    Returns:
        A share, rounded down, at least 0.

    Raises:
        InputError: an argument out of range or an unknown method.

    >>> print(f"{certified_accuracy_lower(0.8, 500, 0.001, 0.001):.4f}")
    0.7920
    >>> print(f"{certified_accuracy_lower(0.8, 500, 0.001, 0.001, method='bernstein'):.4f}")
    0.7891
    """
    size = check.scalar_count("n_images", n_images)
    level = check.scalar_open_unit("alpha", alpha)
    risk = check.scalar_open_unit("rho", rho)
    if not 0.0 <= observed <= 1.0:
        raise InputError(f"observed must lie between 0 and 1, but is {observed}")
    if method == "exact":
        beyond = minimum_count(size, level, risk)
        loss = (size if beyond is None else beyond - 1) / size
    elif method == "bernstein":
        log_risk = -np.log(risk)
        loss = float(level + np.sqrt(2.0 * level * (1.0 - level) * log_risk / size) + log_risk / (3.0 * size))
    else:
        raise InputError(f"method must be exact or bernstein, but is {method!r}")
    # The subtraction and the loss are rounded to nearest; a few units in the last place downwards restore the bound.
    return float(max(observed - loss - 1e-15, 0.0))


def proportion_interval(
    k: ArrayLike,
    n: ArrayLike,
    confidence: float = 0.95,
    method: Literal["clopper-pearson", "wilson"] = "clopper-pearson",
) -> tuple[FloatArray, FloatArray]:
    """Confidence interval of a share over images, for the band around a plotted curve.

    It speaks of new images from the same source, where :func:`certified_accuracy_lower` speaks of these images.
    "clopper-pearson" (1934) covers the true share with at least the stated confidence, for any n; "wilson" (1927) is
    shorter but approximate: its coverage falls below the stated one for some shares.

    Args:
        k: successes, integers with 0 <= k <= n, any shape.
        n: images, integers, broadcast against ``k``. Patches of one patient are not independent: count patients.
        confidence: strictly between 0 and 1.
        method: "clopper-pearson" or "wilson".

    Returns:
        (low, high), float64 arrays of the broadcast shape.

    Raises:
        InputError: counts out of range, confidence outside (0, 1), an unknown method.

    >>> low, high = proportion_interval(45, 50)
    >>> print(f"{low:.3f} {high:.3f}")
    0.782 0.967
    """
    level = check.scalar_open_unit("confidence", confidence)
    tail = (1.0 - level) / 2.0
    if method == "clopper-pearson":
        return clopper_pearson_lower(k, n, tail), clopper_pearson_upper(k, n, tail)
    if method != "wilson":
        raise InputError(f"method must be clopper-pearson or wilson, but is {method!r}")
    counts, sizes = check.trials(k, n)
    z = -float(special.ndtri(tail))
    share = counts / sizes
    centre = (share + z * z / (2 * sizes)) / (1 + z * z / sizes)
    half = z / (1 + z * z / sizes) * np.sqrt(share * (1 - share) / sizes + z * z / (4 * sizes * sizes))
    return np.asarray(np.maximum(centre - half, 0.0)), np.asarray(np.minimum(centre + half, 1.0))


def difference_interval(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the difference of two shares that were found on the same images.

    Guarantee: for images drawn independently it covers the true difference P(gained) - P(lost) with at least the stated
    confidence, for any n. Proof: let d = P(gained) + P(lost) and t = P(gained) / d, so that the difference is
    d (2 t - 1). The number of images that changed is Bin(n, d), and given it ``gained`` is Bin(gained + lost, t). With
    a = 1 - confidence, the Clopper-Pearson interval of d misses it with probability at most a/5, and that of t, which
    holds given any number of changed images, with at most 4a/5; so both hold but for a. Where both hold the difference
    lies between the extremes of d (2 t - 1) over the two intervals, which are at their ends, as it is linear in each.
    Most of a is given to t, whose interval decides the sign as the exact test of McNemar (1947) does.

    Args:
        gained, lost: images in the second share alone, and in the first alone; integers >= 0.
        n: all images, at least ``gained + lost`` and 1. Patches of one patient are not independent: count patients.
        confidence: strictly between 0 and 1.

    Returns:
        (low, high), from -1 to 1.

    Raises:
        InputError: counts out of range, confidence outside (0, 1).

    >>> low, high = difference_interval(2, 12, 100)
    >>> print(f"{low:.3f} {high:.3f}")
    -0.243 -0.008
    """
    level = check.scalar_open_unit("confidence", confidence)
    check.trials([gained, lost, gained + lost], n)
    changed = gained + lost
    rates = [float(end) for end in proportion_interval(changed, n, 1.0 - (1.0 - level) / 5.0)]
    tilts = [-1.0, 1.0]
    if changed:
        tilts = [
            2.0 * float(end) - 1.0 for end in proportion_interval(gained, changed, 1.0 - (1.0 - level) * 4.0 / 5.0)
        ]
    ends = [rate * tilt for rate in rates for tilt in tilts]
    return max(-1.0, min(ends) - _ROUNDING), min(1.0, max(ends) + _ROUNDING)
