"""What class counts prove at each look: three ways to spend one failure probability over many looks.

``variation`` is the largest difference between a class's probability under the noise that is drawn and under the exact
law (:meth:`certimed.noise.NoiseLaw.variation`). Counts are of the noise that is drawn, claims are about the exact law:
lower bounds are lowered by it, upper bounds and tested probabilities are raised by it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from certimed.errors import InputError
from certimed.statistics import (
    ClassBound,
    class_bound,
    clopper_pearson_lower,
    clopper_pearson_upper,
    minimum_count,
    radius_ceiling,
    radius_from_lower,
    samples_for_radius,
    upper_more,
)
from certimed.statistics.betting import betting_thresholds
from certimed.statistics.sequential import crossing_probability, hopeless, sequential_table, spending

Counts = NDArray[np.int64]

RISK = 0.01
"""Level of the upper bound on p at which a budget gives up on a radius (``statistics.sequential.hopeless``)."""

_LADDER_STEP = 0.01


class ClassEvidence(ABC):
    """Looks, and what may be claimed at each; ``counts`` are cumulative over the estimation samples, int64 (K,).

    Args:
        looks: increasing sample sizes.
        classes: K.
        top: the class chosen on the selection samples.
        sigma: noise standard deviation, in the units of the radii.
        bound: name of the bound.
        variation: see the module's docstring.
    """

    def __init__(
        self, looks: tuple[int, ...], classes: int, top: int, sigma: float, bound: str, variation: float
    ) -> None:
        self.looks, self._classes, self._top = looks, classes, top
        self._sigma, self._method, self._variation = sigma, bound, variation

    def checked(self, counts: ArrayLike, before: Counts | None) -> tuple[Counts, int]:
        """See :class:`certimed.budgets.session.Evidence`."""
        array = np.asarray(counts)
        if array.shape != (self._classes,) or array.dtype.kind not in "iu":
            raise InputError(
                f"counts must be {self._classes} integers, one a class, but have shape {array.shape} and "
                f"dtype {array.dtype}"
            )
        array = array.astype(np.int64)
        if (before is not None and (array < before).any()) or (array < 0).any():
            raise InputError("counts must be cumulative over the estimation samples, but a class's count has fallen")
        return array, int(array.sum())

    def nothing(self) -> ClassBound:
        """See :class:`certimed.budgets.session.Evidence`."""
        return nothing_proved(self._method)

    @abstractmethod
    def bound(self, look: int, counts: Counts) -> ClassBound:
        """What the counts prove at look number ``look``. All looks together fail with probability at most alpha."""

    @abstractmethod
    def gives_up(self, counts: Counts, radius: float) -> bool:
        """Whether a radius above ``radius`` at the last look is out of reach or very unlikely. Never a claim."""

    def better(self, new: ClassBound, old: ClassBound) -> bool:
        """The larger radius counts; of two abstentions the later one, which saw more."""
        return new.radius > old.radius or (new.abstained and old.abstained)

    def trace(self, look: int, counts: Counts, bound: ClassBound) -> tuple[int, ...]:
        """Samples seen, how many agree with the class, and the count of its strongest rival: all a bound depends on."""
        return int(counts.sum()), int(counts[self._top]), int(np.delete(counts, self._top).max())


class SplitEvidence(ClassEvidence):
    """Any bound of :func:`certimed.statistics.class_bound` at each look, at that look's share of alpha.

    Guarantee: look i fails with probability at most shares[i], so all looks together, and whichever look is
    reported, with at most their sum alpha (union bound). One look with all of alpha is the published procedure.
    """

    def __init__(self, looks: tuple[int, ...], shares: tuple[float, ...], *about: Any) -> None:
        super().__init__(looks, *about)
        self._shares = shares

    def bound(self, look: int, counts: Counts) -> ClassBound:
        return class_bound(counts, self._top, self._shares[look], self._sigma, self._method, self._variation)

    def gives_up(self, counts: Counts, radius: float) -> bool:
        best_case = _best_case(counts, self._top, self.looks[-1])
        return class_bound(best_case, self._top, self._shares[-1], self._sigma, self._method).radius <= radius


class LadderEvidence(ClassEvidence):
    """One-sided bound read off a ladder of probabilities, tested one above the other with exact thresholds.

    Guarantee: with probability at least 1 - alpha every claim at every look is right, by
    :func:`certimed.statistics.sequential.sequential_table`. The rungs are all reported radii and every hundredth of
    sigma, so a radius between two reported ones is not lost.

    Args:
        power: of the alpha spending; see :func:`certimed.statistics.sequential.spending`.
        radii: radii that must be rungs; each rung's radius exceeds them by a hair, so that "radius > r" holds.
    """

    def __init__(self, looks: tuple[int, ...], power: float, alpha: float, radii: Sequence[float], *about: Any) -> None:
        super().__init__(looks, *about)
        sigma = self._sigma
        ceiling = float(radius_ceiling(looks[-1], alpha, 1.0))
        rungs = [rung for rung in _rungs(ceiling)] if ceiling > 0 else []
        wanted = [probability_above(r, sigma) for r in radii if r / sigma < ceiling]
        self._nulls = tuple(sorted({*rungs, *wanted}))
        self._radii = radius_from_lower(np.asarray(self._nulls), sigma)
        tested = tuple(float(upper_more(null, self._variation)) for null in self._nulls)
        self._table = sequential_table(looks, tested, spending(looks, alpha, power))

    def bound(self, look: int, counts: Counts) -> ClassBound:
        rung = int(np.searchsorted(self._table[look], counts[self._top], side="right")) - 1
        if rung < 0:
            return self.nothing()
        return ClassBound(self._nulls[rung], None, float(self._radii[rung]), False, "one-sided")

    def gives_up(self, counts: Counts, radius: float) -> bool:
        rung = int(np.searchsorted(self._radii, radius, side="right"))
        target = int(self._table[-1, rung]) if rung < len(self._radii) else self.looks[-1] + 1
        return hopeless(int(counts[self._top]), int(counts.sum()), self.looks[-1], target, RISK)


class BettingEvidence(ClassEvidence):
    """One radius, decided by a bettor's wealth at any look, or by the count at the cap.

    Guarantee: with probability at least 1 - alpha the claim "robust at this radius" is right, at whatever times the
    counts are looked at. Proof: the wealth test, at level alpha / 2, crosses by the cap with a probability a at p = p0
    that is computed exactly and is at most alpha / 2 (:func:`certimed.statistics.betting.betting_thresholds`); the
    count at the cap is tested at alpha - a (:func:`certimed.statistics.minimum_count`); union bound, and both
    probabilities are largest at p0. As a is small, the cap keeps nearly the strength of a fixed budget.
    """

    def __init__(self, looks: tuple[int, ...], alpha: float, radius: float, *about: Any) -> None:
        super().__init__(looks, *about)
        sigma = self._sigma
        if not radius / sigma < float(radius_ceiling(looks[-1], alpha / 2, 1.0)):
            needed = samples_for_radius(max(radius, 1e-6 * sigma), sigma, alpha / 2) if radius / sigma < 6 else None
            raise InputError(
                f"n={looks[-1]} cannot certify radius={radius:g} at sigma={sigma:g} and alpha={alpha:g}; "
                + (f"use n >= {needed + 1}" if needed else "use a larger sigma")
            )
        null = probability_above(radius, sigma)
        self._wealth, self._final = _betting_table(looks[-1], float(upper_more(null, self._variation)), alpha)
        self._claim = ClassBound(null, None, float(radius_from_lower(null, sigma)), False, "one-sided")

    def bound(self, look: int, counts: Counts) -> ClassBound:
        k, n = int(counts[self._top]), self.looks[look]
        proved = k >= self._wealth[n] or (n == self.looks[-1] and k >= self._final)
        return self._claim if proved else self.nothing()

    def gives_up(self, counts: Counts, radius: float) -> bool:
        if radius >= self._claim.radius:
            return True
        return hopeless(int(counts[self._top]), int(counts.sum()), self.looks[-1], self._final, RISK)


def nothing_proved(method: str) -> ClassBound:
    """The bound of an abstention."""
    return ClassBound(0.0, None, 0.0, True, method)  # type: ignore[arg-type]


def probability_above(radius: float, sigma: float) -> float:
    """A probability whose certified radius exceeds ``radius`` by a hair: Phi(radius / sigma), nudged upwards."""
    p = float(special.ndtr(radius / sigma)) * (1.0 + 1e-12)
    while p < 1.0 and float(radius_from_lower(p, sigma)) <= radius:
        p += max(1e-12 * (1.0 - p), 2e-16)
    if p >= 1.0:
        raise InputError(f"radius={radius:g} is beyond float64 at sigma={sigma:g}; use a larger sigma")
    return p


def _best_case(counts: Counts, top: int, cap: int) -> Counts:
    """Counts at the cap if the top class keeps its upper bound's share, and its strongest rival its lower bound's."""
    n = int(counts.sum())
    remaining = cap - n
    if remaining == 0:
        return counts
    high = float(clopper_pearson_upper(int(counts[top]), n, RISK))
    top_count = int(counts[top]) + min(math.ceil(remaining * high), remaining)
    others = np.delete(counts, top)
    rival = int(others.argmax())
    low = float(clopper_pearson_lower(int(others[rival]), n, RISK))
    rival_count = min(int(others[rival]) + math.floor(remaining * low), cap - top_count)
    rest = np.full(others.shape, 1.0 / max(others.size - 1, 1))
    rest[rival] = 0.0
    left = cap - top_count - rival_count
    if others.size == 1:
        rival_count, left = rival_count + left, 0
    best = _with_rest(top, top_count + rival_count, rest, cap) if left else np.zeros_like(counts)
    best[top] = top_count
    best[rival + (rival >= top)] += rival_count
    return best


def _with_rest(top: int, top_count: int, share: NDArray[np.float64], cap: int) -> Counts:
    """``top_count`` for the top class, the rest of ``cap`` by shares over the other classes, summing to ``cap``."""
    edges = np.rint(np.cumsum(share) / share.sum() * (cap - top_count)).astype(np.int64)
    return np.insert(np.diff(edges, prepend=0), top, top_count)


@lru_cache(maxsize=8)
def _rungs(ceiling: float) -> tuple[float, ...]:
    return tuple(probability_above(step * _LADDER_STEP, 1.0) for step in range(math.ceil(ceiling / _LADDER_STEP)))


@lru_cache(maxsize=64)
def _betting_table(n: int, null: float, alpha: float) -> tuple[NDArray[np.int64], int]:
    wealth = betting_thresholds(n, null, alpha / 2)
    crossed = crossing_probability(range(1, n + 1), wealth[1:], null)
    final = minimum_count(n, null, alpha - crossed)
    return wealth, n + 1 if final is None else final
