"""Sequential thresholds: exact error at the worst case by dynamic programming, against independent walks."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy import special, stats

from certimed.errors import InputError
from certimed.statistics import minimum_count
from certimed.statistics.sequential import (
    crossing_probability,
    hopeless,
    look_sizes,
    sequential_table,
    sequential_thresholds,
    spending,
)

ALPHA = 0.001


def exact_thresholds(looks: tuple[int, ...], p0: Fraction, spent: tuple[float, ...]) -> tuple[list[int], Fraction]:
    """Thresholds and total crossing probability in rational arithmetic, one sample at a time."""
    running = {0: Fraction(1)}
    used, size, thresholds = Fraction(0), 0, []
    for look, level in zip(looks, spent):
        for _ in range(look - size):
            following: dict[int, Fraction] = {}
            for count, mass in running.items():
                following[count] = following.get(count, Fraction(0)) + mass * (1 - p0)
                following[count + 1] = following.get(count + 1, Fraction(0)) + mass * p0
            running = following
        size = look
        threshold, tail = max(running) + 1, Fraction(0)
        while threshold - 1 in running and used + tail + running[threshold - 1] <= Fraction(level):
            threshold -= 1
            tail += running.pop(threshold)
        used += tail
        thresholds.append(threshold)
    return thresholds, used


def crossing_one_by_one(looks: tuple[int, ...], thresholds: np.ndarray, p: float) -> float:
    """The same probability with the whole range of counts kept and one sample a step."""
    mass, crossed = np.ones(1), 0.0
    at = dict(zip(looks, thresholds))
    for size in range(1, looks[-1] + 1):
        mass = np.append(mass * (1 - p), 0.0) + np.append(0.0, mass * p)
        if size in at:
            crossed += mass[at[size] :].sum()
            mass[at[size] :] = 0.0
    return float(crossed)


@pytest.mark.parametrize("p0", [Fraction(1, 2), Fraction(3, 4), Fraction(97, 100)])
@pytest.mark.parametrize("looks", [(5, 10, 20, 40), (30, 31, 60), (64,), tuple(range(1, 41))])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_thresholds_are_the_smallest_exact_ones(looks: tuple[int, ...], p0: Fraction, alpha: float) -> None:
    spent = spending(looks, alpha, 0.5)
    wanted, used = exact_thresholds(looks, p0, spent)
    got = sequential_thresholds(looks, float(p0), spent)
    np.testing.assert_array_equal(got, wanted)
    assert used <= Fraction(alpha)
    assert crossing_probability(looks, got, float(p0)) == pytest.approx(float(used), rel=1e-8, abs=1e-13)
    assert crossing_probability(looks, got, float(p0)) >= float(used)


@pytest.mark.parametrize("z", [0.0, 0.4, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_published_size_error_at_the_worst_case_is_at_most_alpha(z: float, power: float) -> None:
    looks, p0 = look_sizes(10_000), float(special.ndtr(z))
    thresholds = sequential_thresholds(looks, p0, spending(looks, ALPHA, power))
    error = crossing_one_by_one(looks, thresholds, p0)
    assert 0.5 * ALPHA < error <= ALPHA
    assert crossing_probability(looks, thresholds, p0) == pytest.approx(error, rel=1e-7)
    below = [crossing_probability(looks, thresholds, p) for p in np.linspace(0.02 * p0, p0, 40)]
    assert max(below) == below[-1] <= ALPHA
    assert all(left <= right * (1 + 1e-6) + 1e-13 for left, right in pairwise(below))


@pytest.mark.parametrize("z", [0.0, 1.0, 2.0, 3.0])
def test_the_cap_keeps_nearly_the_strength_of_a_single_look(z: float) -> None:
    looks, p0 = look_sizes(10_000), float(special.ndtr(z))
    last = sequential_thresholds(looks, p0, spending(looks, ALPHA))[-1]
    alone = minimum_count(10_000, p0, ALPHA)
    assert alone is not None
    # In standard deviations of the count: 3.09 alone against at most 3.39 (plus one for whole counts).
    assert 0 <= last - alone <= 0.3 * np.sqrt(10_000 * p0 * (1 - p0)) + 1


def test_a_single_look_is_the_binomial_test() -> None:
    for p0 in (0.5, 0.8, 0.98):
        assert sequential_thresholds((500,), p0, (ALPHA,))[0] == minimum_count(500, p0, ALPHA)
    assert sequential_thresholds((5,), 0.9, (ALPHA,))[0] == 6


def test_table_certifies_nothing_wrong_for_any_p() -> None:
    """P(some certified null is false) over a grid of p, from the whole table: no price for many nulls."""
    looks, alpha = (20, 40, 80, 160), 0.02
    nulls = tuple(float(v) for v in np.linspace(0.5, 0.97, 60))
    table = sequential_table(looks, nulls, spending(looks, alpha))
    assert (np.diff(table, axis=1) >= 0).all()
    worst = 0.0
    for p in np.unique([*np.linspace(0.3, 0.99, 150), *nulls]):
        wrong = np.flatnonzero(np.asarray(nulls) >= p)
        if wrong.size:
            # Any wrong certificate needs at least the lowest wrong null's threshold at some look.
            first = table[:, wrong].min(axis=1)
            worst = max(worst, crossing_one_by_one(looks, first, float(p)))
    assert 0.5 * alpha < worst <= alpha


def test_hopeless_without_risk_is_out_of_reach_exactly() -> None:
    for n, cap, target in ((10, 40, 25), (39, 40, 40), (40, 40, 30)):
        for k in range(n + 1):
            assert hopeless(k, n, cap, target, risk=0.0) == (k + cap - n < target)


def test_hopeless_is_monotone_and_rarely_wrong() -> None:
    n, cap, target = 200, 2_000, 1_100
    gives_up = [hopeless(k, n, cap, target) for k in range(n + 1)]
    assert gives_up == sorted(gives_up, reverse=True)
    at_even_odds = (target - 0.5) / cap
    mistaken = stats.binom.pmf(np.flatnonzero(gives_up), n, at_even_odds).sum()
    assert mistaken <= 0.015


def test_look_sizes_end_at_the_cap_and_grow() -> None:
    for cap in (1, 31, 64, 65, 100, 10_000, 123_457):
        sizes = look_sizes(cap)
        assert sizes[-1] == cap and all(a < b for a, b in pairwise(sizes))
        assert all(size % 32 == 0 for size in sizes[:-1])
    assert len(look_sizes(10_000)) <= 25


@pytest.mark.parametrize(
    ("looks", "p0", "spent", "words"),
    [
        ((10, 10), 0.5, (0.1, 0.1), "increasing"),
        ((20, 10), 0.5, (0.1, 0.1), "increasing"),
        ((10, 20), 1.0, (0.1, 0.1), "p0"),
        ((10, 20), 0.5, (0.1,), "2 non-decreasing"),
        ((10, 20), 0.5, (0.1, 0.05), "non-decreasing"),
        ((10, 20), 0.5, (0.1, 1.0), "non-decreasing"),
    ],
)
def test_impossible_settings_are_named(looks: tuple[int, ...], p0: float, spent: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sequential_thresholds(looks, p0, spent)


def test_other_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match="nulls"):
        sequential_table((10, 20), (0.6, 0.5), (0.1, 0.1))
    with pytest.raises(InputError, match="one count for each"):
        crossing_probability((10, 20), (5,), 0.5)
    with pytest.raises(InputError, match="ratio"):
        look_sizes(100, ratio=1.0)
