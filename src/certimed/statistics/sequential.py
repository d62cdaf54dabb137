"""Looking at the counts before all samples are drawn, at the same total failure probability.

A budget looks at the agreement count k at preset sample sizes n_1 < ... < n_m = cap. "p <= p0" is rejected at look i
when k >= c_i. Everything here is computed exactly from the binomial walk (dynamic programming over counts), not by
simulation and not by a union bound over the looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray, IntArray

_NEGLIGIBLE = 1e-20
# Mass outside mean +- (9 std + 50) is below 2 exp(-40) for every binomial (Bernstein's inequality), and the entries
# dropped below _NEGLIGIBLE add up to less than the rest: each look is charged for both in full.
_OUTSIDE = 1e-15


def look_sizes(cap: int, first: int = 64, ratio: float = 1.25, multiple: int = 32) -> tuple[int, ...]:
    """Sample sizes to look at: ``first``, then growing by ``ratio``, all multiples of ``multiple`` except the cap.

    Args:
        cap: last look, at least 1.
        first: first look.
        ratio: growth from look to look, above 1.
        multiple: batches stay aligned with it.

    Raises:
        InputError: an argument out of range.

    >>> look_sizes(300)
    (64, 96, 128, 160, 224, 300)
    """
    last = check.scalar_count("cap", cap)
    size, step = check.scalar_count("first", first), check.scalar_count("multiple", multiple)
    if not 1.0 < ratio < math.inf:
        raise InputError(f"ratio must be above 1, but is {ratio}")
    sizes: list[int] = []
    while size * math.sqrt(ratio) < last:
        sizes.append(size)
        size = max(math.ceil(size * ratio / step) * step, size + 1)
    return (*sizes, last)


def spending(looks: Sequence[int], alpha: float, power: float = 1.0) -> tuple[float, ...]:
    """Failure probability that may have been used up by each look: alpha * (n_i / cap)^power (Kim and DeMets 1987).

    A power of 1 and above keeps nearly all the strength of a single look at the cap; a small power answers early.

    Raises:
        InputError: looks that do not increase, alpha outside (0, 1), power not positive.

    >>> spending((25, 50, 100), 0.001)
    (0.00025, 0.0005, 0.001)
    """
    sizes = _checked_looks(looks)
    level, exponent = check.scalar_open_unit("alpha", alpha), check.scalar_positive("power", power)
    return tuple(level * (size / sizes[-1]) ** exponent for size in sizes)


def sequential_thresholds(looks: Sequence[int], p0: float, spent: Sequence[float]) -> IntArray:
    """Counts that reject "p <= p0" at each look, with the failure probability of all looks together computed exactly.

    Guarantee: P_p(k_i >= c_i at any look i) <= spent[-1] for every p <= p0, whatever rule decides when to stop.
    Proof: at p0 the walk (k_1, ..., k_m) restricted to paths that have not crossed is carried from look to look by
    convolution with Bin(n_i - n_{i-1}, p0); c_i is the smallest count for which the mass that first crosses at look i
    and all that crossed before is at most spent[i] (alpha spending: Lan and DeMets, Biometrika 1983), so the sum of
    the first-crossing masses, which is the probability of ever crossing, is at most spent[-1]. For p < p0, couple the
    samples (U <= p implies U <= p0): counts under p never exceed those under p0, so crossing is no more likely.
    Stopping early, for any reason, only removes crossings. Rounding is outwards, and
    mass neglected on the way counts as crossed.

    Args:
        looks: increasing sample sizes, shape (m,).
        p0: probability under test, strictly between 0 and 1.
        spent: non-decreasing failure probability that may be used up by each look, shape (m,).

    Returns:
        int64 (m,); n_i + 1 where no count rejects at that look.

    Raises:
        InputError: an argument out of range, lengths that differ.

    >>> sequential_thresholds((50, 100), 0.5, (0.0005, 0.001)).tolist()
    [37, 67]
    """
    sizes = _checked_looks(looks)
    null = check.scalar_open_unit("p0", p0)
    levels = check.floats("spent", spent)
    if levels.shape != (len(sizes),) or (np.diff(levels) < 0).any() or levels[0] < 0 or levels[-1] >= 1:
        raise InputError(f"spent must hold {len(sizes)} non-decreasing levels in [0, 1), one a look, but is {spent}")
    thresholds = np.empty(len(sizes), dtype=np.int64)
    walk = _Walk(null)
    used = 0.0
    for index, (size, level) in enumerate(zip(sizes, levels)):
        walk.advance(size)
        tail = np.cumsum(walk.mass[::-1])[::-1] * _outwards(size)
        used += _OUTSIDE
        passing = tail <= level - used
        place = int(passing.argmax()) if passing.size and passing[-1] else len(tail)
        # Counts above the window are out of reach of a path that has not crossed, up to the mass already charged.
        thresholds[index] = min(walk.low + place, size + 1) if used <= level else size + 1
        used += float(tail[place]) if place < len(tail) else 0.0
        walk.cut(place)
    return thresholds


def crossing_probability(looks: Sequence[int], thresholds: Sequence[int] | IntArray, p: float) -> float:
    """P_p(k_i >= c_i at any look), rounded up: the exact error of thresholds at p = p0, their power above it.

    Args:
        looks: increasing sample sizes.
        thresholds: one count a look; above n_i for "never".
        p: true probability, strictly between 0 and 1.

    Raises:
        InputError: an argument out of range, lengths that differ.

    >>> print(f"{crossing_probability((50, 100), (37, 67), 0.5):.6f}")
    0.000843
    """
    sizes = _checked_looks(looks)
    counts = check.integers("thresholds", thresholds)
    if counts.shape != (len(sizes),):
        raise InputError(f"thresholds must hold one count for each of {len(sizes)} looks, but has shape {counts.shape}")
    walk = _Walk(check.scalar_open_unit("p", p))
    total = 0.0
    for size, count in zip(sizes, counts):
        walk.advance(size)
        place = min(max(int(count) - walk.low, 0), len(walk.mass))
        total += float(walk.mass[place:].sum()) * _outwards(size) + _OUTSIDE
        walk.cut(place)
    return min(total, 1.0)


@lru_cache(maxsize=16)
def sequential_table(looks: tuple[int, ...], nulls: tuple[float, ...], spent: tuple[float, ...]) -> NDArray[np.int64]:
    """Thresholds for many null hypotheses p <= p0_1, p <= p0_2, ... at once: int64 ``(len(looks), len(nulls))``.

    Guarantee: with probability at least 1 - spent[-1], *no* false hypothesis of the table is certified: for every j
    that is certified at any look, p > nulls[j]. No price is paid for the number of hypotheses.
    Proof (closed testing of nested hypotheses, Marcus, Peritz and Gabriel 1976): rows are made non-decreasing, so
    reaching entry (i, j) reaches (i, j') for all j' < j. Let j* be the first entry with p <= nulls[j*]; certifying any
    entry that is wrong means j >= j*, hence k_i >= the threshold of j* at that look, which has probability at most
    spent[-1] by :func:`sequential_thresholds` (raising a threshold only lowers it).

    Args:
        looks: increasing sample sizes.
        nulls: increasing probabilities, each strictly between 0 and 1.
        spent: as for :func:`sequential_thresholds`.

    Raises:
        InputError: as :func:`sequential_thresholds`; nulls that do not increase.
    """
    if any(left >= right for left, right in pairwise(nulls)):
        raise InputError("nulls must increase strictly")
    columns = [sequential_thresholds(looks, null, spent) for null in nulls]
    table = np.maximum.accumulate(np.stack(columns, axis=1), axis=1)
    table.setflags(write=False)
    return table


def hopeless(k: int, n: int, cap: int, target: int, risk: float = 0.01) -> bool:
    """Whether to give up: the count ``target`` at ``cap`` samples is out of reach, or very likely is.

    Out of reach when k plus all remaining samples stays below the target. Likely out of reach when, even with p at its
    upper Clopper-Pearson bound (level ``risk``), the target is reached with probability below 1/2. Giving up means
    abstaining, which is always sound: the guarantee never depends on this rule.

    Args:
        k: agreeing samples so far.
        n: samples so far, at least 1.
        cap: samples in all.
        target: count needed at the cap.
        risk: how readily to give up; 0 gives up only when the target is out of reach.

    >>> hopeless(30, 100, 1_000, 600), hopeless(55, 100, 1_000, 600)
    (True, False)
    """
    remaining, needed = cap - n, target - k
    if needed <= 0 or needed > remaining:
        return needed > 0
    if risk <= 0.0 or k >= n:
        return False
    upper = float(special.betainccinv(k + 1, n - k, risk))
    return bool(special.betainc(needed, remaining - needed + 1, upper) < 0.5)


class _Walk:
    """Distribution of the agreement count over the paths that are still running, on a window of counts."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.size = 0
        self.low = 0
        self.mass: FloatArray = np.ones(1)

    def advance(self, size: int) -> None:
        low, step = binomial_window(size - self.size, self.p)
        self.mass = np.convolve(self.mass, step) if len(self.mass) else self.mass
        self.low += low
        self.size = size

    def cut(self, place: int) -> None:
        """Keep counts below ``low + place``; drop the ends whose mass is below 1e-20 an entry."""
        kept = self.mass[:place]
        heavy = np.flatnonzero(kept > _NEGLIGIBLE)
        start, stop = (int(heavy[0]), int(heavy[-1]) + 1) if heavy.size else (0, 0)
        self.mass = kept[start:stop]
        self.low += start


def binomial_window(trials: int, p: float) -> tuple[int, FloatArray]:
    """Lowest count and probabilities of Bin(trials, p) where they are not negligible."""
    reach = 9.0 * math.sqrt(trials * p * (1.0 - p)) + 50.0
    low = max(0, math.floor(trials * p - reach))
    high = min(trials, math.ceil(trials * p + reach))
    k = np.arange(low, high + 1, dtype=np.float64)
    logs = special.gammaln(trials + 1.0) - special.gammaln(k + 1.0) - special.gammaln(trials - k + 1.0)
    return low, np.exp(logs + k * math.log(p) + (trials - k) * math.log1p(-p))


def _outwards(size: int) -> float:
    """Factor above the rounding of ``size`` samples' worth of probabilities made from log-gamma (about 3e-15 each)."""
    return 1.0 + 1e-9 + 1e-14 * size


def _checked_looks(looks: Sequence[int]) -> tuple[int, ...]:
    sizes = check.sample_size(np.asarray(looks), "looks")
    if sizes.ndim != 1 or not sizes.size or (np.diff(sizes) <= 0).any():
        raise InputError(f"looks must be increasing sample sizes, e.g. (100, 1000, 10000), but is {looks!r}")
    return tuple(int(size) for size in sizes)
