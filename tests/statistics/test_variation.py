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
    p_value_more,
    predict_p_value,
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
def test_bounds_move_outwards_by_at_most_two_units_more_than_the_variation(p: float, v: float) -> None:
    low, high = float(lower_less(p, v)), float(upper_more(p, v))
    if v == 0:
        assert low == high == p
        return
    assert 0.0 <= low < high <= 1.0
    assert Fraction(low) <= max(Fraction(p) - Fraction(v), 0)
    assert Fraction(high) >= min(Fraction(p) + Fraction(v), 1)
    assert abs(low - max(p - v, 0.0)) <= 2 * np.spacing(max(p, v))
    assert abs(high - min(p + v, 1.0)) <= 2 * np.spacing(1.0)


@given(p=PROBABILITIES, n=st.integers(1, 10**9), v=st.floats(0.0, 1e-6))
def test_p_values_move_outwards_by_all_samples(p: float, n: int, v: float) -> None:
    charged = float(p_value_more(p, n, v))
    assert Fraction(charged) >= min(Fraction(p) + n * Fraction(v), Fraction(np.nextafter(1.0, 0.0)))
    assert charged <= min(p + n * v, 1.0) + 4 * np.spacing(1.0)


def test_arrays_are_charged_each_and_certainty_stays() -> None:
    assert upper_more(1.0, 0.2) == 1.0
    np.testing.assert_array_equal(lower_less([0.7, 0.1], 0.2), [lower_less(0.7, 0.2), 0.0])
    np.testing.assert_array_equal(upper_more([0.7, 1.0], 0.2), [upper_more(0.7, 0.2), 1.0])


@pytest.mark.parametrize("wrong", [-1e-9, 1.0, float("nan")])
def test_a_variation_that_is_none_is_named(wrong: float) -> None:
    for call in (
        lambda: lower_less(0.5, wrong),
        lambda: upper_more(0.5, wrong),
        lambda: p_value_more(0.5, 10, wrong),
        lambda: class_bound([90, 10], 0, 0.001, 1.0, variation=wrong),
    ):
        with pytest.raises(InputError, match=r"^variation "):
            call()


def test_other_nonsense_is_refused() -> None:
    for call in (lambda: upper_more(1.5, 0.1), lambda: p_value_more(0.5, 0, 0.1), lambda: lower_less(1.0, 0.1)):
        with pytest.raises(InputError):
            call()


def test_predict_keeps_its_level_with_all_samples_charged() -> None:
    """Two equally likely rivals and a third class; the drawn law favours the wrong one by v."""
    n, v, alpha = 30, 0.002, 0.1
    first = np.arange(n + 1)
    worst = 0.0
    for rival in (0.02, 0.1, 0.3, 0.5):
        # Counts of (top, second) under the drawn law (rival + v, rival - v); a wrong answer is "top" not abstained.
        top, second = np.meshgrid(first, first, indexing="ij")
        rest = n - top - second
        ok = rest >= 0
        drawn = np.stack([top[ok], second[ok], rest[ok]], 1)
        chance = stats.multinomial.pmf(drawn, n, [rival + v, rival - v, 1 - 2 * rival])
        answers = (p_value_more(predict_p_value(top[ok], second[ok]), n, v) <= alpha) & (top[ok] > second[ok])
        worst = max(worst, float(chance[answers].sum()))
    assert worst <= alpha
