"""Deciding "robust at radius r" at any time: a bettor's wealth against p <= p0, as integer thresholds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray

# Wealth must exceed 1/alpha by this much in logarithm: above the rounding of log-gamma for n up to a million.
_LOG_MARGIN = 1e-7
_MAX_TABLE = 1_000_000


def log_wealth(k: ArrayLike, n: ArrayLike, p0: float) -> FloatArray:
    """Log wealth, after k agreeing of n samples, of the KT bettor who starts with 1 and bets against p = p0.

    Formula: log B(k + 1/2, n - k + 1/2) - log B(1/2, 1/2) - k log p0 - (n - k) log(1 - p0): the likelihood ratio of the
    Krichevsky-Trofimov mixture (1981) against p0. At p = p0 it is a martingale of mean 1, in whatever batches the
    samples come.

    Args:
        k: agreeing samples, integers 0..n, any shape.
        n: samples, integers, broadcast.
        p0: probability bet against, strictly between 0 and 1.

    Raises:
        InputError: counts out of range, p0 outside (0, 1).

    >>> print(f"{log_wealth(100, 100, 0.75):.3f}")
    25.892
    """
    counts, sizes = check.trials(k, n)
    return _log_wealth(counts, sizes, check.scalar_open_unit("p0", p0))


@lru_cache(maxsize=64)
def betting_thresholds(n: int, p0: float, alpha: float) -> NDArray[np.int64]:
    """Smallest count that rejects "p <= p0" after each number of samples 0..n: wealth of 1/alpha on the upper side.

    Guarantee: P_p(k_t >= c_t for any t <= n) <= alpha for every p <= p0; so one comparison at any time, after every
    sample, every batch or at any stopping time, decides "p > p0" with error at most alpha. Source: Voracek, NeurIPS
    2024 (arXiv 2406.17830); Ville 1939.
    Proof: at p = p0 the wealth is a non-negative martingale that starts at 1, so by Ville's inequality it ever reaches
    1/alpha with probability at most alpha. For fixed t the wealth is convex in k in logarithm, hence {k > t p0, wealth
    >= 1/alpha} is {k >= c_t}. Counts under p < p0 are, sample by sample, at most those under p0 (coupling), so crossing
    is no more likely. Looking only at some times removes crossings.

    Args:
        n: largest number of samples.
        p0: probability under test, strictly between 0 and 1; Phi(radius / sigma) for a radius.
        alpha: failure probability.

    Returns:
        int64 (n + 1,), read-only; t + 1 where t samples cannot reject.

    Raises:
        InputError: an argument out of range.

    >>> betting_thresholds(100, 0.75, 0.001)[[10, 33, 34, 100]].tolist()
    [11, 33, 34, 92]
    """
    size = check.scalar_count("n", n)
    null = check.scalar_open_unit("p0", p0)
    wanted = -math.log(check.scalar_open_unit("alpha", alpha)) + _LOG_MARGIN
    if size > _MAX_TABLE:
        raise InputError(f"n must be at most {_MAX_TABLE} for a table of thresholds, but is {size}")
    times = np.arange(size + 1)
    # Bisection for all t at once between a count that does not reject (at most t p0) and one that does, or t + 1.
    failing, passing = np.floor(times * null).astype(np.int64), times + 1
    while (open_ := passing - failing > 1).any():
        middle = (failing + passing) // 2
        rich = _log_wealth(np.minimum(middle, times), times, null) >= wanted
        passing, failing = np.where(open_ & rich, middle, passing), np.where(open_ & ~rich, middle, failing)
    passing.setflags(write=False)
    return passing


def _log_wealth(k: NDArray[np.int64], n: NDArray[np.int64], p0: float) -> FloatArray:
    mixture = special.betaln(k + 0.5, n - k + 0.5) - math.log(math.pi)
    return np.asarray(mixture - k * math.log(p0) - (n - k) * math.log1p(-p0), dtype=np.float64)
