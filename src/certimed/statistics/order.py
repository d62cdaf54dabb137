"""Order statistics: where the median of a number under noise stays, at given radii and at every radius at once.

**Percentile smoothing** (Chiang et al., NeurIPS 2020). Let f be any total real function of the input, infinite values
included (a segmenter followed by a measurement), F the distribution function of f(x + sigma g) with g standard normal,
and h_q = inf{y : F(y) >= q} its q-quantile. Smoothed is the median h_1/2. For a radius R put hi = Phi(R / sigma) and
lo = 1 - hi. Then for every d with |d|_2 <= R

    h_lo(x) <= h_1/2(x + d) <= h_hi(x).

Proof. By the Neyman-Pearson lemma (Cohen et al. 2019, Lemma 3) an event A of the noisy input has
Phi(Phi^-1(P_x(A)) - |d| / sigma) <= P_{x+d}(A) <= Phi(Phi^-1(P_x(A)) + |d| / sigma). Take A = {f <= h_hi(x)}:
P_x(A) >= hi, so P_{x+d}(A) >= Phi(Phi^-1(hi) - R / sigma) = 1/2, which says h_1/2(x + d) <= h_hi(x). Take A = {f <= y}
with y < h_lo(x): P_x(A) < lo, so P_{x+d}(A) < Phi(Phi^-1(lo) + R / sigma) = 1/2 and h_1/2(x + d) >= y; let y rise to
h_lo(x).

**One radius.** Let X_(1) <= ... <= X_(n) be the sorted values of n noisy copies. If X_(u) < h_hi(x), then at least u
copies lie below h_hi(x), each with probability F(h_hi(x) -) <= hi; so P[X_(u) < h_hi(x)] <= P[Bin(n, hi) >= u], and the
smallest u for which that is at most a level gives the upper end X_(u). Mirrored (f to -f), the lower end is X_(l) with
l = n + 1 - u: if X_(l) > h_lo(x), at most l - 1 copies lie at or below h_lo(x), each with probability at least lo, and
P[Bin(n, lo) <= l - 1] = P[Bin(n, hi) >= n - l + 1] = P[Bin(n, hi) >= u].

**All radii.** F(X_(i)) is at least U_(i), the i-th of n sorted uniform values, in law and jointly in i. With constants
c_1 <= ... <= c_n for which P[U_(i) < c_i for any i] <= level, all of F(X_(i)) >= c_i hold at once with probability
1 - level; then X_(u) >= h_hi(x) for *every* hi and every u with c_u >= hi. So the end may be read off at any radius,
after looking. The crossing probability of a path of sorted uniforms is computed exactly by a recursion over the c_i.

**The law that is drawn** may differ from the exact one by ``variation`` in the probability of any event
(:mod:`certimed.statistics.variation`): F is of the exact law, copies have distribution function G >= F - v and
G(y -) <= F(y -) + v. Every "each with probability at most hi" becomes hi + v, and F(X_(i)) >= c_i - v: so hi + v takes
the place of hi in both statements.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray, IntArray
from certimed.statistics.binomial import binomial_tail, clopper_pearson_lower
from certimed.statistics.multiplicity import minimum_count
from certimed.statistics.variation import upper_more

_RUNGS = 512
_NEGLIGIBLE = 1e-22
_OUTSIDE = 1e-17  # of a Poisson variable: mass beyond mean +- (10 std + 60), by Bernstein's inequality
_BISECTIONS = 30


def end_index(n: int, hi: float, level: float, variation: float = 0.0) -> int | None:
    """Place u, counted from 1, of the sorted value that bounds the hi-quantile from above: X_(u).

    Guarantee: P[X_(u) < h_hi] <= level; and for the lower end P[X_(n + 1 - u) > h_(1 - hi)] <= level (proof in the
    module's docstring). ``None`` where not even the largest value is a bound: the end is infinite, and
    :func:`samples_for_end` says how many samples would do.

    Args:
        n: estimation samples.
        hi: Phi(R / sigma), rounded up, at least one half and below 1.
        level: failure probability of this one end.
        variation: see the module's docstring.

    Raises:
        InputError: an argument out of range.

    >>> end_index(100, 0.75, 0.0005)
    89
    """
    raised, wanted = _raised(hi, variation), check.scalar_open_unit("level", level)
    return None if raised >= 1.0 else minimum_count(n, raised, wanted)


def samples_for_end(hi: float, level: float, variation: float = 0.0) -> int | None:
    """Smallest n at which :func:`end_index` is finite: hi^n <= level; None where no n up to 10^9 is.

    Raises:
        InputError: an argument out of range.

    >>> samples_for_end(0.75, 0.0005)
    27
    """
    raised, wanted = _raised(hi, variation), check.scalar_open_unit("level", level)
    if raised >= 1.0:
        return None
    n = max(1, math.floor(math.log(wanted) / math.log(raised)))
    while n <= check.MAX_SAMPLES and float(binomial_tail(n, n, raised)) > wanted:
        n += max(1, n >> 40)
    return n if n <= check.MAX_SAMPLES else None


@lru_cache(maxsize=32)
def band(n: int, level: float) -> FloatArray:
    """Constants c of a simultaneous band: float64 ``(n,)``, non-decreasing, 0 where nothing is bounded. Cached.

    Guarantee: for sorted uniforms P[U_(i) < c_i for any i] <= level, so that X_(u) bounds the hi-quantile from above
    for every hi and every u with c_u >= hi at once, and mirrored from below at the same level (module's docstring).
    All c_i that are not 0 are Clopper-Pearson bounds at one local level, which is as large as ``level`` allows; only
    those of at least one half serve a radius, so no others are paid for. Above 1024 samples not every i has a constant
    of its own: 512 do, closer together towards the largest values, and the others have that of the one below.

    Args:
        n: samples.
        level: failure probability of all constants together.

    Raises:
        InputError: an argument out of range.
    """
    size, wanted = check.scalar_count("n", n), check.scalar_open_unit("level", level)
    upper = size - size // 2
    behind = np.unique(np.ceil(np.linspace(0.0, 1.0, min(_RUNGS, upper) + 1) ** 2 * upper).astype(np.int64))
    places = (size - (behind if size > 2 * _RUNGS else np.arange(upper)))[::-1]
    places = places[places >= 1]
    low, high = math.log(wanted) - math.log(4.0 * len(places)), math.log(wanted)
    best = np.zeros(size)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        bounds = np.asarray(clopper_pearson_lower(places, size, math.exp(middle)))
        kept = bounds >= 0.5
        if crossing(places[kept], bounds[kept], size) <= wanted:
            low = middle
            best = np.zeros(size)
            best[places[kept] - 1] = bounds[kept]
        else:
            high = middle
        if high - low < 1e-4:
            break
    found = np.maximum.accumulate(best)
    found.setflags(write=False)
    return found


def band_index(n: int, hi: float, level: float, variation: float = 0.0) -> int | None:
    """Place u of the sorted value that bounds the hi-quantile from above, from :func:`band`.

    Guarantee: as that of :func:`end_index`, for every ``hi`` at once at one ``level``. ``None`` where no value is a
    bound. The arguments are those of :func:`end_index`; ``level`` is of this one side.

    Raises:
        InputError: an argument out of range.

    >>> band_index(100, 0.75, 0.0005)
    91
    """
    raised = _raised(hi, variation)
    place = int(np.searchsorted(band(n, level), raised))
    return place + 1 if place < n else None


def crossing(places: IntArray, bounds: FloatArray, n: int) -> float:
    """P[U_(i) < c_i for any i of ``places``] of n sorted uniforms, rounded up.

    Recursion: the number of uniforms up to time t is a Poisson process of rate n, conditioned on n points up to 1.
    The process is carried from bound to bound by convolution over the paths that have not crossed (fewer than i points
    up to c_i); at each bound the mass that crosses, times the probability of ending at n points from there, is added.
    Only positive terms are summed, so small probabilities keep their relative precision; all that is neglected counts
    as crossed.

    Args:
        places: increasing, from 1 to n.
        bounds: non-decreasing, in [0, 1), one for each place.

    Raises:
        InputError: lengths that differ, or an order that is broken.
    """
    if places.shape != bounds.shape or (np.diff(places) <= 0).any() or (np.diff(bounds) < 0).any():
        raise InputError("places must increase and bounds must not fall, one for each place")
    whole = _poisson_log(n, float(n))
    mass, low, before = np.ones(1), 0, 0.0
    crossed = lost = 0.0
    for place, bound in zip(places.tolist(), bounds.tolist()):
        if bound > before:
            start, steps = _poisson_window(n * (bound - before))
            mass, low, before = np.convolve(mass, steps), low + start, bound
            lost += _OUTSIDE
        counts = low + np.arange(len(mass))
        over = counts >= place
        ends = counts[over]
        reach = ends <= n
        left = n - ends[reach]
        logs = special.xlogy(left, n * (1.0 - bound)) - n * (1.0 - bound) - special.gammaln(left + 1.0) - whole
        crossed += float(mass[over][reach] @ np.exp(logs))
        kept = mass[~over]
        heavy = np.flatnonzero(kept > _NEGLIGIBLE)
        first, stop = (int(heavy[0]), int(heavy[-1]) + 1) if heavy.size else (0, 0)
        lost += float(kept[:first].sum() + kept[stop:].sum())
        mass, low = kept[first:stop], low + first
        if not mass.size:
            break
    return min(1.0, (crossed + lost * math.exp(-whole)) * (1.0 + 1e-8 + 1e-13 * n))


def _poisson_log(count: int, mean: float) -> float:
    return float(special.xlogy(count, mean) - mean - special.gammaln(count + 1.0))


def _poisson_window(mean: float) -> tuple[int, FloatArray]:
    """Lowest count and probabilities of a Poisson variable where they are not negligible."""
    reach = 10.0 * math.sqrt(mean) + 60.0
    low, high = max(0, math.floor(mean - reach)), math.ceil(mean + reach)
    k = np.arange(low, high + 1, dtype=np.float64)
    return low, np.exp(special.xlogy(k, mean) - mean - special.gammaln(k + 1.0))


def _raised(hi: float, variation: float) -> float:
    share = float(check.unit("hi", hi))
    if not 0.5 <= share < 1.0:
        raise InputError(f"hi={hi} is no quantile of a radius; it is Phi(R / sigma), at least 0.5 and below 1")
    return float(upper_more(share, variation))
