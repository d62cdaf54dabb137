"""The error of whole sessions, exactly: every path of counts is played through the real budget and weighted.

For each true probability the chance of ever reporting a radius above the true one is summed over all paths, so a wrong
stopping rule, a wrong share of alpha or a wrong threshold shows, whichever of them it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import special, stats

from certimed.budgets import Betting, Budget, Fixed, Grid, Looks, Planned, Session, kinds, planning
from certimed.errors import InputError

ALPHA = 0.1
SIGMA = 1.0
SMALL = (8, 16, 28, 40)


@pytest.fixture(autouse=True)
def small_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default looks start at 64; these make several looks enumerable."""

    def sizes(cap: int, first: int = 8, ratio: float = 1.25, multiple: int = 8) -> tuple[int, ...]:
        return (*(size for size in SMALL if size < cap), cap)

    monkeypatch.setattr(kinds, "look_sizes", sizes)


def paths(start: Callable[[], Session], classes: int = 2) -> Iterator[tuple[list[np.ndarray], float]]:
    """Every way the samples can come, batch by batch, with the radius reported at its end."""

    def play(batches: list[np.ndarray]) -> tuple[Session, np.ndarray, int]:
        session, counts = start(), np.zeros(classes, dtype=np.int64)
        session.next(counts)
        for batch in batches:
            counts = counts + batch
            more = session.next(counts)
        return session, counts, more if batches else session.next(counts)

    stack: list[list[np.ndarray]] = [[]]
    while stack:
        batches = stack.pop()
        session, counts, more = play(batches)
        if more == 0:
            bound = session.finish(counts).bound
            assert bound.abstained == (bound.radius == 0.0)
            yield batches, bound.radius
        else:
            stack += [[*batches, batch] for batch in all_counts(more, classes)]


def all_counts(n: int, classes: int) -> Iterator[np.ndarray]:
    if classes == 1:
        yield np.array([n])
        return
    for first in range(n + 1):
        for rest in all_counts(n - first, classes - 1):
            yield np.array([first, *rest])


BUDGETS: list[Budget] = [
    Fixed(24),
    Looks((8, 16, 28), radii=(0.0, 0.5, 1.0)),
    Looks((8, 16, 28, 40), radii=(0.3,)),
    Grid((0.0, 0.3, 0.7), n=40),
    Grid((0.5,), n=28),
    Betting(0.3, n=40),
    Betting(0.0, n=28),
    Planned(0.05, 0.0, n=28),
    Planned(0.3, 0.2, n=40),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_radius_above_the_true_one_is_reported_with_probability_at_most_alpha(budget: Budget) -> None:
    outcomes = list(paths(lambda: budget.start(np.array([9, 1]), ALPHA, SIGMA)))
    length = max(len(batches) for batches, _ in outcomes)
    hits = np.zeros((len(outcomes), length), dtype=np.int64)
    sizes = np.zeros_like(hits)
    for row, (batches, _) in enumerate(outcomes):
        hits[row, : len(batches)] = [batch[0] for batch in batches]
        sizes[row, : len(batches)] = [batch.sum() for batch in batches]
    radii = np.array([radius for _, radius in outcomes])
    assert radii.max() > 0
    worst = 0.0
    # The worst cases are true probabilities just at a claimed radius; the rest of the grid is for surprises.
    claims = special.ndtr(np.unique(radii[radii > 0]) * (1 - 1e-9))
    for p in np.unique([0.2, 0.4, 0.5, *claims[:: max(len(claims) // 40, 1)], *np.linspace(0.5, 0.99, 20)]):
        weight = np.prod(stats.binom.pmf(hits, sizes, p), axis=1)
        assert weight.sum() == pytest.approx(1.0)
        true_radius = max(SIGMA * float(special.ndtri(p)), 0.0)
        worst = max(worst, float(weight[radii > true_radius].sum()))
    assert 0.01 * ALPHA < worst <= ALPHA


def test_planning_from_the_selection_costs_no_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, over every selection count, its class and its size, times every estimation count."""
    monkeypatch.setattr(planning, "plan_sizes", lambda cap: (8, 13, 21, cap))
    planning._forecast.cache_clear()
    planning.planned_size.cache_clear()
    budget, n0 = Planned(0.2, 0.2, n=40), 15
    planned = {k: budget.plan(max(k, n0 - k), n0, ALPHA, SIGMA) for k in range(n0 + 1)}
    assert len(set(planned.values())) > 1
    radii = {}
    for k, size in planned.items():
        sessions = [budget.start(np.array([k, n0 - k]), ALPHA, SIGMA) for _ in range(size + 1)]
        first = 1 if k >= n0 - k else -1  # which class was selected
        counts = [np.array([hits, size - hits][::first]) for hits in range(size + 1)]
        radii[k] = np.array([session.finish(count).bound.radius for session, count in zip(sessions, counts)])
    worst = 0.0
    for p in np.unique([*np.linspace(0.02, 0.98, 49), 0.5, *(ALPHA ** (1 / n) * (1 - 1e-9) for n in (8, 13, 21, 40))]):
        wrong = 0.0
        for k, chance in enumerate(stats.binom.pmf(np.arange(n0 + 1), n0, p)):
            share = p if k >= n0 - k else 1 - p
            hits = stats.binom.pmf(np.arange(planned[k] + 1), planned[k], share)
            wrong += chance * float(hits[radii[k] > max(SIGMA * special.ndtri(share), 0.0)].sum())
        worst = max(worst, wrong)
    planning._forecast.cache_clear()
    planning.planned_size.cache_clear()
    assert 0.3 * ALPHA < worst <= ALPHA


@pytest.mark.parametrize("bound", ["two-sided", "best"])
@pytest.mark.parametrize("budget", [Looks((8, 14), radii=(0.0, 0.4)), Grid((0.0, 0.4), n=14)], ids=str)
def test_two_sided_claims_on_three_classes(budget: Budget, bound: str) -> None:
    outcomes = list(paths(lambda: budget.start(np.array([9, 1, 0]), ALPHA, SIGMA, bound), classes=3))
    assert max(radius for _, radius in outcomes) > 0
    for p in ([0.34, 0.33, 0.33], [0.4, 0.4, 0.2], [0.5, 0.5, 0.0], [0.7, 0.3, 0.0], [0.6, 0.2, 0.2], [0.2, 0.7, 0.1]):
        true_radius = max(SIGMA / 2 * float(special.ndtri(p[0]) - special.ndtri(max(p[1:]))), 0.0)
        wrong = sum(
            np.prod([stats.multinomial.pmf(batch, int(batch.sum()), p) for batch in batches])
            for batches, radius in outcomes
            if radius > true_radius
        )
        assert wrong <= ALPHA


def test_stopping_at_will_is_covered_too() -> None:
    """A caller who stops as soon as anything is proved gains nothing: all looks are paid for."""
    budget = Grid((0.0, 0.3, 0.7), n=40)
    p = 0.5
    running, wrong = {0: 1.0}, 0.0
    evidence = budget.evidence(2, 0, ALPHA, SIGMA, "one-sided", 0.0)
    for look, (size, before) in enumerate(zip(evidence.looks, (0, *evidence.looks))):
        step = stats.binom.pmf(np.arange(size - before + 1), size - before, p)
        following: dict[int, float] = {}
        for count, mass in running.items():
            for more, chance in enumerate(step):
                following[count + more] = following.get(count + more, 0.0) + mass * chance
        proved = {k for k in following if not evidence.bound(look, np.array([k, size - k])).abstained}
        wrong += sum(following.pop(k) for k in proved)
        running = following
    assert 0.3 * ALPHA < wrong <= ALPHA


VARIED = [
    Fixed(24),
    Looks((8, 16, 28), radii=(0.0, 0.5)),
    Grid((0.0, 0.3, 0.7), n=28),
    Betting(0.3, n=40),
    Planned(0.3, 0.2, n=40),
]


@pytest.mark.parametrize("budget", VARIED, ids=str)
def test_claims_hold_for_the_exact_law_although_the_noise_that_is_drawn_is_off(budget: Budget) -> None:
    """Every path under a class probability of p + v is weighted, and claims are held against p."""
    v = 0.04

    def errors(charged: float) -> tuple[float, float]:
        outcomes = list(paths(lambda: budget.start(np.array([9, 1]), ALPHA, SIGMA, variation=charged)))
        worst = 0.0
        claims = special.ndtr(np.unique([radius for _, radius in outcomes if radius > 0]) * (1 - 1e-9))
        for p in np.unique([0.5, *claims[:: max(len(claims) // 30, 1)], 0.7, 0.8]):
            p = min(p, 1 - v)
            wrong = [batches for batches, radius in outcomes if radius > max(SIGMA * float(special.ndtri(p)), 0.0)]
            weights = [np.prod([stats.binom.pmf(b[0], b.sum(), p + v) for b in batches]) for batches in wrong]
            worst = max(worst, float(np.sum(weights)))
        return worst, max(radius for _, radius in outcomes)

    (worst, reach), (unpaid, _) = errors(v), errors(0.0)
    assert worst <= ALPHA and worst < unpaid
    assert reach > 0


def test_variation_shrinks_a_claim_by_hardly_anything_where_it_is_small() -> None:
    for budget in VARIED:
        claims = []
        for v in (0.0, 1e-9):
            session, counts = budget.start(np.array([9, 1]), ALPHA, SIGMA, variation=v), np.zeros(2, dtype=np.int64)
            claims.append(session.run(lambda start, n: np.array([start + n, 0]), counts).bound)
        exact, charged = claims
        assert exact.radius * (1 - 1e-6) <= charged.radius <= exact.radius
        assert charged.p_lower <= exact.p_lower
    with pytest.raises(InputError, match="variation"):
        Grid().start(np.array([9, 1]), ALPHA, SIGMA, variation=-0.1)
