"""Exact binomial tails and bounds, rounded outwards: float64 never makes a certificate stronger than the theorem.

Every number here is checked against 50-digit arithmetic in the tests, up to n = 1 000 000 and alpha = 1e-12.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray, IntArray

# SciPy's incomplete beta is right to about 3e-13 relative for n <= 1e6; four times that is the tails' outward margin.
TAIL_MARGIN = 2e-12
# First outward step of an inverted bound; it is quadrupled until the tail at the bound is provably below alpha.
BOUND_STEP = 1e-12
# SciPy's normal quantile is right to a few units in the last place; this is some hundred of them.
QUANTILE_MARGIN = 1e-13
_MAX_STEPS = 40
_TINY = float(np.finfo(np.float64).tiny)


def binomial_tail(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> FloatArray:
    """P(Bin(n, p) >= k), rounded up: the p-value of "the success probability is at most p".

    Formula: I_p(k, n - k + 1), the regularised incomplete beta function; 1 where k = 0. The result is never below the
    real value (relative margin 2e-12), so a test built on it never rejects too early.

    Args:
        k: successes, integers with 0 <= k <= n; any shape.
        n: trials, integers, broadcast against ``k``.
        p: success probability under the null hypothesis, strictly between 0 and 1, broadcast against ``k``.

    Returns:
        float64 array of the broadcast shape (0-d for scalars).

    Raises:
        InputError: counts that are not integers or out of range, p outside (0, 1).

    >>> print(f"{binomial_tail(97, 100, 0.75):.3e}")
    2.108e-09
    """
    counts, sizes = check.trials(k, n)
    return _upper_tail(counts, sizes, check.open_unit("p", p))


def clopper_pearson_lower(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """One-sided lower Clopper-Pearson bound: P(bound <= p) >= 1 - alpha whatever the true p.

    Formula: the alpha-quantile of Beta(k, n - k + 1), 0 where k = 0; alpha^(1/n) where k = n. Source: Clopper and
    Pearson, Biometrika 1934; used at level alpha (not alpha/2) as in Cohen et al. 2019, section 3.2.2. Rounded down:
    the returned bound p satisfies P(Bin(n, p) >= k) <= alpha with a margin above float64's own error; it lies below the
    real bound by less than 1e-9 of its value, mostly by 1e-12.

    Args:
        k: successes among the estimation samples, integers, any shape.
        n: estimation samples, integers, broadcast against ``k``. Selection samples do not count.
        alpha: failure probability, strictly between 0 and 1, broadcast against ``k``.

    Returns:
        float64 array of the broadcast shape (0-d for scalars), 0 <= bound < 1.

    Raises:
        InputError: counts that are not integers or out of range, alpha outside (0, 1).

    >>> print(f"{clopper_pearson_lower(100, 100, 0.001):.6f}")
    0.933254
    >>> clopper_pearson_lower([0, 50, 99], 100, 0.001).round(4).tolist()
    [0.0, 0.3448, 0.9114]
    """
    counts, sizes = check.trials(k, n)
    counts, sizes, level = _with_level(counts, sizes, alpha)
    bound = np.zeros(counts.shape)
    some = counts > 0
    a, b, target = counts[some], sizes[some], level[some]
    start = special.betaincinv(a, b - a + 1, target)
    # A failed inversion (NaN) starts from the observed share and is walked down like any other value.
    p = np.where(np.isfinite(start), start, a / b)
    wrong = np.ones(p.shape, dtype=bool)
    step = BOUND_STEP
    for _ in range(_MAX_STEPS):
        p[wrong] = p[wrong] * max(1.0 - step, 0.0)
        wrong[wrong] = special.betainc(a[wrong], b[wrong] - a[wrong] + 1, p[wrong]) > target[wrong] * (1 - TAIL_MARGIN)
        if not wrong.any():
            break
        step *= 4.0
    bound[some] = p
    return bound


def clopper_pearson_upper(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> FloatArray:
    """One-sided upper Clopper-Pearson bound: P(p <= bound) >= 1 - alpha whatever the true p.

    Formula: the (1 - alpha)-quantile of Beta(k + 1, n - k), 1 where k = n; 1 - alpha^(1/n) where k = 0. Source: Clopper
    and Pearson, Biometrika 1934. Rounded up: the returned bound p satisfies P(Bin(n, p) <= k) <= alpha with a margin
    above float64's own error; it lies above the real bound by less than 1e-9 of its value, mostly by 1e-12.

    Args:
        k: successes among the estimation samples, integers, any shape.
        n: estimation samples, integers, broadcast against ``k``.
        alpha: failure probability, strictly between 0 and 1, broadcast against ``k``.

    Returns:
        float64 array of the broadcast shape (0-d for scalars), 0 < bound <= 1.

    Raises:
        InputError: counts that are not integers or out of range, alpha outside (0, 1).

    >>> print(f"{clopper_pearson_upper(0, 100, 0.001):.6f}")
    0.066746
    """
    counts, sizes = check.trials(k, n)
    counts, sizes, level = _with_level(counts, sizes, alpha)
    bound = np.ones(counts.shape)
    some = counts < sizes
    a, b, target = counts[some], sizes[some], level[some]
    start = special.betainccinv(a + 1, b - a, target)
    p = np.where(np.isfinite(start), start, (a + 1) / b)
    wrong = np.ones(p.shape, dtype=bool)
    step = BOUND_STEP
    for _ in range(_MAX_STEPS):
        p[wrong] = np.minimum(p[wrong] * (1.0 + step), 1.0)
        wrong[wrong] = special.betaincc(a[wrong] + 1, b[wrong] - a[wrong], p[wrong]) > target[wrong] * (1 - TAIL_MARGIN)
        if not wrong.any():
            break
        step *= 4.0
    bound[some] = p
    return bound


def radius_from_lower(p_lower: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Certified L2 radius sigma * Phi^-1(p_lower), 0 where p_lower <= 1/2, rounded down.

    Guarantee (Cohen et al. 2019, Theorem 1 with p_B <= 1 - p_A): if class A has probability at least ``p_lower`` under
    noise N(0, sigma^2 I), the smoothed prediction is A everywhere in the open ball of this radius.

    Args:
        p_lower: lower bounds of the top class's probability, 0 <= p_lower < 1, any shape.
        sigma: noise standard deviation, above 0, broadcast against ``p_lower``; the radius has its units.

    Returns:
        float64 array of the broadcast shape (0-d for scalars), finite and >= 0.

    Raises:
        InputError: p_lower outside [0, 1), sigma not finite and positive.

    >>> radius_from_lower([0.4, 0.5, 0.9332], 1.0).round(3).tolist()
    [0.0, 0.0, 1.5]
    """
    p = check.lower_bound(p_lower)
    scale = check.positive("sigma", sigma)
    quantile = special.ndtri(np.maximum(p, 0.5)) * (1.0 - QUANTILE_MARGIN)
    return np.asarray(scale * quantile, dtype=np.float64)


def probability_for_radius(radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Phi(radius / sigma), rounded up: the inverse of :func:`radius_from_lower`.

    Guarantee (Cohen et al. 2019, Theorem 1): if class A has a probability above the returned one under noise
    N(0, sigma^2 I), the smoothed prediction is A everywhere in the closed ball of this radius.

    Args:
        radius: L2 radii, finite and >= 0, any shape.
        sigma: noise standard deviation, above 0, in the same units, broadcast against ``radius``.

    Returns:
        float64 array of the broadcast shape (0-d for scalars), from 1/2 to 1; 1 where float64 holds nothing below 1.

    Raises:
        InputError: a radius that is not finite or negative, sigma not finite and positive.

    >>> print(f"{probability_for_radius(0.75, 0.5):.4f}")
    0.9332
    """
    size = check.floats("radius", radius)
    if not ((size >= 0.0) & np.isfinite(size)).all():
        raise InputError(f"radius must be finite and at least 0, but holds {size[~(size >= 0.0)].flat[0]}")
    p = special.ndtr(size / check.positive("sigma", sigma)) * (1.0 + TAIL_MARGIN)
    return np.asarray(np.minimum(p, 1.0), dtype=np.float64)


def radius_two_sided(p_lower: ArrayLike, q_upper: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Certified L2 radius sigma/2 * (Phi^-1(p_lower) - Phi^-1(q_upper)), 0 where p_lower <= q_upper, rounded down.

    Guarantee (Cohen et al. 2019, Theorem 1): if class A has probability at least ``p_lower`` and every other class at
    most ``q_upper`` under noise N(0, sigma^2 I), the smoothed prediction is A everywhere in the open ball of this
    radius.

    Args:
        p_lower: lower bounds of the top class's probability, 0 <= p_lower < 1, any shape.
        q_upper: upper bounds of every other class's probability, 0 < q_upper <= 1, broadcast.
        sigma: noise standard deviation, above 0, broadcast; the radius has its units.

    Returns:
        float64 array of the broadcast shape (0-d for scalars), finite and >= 0.

    Raises:
        InputError: p_lower outside [0, 1), q_upper outside (0, 1], sigma not finite and positive.

    >>> radius_two_sided([0.4, 0.4, 0.9], [0.2, 0.5, 0.1], 1.0).round(4).tolist()
    [0.2941, 0.0, 1.2816]
    """
    p = check.lower_bound(p_lower)
    q = check.floats("q_upper", q_upper)
    if not ((q > 0.0) & (q <= 1.0)).all():
        raise InputError(f"q_upper must satisfy 0 < q_upper <= 1, but holds {q[~((q > 0.0) & (q <= 1.0))].flat[0]}")
    scale = check.positive("sigma", sigma)
    certified = p > q
    # Where nothing is certified both quantiles are replaced by 0, so that infinities never meet.
    high = special.ndtri(np.where(certified, p, 0.5))
    low = special.ndtri(np.where(certified, q, 0.5))
    # The two quantiles may nearly cancel: the margin is taken from their sizes, not from their difference.
    gap = (high - low) - QUANTILE_MARGIN * (np.abs(high) + np.abs(low))
    return np.asarray(0.5 * scale * np.maximum(gap, 0.0), dtype=np.float64)


def predict_p_value(k_top: ArrayLike, k_second: ArrayLike) -> FloatArray:
    """Two-sided binomial p-value of "the two most frequent classes are equally likely" (Cohen et al. 2019, PREDICT).

    Formula: min(1, 2 P(Bin(k_top + k_second, 1/2) >= max(k_top, k_second))), rounded up; 1 where both counts are 0.
    The same value as ``scipy.stats.binomtest(k_top, k_top + k_second, 0.5).pvalue``. Guarantee (Hung and Fithian 2019,
    as used by Cohen et al. 2019, Proposition 1): returning the top class only where this is <= alpha returns a class
    other than the smoothed prediction with probability at most alpha, although both classes are picked from the same
    counts.

    Args:
        k_top: counts of the most frequent class, integers >= 0, any shape.
        k_second: counts of the runner-up, integers >= 0, broadcast against ``k_top``.

    Returns:
        float64 array of the broadcast shape (0-d for scalars).

    Raises:
        InputError: counts that are not integers or negative.

    >>> print(f"{predict_p_value(60, 40):.4f}")
    0.0569
    """
    first, second = check.pair(check.integers("k_top", k_top), check.integers("k_second", k_second))
    total = first + second
    check.trials(np.minimum(first, second), np.maximum(total, 1))
    value = 2.0 * _upper_tail(np.maximum(first, second), np.maximum(total, 1), np.float64(0.5))
    return np.where(first == second, 1.0, np.minimum(value, 1.0))


def abstains(
    k_top: ArrayLike, k_second: ArrayLike, alpha: ArrayLike
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether PREDICT must abstain at level alpha: :func:`predict_p_value` above alpha (Cohen et al. 2019).

    Args:
        k_top: counts of the most frequent class, integers >= 0, any shape.
        k_second: counts of the runner-up, integers >= 0, broadcast.
        alpha: probability of returning a class other than the smoothed prediction, strictly between 0 and 1.

    Returns:
        boolean array of the broadcast shape (0-d for scalars).

    Raises:
        InputError: counts that are not integers or negative, alpha outside (0, 1).

    >>> abstains([60, 90], [40, 10], 0.001).tolist()
    [True, False]
    """
    return np.asarray(predict_p_value(k_top, k_second) > check.open_unit("alpha", alpha))


def _upper_tail(counts: IntArray, sizes: IntArray, p: FloatArray | np.float64) -> FloatArray:
    some = counts > 0
    # The inner 1 keeps the beta function's first argument positive where k = 0, whose tail is 1 anyway.
    tail = special.betainc(np.where(some, counts, 1), sizes - counts + 1, p)
    # An underflow to 0 would be a p-value that is too small.
    rounded = np.clip(tail * (1.0 + TAIL_MARGIN), _TINY, 1.0)
    return np.where(some, rounded, 1.0)


def _with_level(counts: IntArray, sizes: IntArray, alpha: ArrayLike) -> tuple[IntArray, IntArray, FloatArray]:
    level = check.open_unit("alpha", alpha)
    try:
        counts, sizes, level = np.broadcast_arrays(counts, sizes, level)
    except ValueError:
        raise InputError(
            f"alpha does not broadcast against the counts: shapes {level.shape} and {counts.shape}"
        ) from None
    return counts, sizes, level
