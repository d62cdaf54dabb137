"""Ends of intervals and the simultaneous band: exact coverage, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb, factorial

import numpy as np
import pytest
from scipy import stats

from certimed.budgets.values import ends_at
from certimed.errors import InputError
from certimed.statistics import band, band_index, end_index, samples_for_end
from certimed.statistics.order import crossing

CASES = list(product((20, 100, 400), (0.5, 0.6, 0.75, 0.84, 0.93), (0.01, 0.0005)))


@pytest.mark.parametrize(("n", "hi", "level"), CASES)
def test_both_ends_cover_exactly_and_no_smaller_place_would(n, hi, level):
    place = end_index(n, hi, level)
    if place is None:
        assert Fraction(hi) ** n > level
        return
    share = Fraction(hi)

    def tail(k, p):
        return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))

    def below(k, p):
        return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k + 1))

    # The upper end fails where `place` copies lie below the hi-quantile, the lower one where fewer than n + 1 - place
    # copies lie at or below the lo-quantile; both are worst where the distribution is continuous there.
    assert tail(place, share) <= level
    assert below(n + 1 - place - 1, 1 - share) <= level
    assert tail(place - 1, share) > level * (1 - 1e-9)


@pytest.mark.parametrize("probabilities", [(0.3, 0.4, 0.3), (0.5, 0.25, 0.25), (0.1, 0.15, 0.75), (0.25, 0.0, 0.75)])
@pytest.mark.parametrize("undefined", [False, True])
def test_ends_cover_for_ties_and_undefined_values(probabilities, undefined):
    """A distribution on three numbers (the last one possibly undefined), every outcome of nine copies enumerated."""
    n, hi, level = 9, 0.6, 0.1
    weights = np.array(probabilities)
    place = end_index(n, hi, level)
    assert place is not None
    low_law = np.array([weights[2], weights[0], weights[1]]) if undefined else weights
    low_values = np.array([-np.inf, 0.0, 1.0]) if undefined else np.array([0.0, 1.0, 2.0])
    high_values = np.array([0.0, 1.0, np.inf]) if undefined else np.array([0.0, 1.0, 2.0])
    h_high = high_values[np.searchsorted(np.cumsum(weights), hi - 1e-12)]
    h_low = low_values[np.searchsorted(np.cumsum(low_law), (1 - hi) - 1e-12)]
    failed = np.zeros(2)
    for a in range(n + 1):
        for b in range(n + 1 - a):
            c = n - a - b
            chance = factorial(n) / factorial(a) / factorial(b) / factorial(c) * float(np.prod(weights ** [a, b, c]))
            ordered = np.array([0.0] * a + [1.0] * b + ([] if undefined else [2.0] * c))
            low, high = ends_at(ordered, n, place)
            failed += chance * np.array([low > h_low, high < h_high])
    assert (failed <= level).all()


def exact_crossing(places, bounds, n):
    """P[U_(i) < c_i for any i] in rationals: the binomial increments of the empirical process, bound by bound."""
    mass, before = {0: Fraction(1)}, Fraction(0)
    for place, bound in zip(places, map(Fraction, bounds)):
        moved: dict[int, Fraction] = {}
        p = (bound - before) / (1 - before)
        for count, chance in mass.items():
            for more in range(n - count + 1):
                if count + more < place:
                    step = comb(n - count, more) * p**more * (1 - p) ** (n - count - more)
                    moved[count + more] = moved.get(count + more, Fraction(0)) + chance * step
        mass, before = moved, bound
    return 1 - sum(mass.values())


@pytest.mark.parametrize(
    ("n", "places", "bounds"),
    [
        (1, [1], [0.25]),
        (6, [3, 4, 6], [0.25, 0.375, 0.625]),
        (12, [6, 8, 9, 12], [0.125, 0.25, 0.25, 0.5]),
        (15, list(range(8, 16)), [0.0625 * i for i in range(1, 9)]),
    ],
)
def test_crossing_is_exact(n, places, bounds):
    exact = exact_crossing(places, bounds, n)
    found = crossing(np.array(places), np.array(bounds), n)
    assert float(exact) <= found <= float(exact) * (1 + 1e-7)


@pytest.mark.parametrize(("n", "level"), [(14, 0.05), (25, 0.01), (40, 0.001)])
def test_the_band_covers_exactly_and_wastes_nothing(n, level):
    bounds = band(n, level)
    places = np.flatnonzero(bounds) + 1
    exact = float(exact_crossing(places.tolist(), bounds[places - 1].tolist(), n))
    assert 0.99 * level <= exact <= level


def test_the_band_serves_every_radius_at_once_and_costs_little():
    n, level = 400, 0.0005
    for hi in np.linspace(0.5, 0.93, 40):
        own, wide = end_index(n, hi, level), band_index(n, hi, level)
        assert own <= wide <= own + 9
    assert band_index(n, 0.9999, level) is None


def test_a_large_band_is_a_band_too():
    bounds = band(5_000, 0.001)
    # Between the rungs a place has the bound of the one below, so only the rungs can be crossed.
    rungs = np.flatnonzero(np.diff(bounds, prepend=0.0) > 0)
    assert len(rungs) <= 512
    assert crossing(rungs + 1, bounds[rungs], 5_000) <= 0.001
    uniforms = np.sort(np.random.default_rng(0).random((400, 5_000)), axis=1)
    assert (uniforms < bounds).any(axis=1).sum() <= stats.binom.ppf(0.999, 400, 0.001)


def test_the_distance_of_the_drawn_law_is_charged():
    assert end_index(1_000, 0.75, 0.001, 0.01) == end_index(1_000, 0.7600000001, 0.001) > end_index(1_000, 0.75, 0.001)
    assert band_index(1_000, 0.75, 0.001, 0.01) >= band_index(1_000, 0.75, 0.001)
    assert end_index(100, 0.75, 0.001, 0.25) is None


@pytest.mark.parametrize(("hi", "level"), [(0.5, 0.0005), (0.75, 0.0005), (0.93, 0.001), (0.999, 0.01)])
def test_the_suggested_n_is_the_smallest_that_does(hi, level):
    n = samples_for_end(hi, level)
    assert end_index(n, hi, level) == n
    assert n == 1 or end_index(n - 1, hi, level) is None


def test_impossible_arguments_are_named():
    with pytest.raises(InputError, match="hi"):
        end_index(100, 0.4, 0.001)
    with pytest.raises(InputError, match="level"):
        end_index(100, 0.75, 0.0)
    with pytest.raises(InputError, match="increase"):
        crossing(np.array([2, 1]), np.array([0.1, 0.2]), 5)
