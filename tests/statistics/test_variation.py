"""Counts of noise that is off by up to v, claims about the exact law: every level is kept, by exact sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from enumeration import outcomes_of, simplex, true_radius
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import (
    BOUND_NAMES,
    class_bound,
    clopper_pearson_lower,
    clopper_pearson_upper,
    lower_less,
    minimum_count,
    upper_more,
)

N, ALPHA, V = 60, 0.05, 0.03
WANTED = np.linspace(0.05, 0.95, 37)
COUNTS = np.arange(N + 1)

SIDES = {
    "lower": (lambda k, p, v: lower_less(clopper_pearson_lower(k, N, ALPHA), v) > p, +V),
    "upper": (lambda k, p, v: upper_more(clopper_pearson_upper(k, N, ALPHA), v) < p, -V),
    "tested": (lambda k, p, v: k >= (minimum_count(N, float(upper_more(p, v)), ALPHA) or N + 1), +V),
}


@pytest.mark.parametrize("side", SIDES)
def test_the_charge_keeps_the_level_at_the_worst_law_and_without_it_none_is_kept(side: str) -> None:
    wrong, shift = SIDES[side]

    def failure(p: float, charged: float) -> float:
        return float(stats.binom.pmf(COUNTS, N, p + shift)[wrong(COUNTS, p, charged)].sum())

    assert max(failure(p, V) for p in WANTED) <= ALPHA
    assert max(failure(p, 0.0) for p in WANTED) > ALPHA


@pytest.mark.parametrize("name", BOUND_NAMES)
@pytest.mark.parametrize(("classes", "n", "step"), [(2, 30, 20), (3, 16, 20)])
def test_class_bounds_cover_whatever_the_law_within_the_variation(name: str, classes: int, n: int, step: int) -> None:
    """The law that is drawn takes v from a rival, or from the rest, and gives it to the class, and the other way."""
    alpha, v = 0.1, 0.05
    outcomes = outcomes_of(n, classes)
    radius, plain = (
        np.array([class_bound(k, 0, alpha, 1.0, name, charged).radius for k in outcomes]) for charged in (v, 0.0)
    )
    assert (radius <= plain).all() and radius.max() > 0
    worst = unpaid = 0.0
    for p in simplex(classes, step):
        for loser in range(1, classes):
            drawn = p.copy()
            moved = min(v, drawn[loser])
            drawn[[0, loser]] += (moved, -moved)
            mass = stats.multinomial.pmf(outcomes, n, drawn)
            worst = max(worst, float(mass[radius > true_radius(p) + 1e-12].sum()))
            unpaid = max(unpaid, float(mass[plain > true_radius(p) + 1e-12].sum()))
    assert worst <= alpha and worst < unpaid and (classes > 2 or unpaid > alpha)


PROBABILITIES = st.floats(0.0, 1.0, exclude_max=True)


@given(p=PROBABILITIES, v=st.floats(0.0, 0.5))
def test_lowered_and_raised_round_outwards_by_at_most_two_units(p: float, v: float) -> None:
    low, high = float(lower_less(p, v)), float(upper_more(p, v))
    if v == 0:
        assert low == high == p
        return
    assert 0.0 <= low < high < 1.0
    assert Fraction(low) <= max(Fraction(p) - Fraction(v), 0)
    assert Fraction(high) >= min(Fraction(p) + Fraction(v), Fraction(1 - 2**-53))
    assert float(np.abs(low - max(p - v, 0.0))) <= 2 * np.spacing(max(p, v))
    assert float(np.abs(high - min(p + v, 1.0))) <= 2 * np.spacing(1.0)


def test_a_certain_upper_bound_stays_certain_and_arrays_are_charged_each() -> None:
    assert upper_more(1.0, 0.2) == 1.0
    np.testing.assert_array_equal(lower_less([0.7, 0.1], 0.2), [lower_less(0.7, 0.2), 0.0])
    np.testing.assert_array_equal(upper_more([0.7, 1.0], 0.2), [upper_more(0.7, 0.2), 1.0])


@pytest.mark.parametrize("wrong", [-1e-9, 1.0, float("nan")])
def test_a_variation_that_is_none_is_refused(wrong: float) -> None:
    for call in (lower_less, upper_more, lambda p, v: class_bound([90, 10], 0, 0.001, 1.0, variation=v)):
        with pytest.raises(InputError, match="variation"):
            call(0.5, wrong)
