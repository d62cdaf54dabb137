"""Many pixels at once: which agreement counts certify a pixel when every pixel of an image is tested.

Setting (SegCertify: Fischer, Baader and Vechev 2021): pixel i has a class c_i fixed on the n0 selection samples; k_i of
the n estimation samples agree with it; the null hypothesis is P(class c_i) <= tau; its p-value P(Bin(n, tau) >= k_i).
Rejecting it certifies the pixel at radius sigma * Phi^-1(tau). All pixels share the noise, so the counts are dependent:
every procedure here is valid under any dependence.

A p-value depends on the count alone, so a whole image is its histogram of counts (length n + 1), and a multiple test
is one count threshold: pixels with at least that count are certified. O(n) work, nothing per pixel is sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray, IntArray
from certimed.statistics.binomial import binomial_tail, clopper_pearson_lower, radius_from_lower
from certimed.statistics.variation import lower_less


def minimum_count(n: int, tau: float, alpha: float) -> int | None:
    """Smallest k with P(Bin(n, tau) >= k) <= alpha: the count one pixel needs, tested alone; None if even n fails.

    Args:
        n: estimation samples.
        tau: probability threshold under test, strictly between 0 and 1.
        alpha: level of the test, strictly between 0 and 1.

    Raises:
        InputError: an argument out of range.

    >>> minimum_count(100, 0.75, 0.001)
    89
    """
    size = check.scalar_count("n", n)
    threshold = check.scalar_open_unit("tau", tau)
    level = check.scalar_open_unit("alpha", alpha)
    if float(binomial_tail(size, size, threshold)) > level:
        return None
    # The tail falls as k grows and is 1 > alpha at k = 0: bisect between a failing and a passing count.
    failing, passing = 0, size
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if float(binomial_tail(middle, size, threshold)) <= level:
            passing = middle
        else:
            failing = middle
    return passing


def bonferroni_threshold(n: int, tau: float, alpha: float, pixels: int) -> int | None:
    """Smallest count certified by Bonferroni's test, the same for every image: P(Bin(n, tau) >= k) <= alpha / pixels.

    Guarantee: with probability at least 1 - alpha no certified pixel of the image is wrong (family-wise error, any
    dependence; union bound). None if even n agreeing samples do not certify a pixel.

    Args:
        n: estimation samples.
        tau: probability threshold, strictly between 0 and 1.
        alpha: family-wise failure probability of the image.
        pixels: number K of pixels tested.

    Raises:
        InputError: an argument out of range.

    >>> bonferroni_threshold(100, 0.75, 0.001, 512 * 512)
    97
    """
    return minimum_count(n, tau, check.scalar_open_unit("alpha", alpha) / check.scalar_count("pixels", pixels))


def holm_threshold(histogram: ArrayLike, n: int, tau: float, alpha: float) -> int | None:
    """Smallest count certified by Holm's step-down test of one image, or None if no pixel is certified.

    Guarantee (Holm 1979): with probability at least 1 - alpha no certified pixel of the image is wrong, under any
    dependence. With Cohen et al. 2019, Theorem 1: no certified pixel changes anywhere in the open L2 ball of radius
    sigma * Phi^-1(tau).

    Why a threshold. Holm sorts the p-values and accepts the i-th smallest while it is at most alpha / (K - i + 1). The
    p-value P(Bin(n, tau) >= k) falls strictly with k, so the walk goes from k = n downwards, and pixels with equal
    counts are tied. Let m pixels be accepted before a tied group of g pixels. Its first pixel needs
    p <= alpha / (K - m), its later ones p <= alpha / (K - m - 1), ..., alpha / (K - m - g + 1), which are less strict.
    So the whole group is accepted if its first pixel is, and the walk stops at the group otherwise, whatever the order
    within it.

    Args:
        histogram: number of pixels at each agreement count 0..n, integers >= 0, shape (n + 1,); its sum is K.
        n: estimation samples.
        tau: probability threshold, strictly between 0 and 1.
        alpha: family-wise failure probability of the image.

    Returns:
        The smallest accepted count that occurs in the image; pixels with at least this count are certified.

    Raises:
        InputError: a histogram of the wrong length or without pixels, an argument out of range.

    >>> histogram = np.zeros(101, dtype=int)
    >>> histogram[[100, 93, 70]] = [199_700, 200, 100]
    >>> holm_threshold(histogram, 100, 0.75, 0.001), bonferroni_threshold(100, 0.75, 0.001, 200_000)
    (93, 97)
    """
    size = check.scalar_count("n", n)
    pixels_at = _checked_histogram(histogram, size)
    threshold = check.scalar_open_unit("tau", tau)
    level = check.scalar_open_unit("alpha", alpha)
    counts = np.flatnonzero(pixels_at)[::-1]
    groups = pixels_at[counts]
    accepted_before = np.cumsum(groups) - groups
    remaining = int(pixels_at.sum()) - accepted_before
    passes = binomial_tail(counts, size, threshold) <= level / remaining
    accepted = int(passes.size if passes.all() else passes.argmin())
    return int(counts[accepted - 1]) if accepted else None


def count_threshold(histogram: ArrayLike, n: int, tau: float, alpha: float, correction: str = "holm") -> int | None:
    """Smallest agreement count that is certified, or None; the correction by its name.

    Args:
        histogram: number of pixels at each agreement count, int64 ``(n + 1,)``.

    Raises:
        InputError: an unknown correction.

    >>> pixels = np.bincount([100] * 60 + [90] * 40, minlength=101)
    >>> count_threshold(pixels, 100, 0.75, 1e-3), count_threshold(pixels, 100, 0.75, 1e-3, "bonferroni")
    (100, 93)
    """
    if correction == "holm":
        return holm_threshold(histogram, n, tau, alpha)
    if correction == "bonferroni":
        return bonferroni_threshold(n, tau, alpha, int(np.sum(histogram)))
    raise InputError(f"correction={correction!r} is unknown; use 'holm' or 'bonferroni'")


def alpha_split(alpha: float, weights: int | Sequence[float]) -> FloatArray:
    """Shares of alpha for several statements made from the same samples; together they hold at level alpha.

    Several taus (radii) from one set of samples: fix the taus beforehand, test each with Holm at its share, and by the
    union bound all the masks are right together with probability at least 1 - alpha. (A single tau chosen
    beforehand needs no split; :func:`radius_map_bonferroni` answers every tau at once without one, at Bonferroni's
    price.) The same split serves several noise levels, looks or candidate methods.

    Args:
        alpha: total failure probability, strictly between 0 and 1.
        weights: how many equal shares, or one positive weight for each statement.

    Returns:
        float64 array, one share each; the exact sum is at most alpha.

    Raises:
        InputError: alpha out of range, no share, a weight that is not finite and positive.

    >>> alpha_split(0.001, [1, 3]).round(6).tolist()
    [0.00025, 0.00075]
    """
    level = check.scalar_open_unit("alpha", alpha)
    if isinstance(weights, (int, np.integer)):
        parts = np.ones(check.scalar_count("weights", weights))
    else:
        parts = np.atleast_1d(check.positive("weights", weights))
    if parts.ndim != 1 or not parts.size:
        raise InputError(f"weights must be a count or a flat list of weights, but has shape {parts.shape}")
    # The factor outweighs the rounding of the sum and the division, so the shares never add up to more than alpha.
    return np.asarray(level * (1.0 - 1e-12) * (parts / parts.sum()), dtype=np.float64)


def holm_thresholds(histogram: ArrayLike, n: int, taus: Sequence[float], alpha: float) -> tuple[int | None, ...]:
    """Holm's count threshold for each of several taus from the same samples, each at an equal share of alpha.

    Guarantee: with probability at least 1 - alpha no pixel certified at any of the taus is wrong at that tau (Holm 1979
    at level alpha / len(taus) each, union bound). The taus must be fixed before the counts are seen.

    Args:
        histogram: number of pixels at each agreement count 0..n, integers >= 0, shape (n + 1,).
        n: estimation samples.
        taus: probability thresholds, each strictly between 0 and 1.
        alpha: failure probability of the image over all taus.

    Returns:
        One threshold for each tau, as :func:`holm_threshold`.

    Raises:
        InputError: as :func:`holm_threshold`; no tau.

    >>> histogram = np.zeros(101, dtype=int)
    >>> histogram[[100, 95, 60]] = [99_000, 990, 10]
    >>> holm_thresholds(histogram, 100, [0.75, 0.8], 0.001)
    (95, 100)
    """
    shares = alpha_split(alpha, len(taus))
    return tuple(holm_threshold(histogram, n, tau, float(share)) for tau, share in zip(taus, shares))


def radius_map_bonferroni(
    counts: ArrayLike, n: int, alpha: float, pixels: int, sigma: float, variation: float = 0.0
) -> FloatArray:
    """Radius of every pixel: r_i = sigma * Phi^-1(CP_lower(k_i, n, alpha / pixels)), 0 where nothing is certified.

    Guarantee: with probability at least 1 - alpha all radii of the image hold at once: no pixel i changes anywhere in
    the open L2 ball of radius r_i (Clopper and Pearson 1934 for each pixel, union bound over the pixels, Cohen et al.
    2019, Theorem 1). Any radius may therefore be read off after the fact.

    Args:
        counts: agreement counts, integers 0..n, any shape (of at most ``pixels`` elements).
        n: estimation samples.
        alpha: family-wise failure probability of the image.
        pixels: number of pixels tested in the image.
        sigma: noise standard deviation; the radii have its units.
        variation: see :func:`certimed.statistics.class_bound`; every lower bound is lowered by it.

    Returns:
        float64 array of the shape of ``counts``.

    Raises:
        InputError: counts out of range, more counts than pixels, an argument out of range.

    >>> radius_map_bonferroni([[100, 97], [89, 40]], 100, 0.001, 512 * 512, 0.5).round(3).tolist()
    [[0.465, 0.345], [0.164, 0.0]]
    """
    size = check.scalar_count("n", n)
    total = check.scalar_count("pixels", pixels)
    agreement = np.asarray(counts)
    if agreement.size > total:
        raise InputError(f"pixels must be at least the number of counts {agreement.size}, but is {total}")
    agreement, _ = check.trials(agreement, size)
    level = check.scalar_open_unit("alpha", alpha) / total
    table = _radius_table(size, level, check.scalar_positive("sigma", sigma), variation)
    return np.asarray(table.take(agreement), dtype=np.float64)


@lru_cache(maxsize=16)
def _radius_table(n: int, level: float, sigma: float, variation: float) -> FloatArray:
    table = np.zeros(n + 1)
    # For k <= n/2 the tail at 1/2 is at least 1/2, so below that level the bound cannot exceed 1/2: radius 0.
    first = n // 2 + 1 if level < 0.5 else 0
    lower = clopper_pearson_lower(np.arange(first, n + 1), n, level)
    table[first:] = radius_from_lower(lower_less(lower, variation), sigma)
    table.setflags(write=False)
    return table


def _checked_histogram(histogram: ArrayLike, n: int) -> IntArray:
    pixels_at = check.integers("histogram", histogram)
    if pixels_at.shape != (n + 1,):
        raise InputError(
            f"histogram must have shape ({n + 1},), one entry for each count 0..n={n}, but has shape {pixels_at.shape}"
        )
    if pixels_at.min() < 0 or not pixels_at.any():
        raise InputError("histogram must hold numbers of pixels >= 0 with at least one pixel")
    return pixels_at
