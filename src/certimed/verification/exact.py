"""Binomial tails and normal quantiles to 40 digits: exact rational recursion for tails, mpmath for the rest; and
hypergeometric tails in float64, for tests of plausibility.

Inputs are exact: a float64 from a certificate is the rational number it is, not its decimal spelling.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from certimed.errors import require

_DIGITS = 50
_BITS = 200  # fixed point of the tail's sum relative to its first term: 60 digits, far beyond the 40 promised


def context() -> Any:
    """An mpmath context of 50 digits, apart from mpmath's global one; MissingExtraError without mpmath."""
    return _context()


@lru_cache(maxsize=1)
def _context() -> Any:
    own = require("mpmath", "verify").MPContext()
    own.dps = _DIGITS
    return own


@lru_cache(maxsize=65536)
def upper_tail(k: int, n: int, p: Fraction) -> Any:
    """P(Bin(n, p) >= k) as a number of 40 correct digits, 0 < p < 1."""
    mp = _context()
    if k <= 0:
        return mp.mpf(1)
    if k > n:
        return mp.mpf(0)
    if k * p.denominator <= n * p.numerator:
        # Below the mean the terms would rise first: sum the other side, where they fall.
        return 1 - upper_tail(n - k + 1, n, 1 - p)
    return _first_term(k, n, p) * mp.mpf(_falling_sum(k, n, p)) / mp.mpf(1 << _BITS)


def lower_tail(k: int, n: int, p: Fraction) -> Any:
    """P(Bin(n, p) <= k)."""
    return upper_tail(n - k, n, 1 - p)


def _first_term(k: int, n: int, p: Fraction) -> Any:
    mp = _context()
    q = 1 - p
    log = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
    log += k * mp.log(_number(p)) + (n - k) * mp.log(_number(q))
    return mp.exp(log)


def _falling_sum(k: int, n: int, p: Fraction) -> int:
    """Sum of the terms from k to n divided by the first, times 2^200; each term by its ratio to the one before."""
    rising, falling = p.numerator, p.denominator - p.numerator
    term = total = 1 << _BITS
    for j in range(k, n):
        term = term * ((n - j) * rising) // ((j + 1) * falling)
        if not term:
            break
        total += term
    return total


@lru_cache(maxsize=65536)
def quantile(p: Fraction) -> Any:
    """Phi^-1(p), 0 < p < 1: Newton's method from float64, in 50 digits."""
    mp = _context()
    target = _number(p)
    # The lower half is where ncdf keeps its relative precision.
    if p > Fraction(1, 2):
        return -quantile(1 - p)
    z = mp.mpf(NormalDist().inv_cdf(float(p)))
    for _ in range(3):
        z -= (mp.ncdf(z) - target) / mp.npdf(z)
    return z


def among_first(hits: int, first: int, total_hits: int, total: int) -> float:
    """P(at least ``hits`` of ``total_hits`` hits fall among the ``first`` of ``total`` draws) if all orders are alike.

    The hypergeometric tail where it is small; 1 where ``hits`` is at most its mean, as nothing is improbable there.
    """
    if hits * total <= total_hits * first:
        return 1.0
    if hits > min(first, total_hits):
        return 0.0
    rest, misses = total_hits - hits, total - first
    if rest > misses:
        return 1.0
    log = _log_binomial(first, hits) + _log_binomial(misses, rest) - _log_binomial(total, total_hits)
    term = tail = 1.0
    for x in range(hits, min(first, total_hits)):
        term *= (first - x) * (total_hits - x) / ((x + 1) * (misses - total_hits + x + 1))
        tail += term
        if term < 1e-20 * tail:
            break
    return math.exp(min(0.0, log + math.log(tail)))


def fisher(a: int, n: int, b: int, m: int) -> float:
    """Two-sided exact test of equal probability, a of n against b of m: twice the smaller hypergeometric tail."""
    upper, lower = among_first(a, n, a + b, n + m), among_first(n - a, n, n + m - a - b, n + m)
    return min(1.0, 2.0 * min(upper, lower))


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def number(value: Fraction) -> Any:
    """A rational number in 50 digits."""
    return _number(value)


def _number(value: Fraction) -> Any:
    mp = _context()
    return mp.mpf(value.numerator) / mp.mpf(value.denominator)
