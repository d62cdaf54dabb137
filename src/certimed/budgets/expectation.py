"""What a budget costs and reaches for a known probability, exactly: for planning and for judging a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.budgets.evidence import ClassEvidence
from certimed.budgets.kinds import Budget, LookBudget
from certimed.errors import InputError
from certimed.statistics import minimum_count
from certimed.statistics.sequential import binomial_window

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Expectation:
    """Exact figures for an image whose class has probability p under noise.

    Attributes:
        samples: mean number of estimation samples.
        reached: for each reported radius, the probability of proving it.
        fixed: the same for a fixed budget of the cap's size at the same alpha.
        differs: for each reported radius, the probability that the two decisions differ when both see the same samples.
    """

    samples: float
    reached: tuple[float, ...]
    fixed: tuple[float, ...]
    differs: tuple[float, ...]


def expected(budget: Budget, p: float, alpha: float, sigma: float) -> Expectation:
    """Mean samples and probabilities of a one-sided budget with reported radii (looks, grid, betting).

    Dynamic programming over (radii proved so far, agreeing count) through the budget's own evidence and stopping rule;
    window ends below 1e-15 are neglected. These are forecasts for planning: no certificate depends on them.

    Args:
        budget: :class:`Looks`, :class:`Grid` or :class:`Betting`.
        p: probability of the selected class under noise, strictly between 0 and 1.
        alpha: failure probability of an image.
        sigma: noise standard deviation.

    Raises:
        InputError: p out of range, or a budget whose question is not a set of reported radii.
    """
    if not 0.0 < p < 1.0:
        raise InputError(f"p must lie strictly between 0 and 1, but is {p}")
    if not isinstance(budget, LookBudget) or not budget.reported_radii:
        raise InputError(f"budget {budget} has no reported radii; use looks, grid or betting")
    chart = _chart(budget, budget.reported_radii, alpha, sigma)
    return chart.walk(p)


@dataclass(frozen=True, eq=False)
class _Chart:
    """Count boundaries of every look: from ``proves[i, m]`` radius m is proved, below ``gives_up[i, m]`` given up."""

    looks: tuple[int, ...]
    proves: NDArray[np.int64]
    gives_up: NDArray[np.int64]
    fixed: tuple[int, ...]

    def walk(self, p: float) -> Expectation:
        levels = len(self.fixed)
        running: list[Array] = [np.ones(1)] + [np.zeros(1)] * levels
        low, before, samples = 0, 0, 0.0
        reached, differs = np.zeros(levels), np.zeros(levels)
        for look, size in enumerate(self.looks):
            start, step = binomial_window(size - before, p)
            low, before = low + start, size
            spread = [
                np.convolve(mass, step) if mass.any() else np.zeros(len(mass) + len(step) - 1) for mass in running
            ]
            counts = low + np.arange(len(spread[0]))
            moved = self._promote(spread, look, counts)
            stop = [self._stops(look, level, counts) for level in range(levels + 1)]
            for level, (mass, where) in enumerate(zip(moved, stop)):
                done = np.where(where, mass, 0.0)
                samples += size * float(done.sum())
                reached[:level] += done.sum()
                differs += self._differences(done, level, counts, size, p)
            running = [np.where(where, 0.0, mass) for mass, where in zip(moved, stop)]
            running, low = _trim(running, low)
        fixed = tuple(float(special.bdtrc(count - 1, self.looks[-1], p)) for count in self.fixed)
        return Expectation(samples, tuple(reached.tolist()), fixed, tuple(differs.tolist()))

    def _promote(self, spread: list[Array], look: int, counts: NDArray[np.int64]) -> list[Array]:
        level_of = (counts[:, None] >= self.proves[look]).sum(axis=1)
        moved = [np.zeros(len(counts)) for _ in spread]
        for level, mass in enumerate(spread):
            to = np.maximum(level_of, level)
            for target in range(level, len(spread)):
                moved[target] += np.where(to == target, mass, 0.0)
        return moved

    def _stops(self, look: int, level: int, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        if look == len(self.looks) - 1 or level == len(self.fixed):
            return np.ones(len(counts), dtype=bool)
        return np.asarray(counts < self.gives_up[look, level])

    def _differences(self, done: Array, level: int, counts: NDArray[np.int64], size: int, p: float) -> Array:
        where = np.flatnonzero(done)
        result = np.zeros(len(self.fixed))
        remaining = self.looks[-1] - size
        for radius, count in enumerate(self.fixed):
            needed = count - counts[where]
            inside = np.clip(needed, 1, max(remaining, 1))
            passes = special.betainc(inside, max(remaining, 1) - inside + 1, p)
            passes = np.where(needed <= 0, 1.0, np.where(needed > remaining, 0.0, passes))
            result[radius] = done[where] @ (1.0 - passes if radius < level else passes)
        return result


@lru_cache(maxsize=16)
def _chart(budget: LookBudget, radii: tuple[float, ...], alpha: float, sigma: float) -> _Chart:
    evidence = budget.evidence(2, 0, alpha, sigma, "one-sided", 0.0)
    proves = [[_first_proof(evidence, look, radius) for radius in radii] for look in range(len(evidence.looks))]
    gives_up = [[_first_hope(evidence, size, radius) for radius in radii] for size in evidence.looks]
    cap = evidence.looks[-1]
    alone = [minimum_count(cap, p, alpha) if (p := float(special.ndtr(r / sigma))) < 1 else None for r in radii]
    fixed = tuple(cap + 1 if count is None else count for count in alone)
    return _Chart(evidence.looks, np.array(proves), np.array(gives_up), fixed)


def _first_proof(evidence: ClassEvidence, look: int, radius: float) -> int:
    size = evidence.looks[look]
    return _bisect(size, lambda k: evidence.bound(look, np.array([k, size - k])).radius > radius)


def _first_hope(evidence: ClassEvidence, size: int, radius: float) -> int:
    return _bisect(size, lambda k: not evidence.gives_up(np.array([k, size - k]), radius))


def _bisect(size: int, holds: Callable[[int], bool]) -> int:
    """Smallest count 0..size for which a rule holds that holds for all larger counts; size + 1 if for none."""
    failing, holding = -1, size + 1
    while holding - failing > 1:
        middle = (failing + holding) // 2
        failing, holding = (failing, middle) if holds(middle) else (middle, holding)
    return holding


def _trim(masses: list[Array], low: int) -> tuple[list[Array], int]:
    heavy = np.flatnonzero(np.sum(masses, axis=0) > 1e-18)
    if not heavy.size:
        return [np.zeros(1) for _ in masses], low
    start, stop = int(heavy[0]), int(heavy[-1]) + 1
    return [mass[start:stop] for mass in masses], low + start


def mean_over(
    budget: Budget, probabilities: Array, weights: Array, alpha: float, sigma: float
) -> tuple[float, Array, Array, Array]:
    """:func:`expected` averaged over images: mean samples, and per reported radius reached, fixed and differs.

    Args:
        probabilities, weights: what kinds of images there are, equal shapes (m,); the weights are normalised.

    Raises:
        InputError: as :func:`expected`; shapes that differ or weights that do not sum to a positive number.
    """
    total = float(np.sum(weights))
    if probabilities.shape != weights.shape or not (math.isfinite(total) and total > 0):
        raise InputError("probabilities and weights must have one shape, and the weights a positive sum")
    each = [expected(budget, float(p), alpha, sigma) for p in probabilities]
    share = weights / total
    columns = [np.array([getattr(one, name) for one in each]) for name in ("reached", "fixed", "differs")]
    samples = float(share @ np.array([one.samples for one in each]))
    return samples, *(np.asarray(share @ column, dtype=np.float64) for column in columns)  # type: ignore[return-value]
