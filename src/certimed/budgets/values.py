"""What sorted values of a measurement prove at each look, and when to stop drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.budgets.evidence import RISK
from certimed.budgets.kinds import Budget, Looks, look_shares
from certimed.budgets.session import Question, Session
from certimed.budgets.stops import Stop
from certimed.errors import InputError
from certimed.statistics.multiplicity import alpha_split
from certimed.statistics.order import end_index, samples_for_end

Ends: TypeAlias = NDArray[np.float64]
"""float64 ``(measurements, radii, 2)``: lower and upper ends; infinite where nothing is proved."""


class Values(NamedTuple):
    """Values on ``n`` noisy copies, in the order drawn: float64 ``(measurements, n)``, NaN where not defined."""

    n: int
    values: NDArray[np.float64]


ValueSession: TypeAlias = Session[Values, Ends]


@dataclass(frozen=True)
class Goal:
    """What is asked of one measurement, at the largest radius; free to be anything, since stopping claims nothing.

    Attributes:
        width: the interval is to be at most so wide.
        threshold: the interval is to lie above or below this number.
    """

    width: float | None = None
    threshold: float | None = None

    @property
    def asked(self) -> bool:
        """Whether anything is."""
        return self.width is not None or self.threshold is not None

    def met(self, lower: float, upper: float) -> bool:
        """Whether an interval answers what is asked."""
        narrow = self.width is None or upper - lower <= self.width
        return narrow and (self.threshold is None or lower > self.threshold or upper < self.threshold)

    def hopeless(self, low: float, high: float) -> bool:
        """Whether no interval around [low, high] answers what is asked."""
        wide = self.width is not None and high - low > self.width
        return wide or (self.threshold is not None and low <= self.threshold <= high)


def goals(thresholds: Mapping[str, float] | None, widths: Mapping[str, float] | None) -> dict[str, Goal]:
    """What is asked of measurements, by name; InputError for numbers that ask nothing."""
    found = {}
    for name in {**(thresholds or {}), **(widths or {})}:
        width, threshold = (widths or {}).get(name), (thresholds or {}).get(name)
        if (width is not None and not 0 < width < math.inf) or not math.isfinite(threshold or 0.0):
            raise InputError(f"width={width} and threshold={threshold} of {name}: a width must be above 0, both finite")
        found[name] = Goal(width, threshold)
    return found


def start_interval(
    budget: Budget,
    shares: Sequence[float],
    alpha: float,
    goals: Sequence[Goal],
    variation: float = 0.0,
) -> ValueSession:
    """Begin one image whose answer is an interval for each of some measurements.

    Args:
        budget: :class:`~certimed.budgets.Fixed`, or one with preset looks: :class:`~certimed.budgets.Looks` (its radii
            are of classes and must not be given), :class:`~certimed.budgets.PixelLooks`.
        shares: Phi(R / sigma) of each radius R, rounded up, rising.
        alpha: failure probability of all ends of all measurements, all looks together.
        goals: one for each measurement.
        variation: see :mod:`certimed.statistics.order`.

    Raises:
        InputError: an argument out of range, looks with nothing to stop for, or a radius at which the cap leaves an end
            infinite (the message names the n that would do).
    """
    sizes = budget.value_looks()
    if len(sizes) > 1 and isinstance(budget, Looks) and not any(goal.asked for goal in goals):
        raise InputError(
            f"budget {budget} looks {len(sizes)} times, which costs width, and nothing says when to stop; name a width "
            "or a threshold, or use a fixed number of samples"
        )
    evidence = ValueEvidence(sizes, shares, alpha, len(goals), variation)
    question: Question[Values, Ends] = Settled(evidence, goals)
    return Session(evidence, question)


class ValueEvidence:
    """Order statistics at each look, at that look's share of alpha.

    Guarantee: half of alpha goes to the last look, the rest equally to the others, and each share equally to the two
    ends of every radius of every measurement; each end fails with at most its own share
    (:func:`certimed.statistics.order.end_index`). So by the union bound no end of any look fails with probability at
    least 1 - alpha, whatever rule decides which look is the last; the last look held is what counts. An undefined value
    counts as -infinity for lower ends and as +infinity for upper ends, which makes both of a total function.
    """

    def __init__(
        self, looks: tuple[int, ...], shares: Sequence[float], alpha: float, measurements: int, variation: float
    ) -> None:
        self.looks, self.shares, self.measurements, self.variation = looks, tuple(shares), measurements, variation
        if not shares or not measurements:
            raise InputError("an interval needs at least one measurement and one radius")
        self.levels = tuple(end_level(look, measurements, len(shares)) for look in look_shares(len(looks), alpha))
        for share in shares:
            if share >= 1.0 or end_index(looks[-1], share, self.levels[-1], variation) is None:
                n = samples_for_end(share, self.levels[-1], variation) if share < 1.0 else None
                remedy = f"use n >= {n}" if n is not None else "use a smaller radius or a larger sigma"
                raise InputError(
                    f"n={looks[-1]} samples leave the interval infinite at a radius whose probability Phi(R / sigma) "
                    f"is {share:.6g}, at level {self.levels[-1]:.3g} an end; {remedy}"
                )

    def checked(self, counts: Values, before: Values | None) -> tuple[Values, int]:
        """See :class:`certimed.budgets.session.Evidence`."""
        n, values = counts
        if values.shape != (self.measurements, n) or values.dtype != np.float64:
            raise InputError(f"values must be float64 of shape {(self.measurements, n)}, but are {values.shape}")
        if before is not None and not np.array_equal(values[:, : before.n], before.values, equal_nan=True):
            raise InputError(f"values of {n} samples do not go on from those of {before.n}; pass all of them, in order")
        return counts, n

    def nothing(self) -> Ends:
        """See :class:`certimed.budgets.session.Evidence`."""
        ends = np.full((self.measurements, len(self.shares), 2), np.inf)
        ends[..., 0] = -np.inf
        return ends

    def bound(self, look: int, counts: Values) -> Ends:
        """See :class:`certimed.budgets.session.Evidence`."""
        ends = self.nothing()
        for row, values in enumerate(counts.values):
            ordered = np.sort(values[~np.isnan(values)])
            for column, share in enumerate(self.shares):
                place = end_index(counts.n, share, self.levels[look], self.variation)
                ends[row, column] = ends_at(ordered, counts.n, place)
        return ends

    def better(self, new: Ends, old: Ends) -> bool:
        """The last look held is what counts."""
        return True

    def trace(self, look: int, counts: Values, bound: Ends) -> tuple[int, ...]:
        """Samples seen: the claim holds the values, and an end is the value at a place that follows from n."""
        return (counts.n,)


class Settled:
    """Stop when every goal is met or very unlikely to be; without goals every sample is used."""

    def __init__(self, evidence: ValueEvidence, goals: Sequence[Goal]) -> None:
        self._evidence, self._goals = evidence, tuple(goals)

    def decide(self, look: int, counts: Values, bound: Ends) -> Stop | None:
        """See :class:`certimed.budgets.session.Question`."""
        last = look == len(self._evidence.looks) - 1
        asked = [(row, goal) for row, goal in enumerate(self._goals) if goal.asked]
        met = [goal.met(*bound[row, -1].tolist()) for row, goal in asked]
        if asked and all(met):
            return Stop("answered")
        if last or not asked:
            return Stop("cap reached") if last else None
        open_ = [pair for pair, done in zip(asked, met) if not done]
        if all(goal.hopeless(*self._certainly_inside(counts, row)) for row, goal in open_):
            return Stop("answered" if any(met) else "futile")
        return None

    def _certainly_inside(self, counts: Values, row: int) -> tuple[float, float]:
        """What every certified interval will very likely contain: bounds of the two quantiles from inside.

        The hi-quantile is below X_(j) with probability at most P[Bin(n, hi) <= j - 1]; never a claim.
        """
        values, n, share = counts.values[row], counts.n, self._evidence.shares[-1]
        places = np.flatnonzero(special.bdtr(np.arange(n, dtype=np.float64), n, share) <= RISK)
        if not places.size:
            return math.inf, -math.inf
        return ends_at(np.sort(values[~np.isnan(values)]), n, int(places[-1]) + 1)


def end_level(level: float, measurements: int, radii: int) -> float:
    """What one end may spend of the failure probability of a look."""
    return float(alpha_split(level, 2 * measurements * radii)[0])


def ends_at(ordered: NDArray[np.float64], n: int, place: int | None) -> tuple[float, float]:
    """Lower and upper end: the values at ``n + 1 - place`` and ``place``, from 1, of n of which some are undefined.

    Args:
        ordered: the defined values, rising.
        n: all of them.
        place: None: both are infinite.
    """
    undefined = n - len(ordered)
    if place is None:
        return -math.inf, math.inf
    low, high = n + 1 - place - undefined, place
    return (
        float(ordered[low - 1]) if low >= 1 and len(ordered) >= low else -math.inf,
        float(ordered[high - 1]) if 1 <= high <= len(ordered) else math.inf,
    )
