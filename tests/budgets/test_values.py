"""Looks at the values of measurements: coverage over all looks, and when they stop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from certimed.budgets import Fixed, Goal, Looks, PixelLooks, Values, goals, parse_budget, start_interval
from certimed.budgets.kinds import look_shares
from certimed.budgets.values import end_level
from certimed.errors import InputError
from certimed.statistics import crossing_probability, end_index


def outcome(budget, values, asked, shares=(0.75,), alpha=1e-3):
    values = np.asarray(values, dtype=np.float64)
    session = start_interval(budget, shares, alpha, asked)
    return session.run(lambda start, n: Values(start + n, values[:, : start + n]), Values(0, values[:, :0]))


def normal(mean: float, spread: float, n: int = 1_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (1, n))


@pytest.mark.parametrize("hi", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("sizes", [(100,), (100, 200, 400, 1_000)])
def test_all_looks_together_fail_with_at_most_alpha_exactly(sizes, hi):
    """The upper end fails at a look where too many copies lie below the quantile: a walk that crosses thresholds."""
    alpha = 0.01
    places = [end_index(n, hi, end_level(share, 1, 1)) for n, share in zip(sizes, look_shares(len(sizes), alpha))]
    one_side = crossing_probability(sizes, [n + 1 if p is None else p for n, p in zip(sizes, places)], hi)
    assert 0.3 * alpha < 2 * one_side <= alpha


def test_a_fixed_number_is_used_up_and_its_ends_are_order_statistics():
    values = normal(0.0, 1.0, 100)
    found = outcome(Fixed(100), values, [Goal()])
    assert found.bound.tolist() == [[[np.sort(values[0])[11], np.sort(values[0])[88]]]]
    assert (found.stop.kind, found.n, found.looks) == ("cap reached", 100, ((100,),))


def test_looks_stop_when_the_threshold_is_decided_or_given_up():
    looks = Looks((100, 200, 400, 1_000))
    clear = outcome(looks, normal(0.4, 0.05), [Goal(threshold=0.5)])
    assert (clear.stop.kind, clear.n) == ("answered", 100) and clear.bound[0, 0, 1] < 0.5
    within = outcome(looks, normal(0.5, 0.05), [Goal(threshold=0.5)])
    assert (within.stop.kind, within.n) == ("futile", 100)
    close = outcome(looks, normal(0.5 - 0.05 * 0.72, 0.05), [Goal(threshold=0.5)])
    assert close.n > 200


def test_looks_stop_when_the_interval_is_narrow_or_cannot_be():
    looks = Looks((100, 200, 400, 1_000))
    width = 2 * 0.674 * 0.05
    assert outcome(looks, normal(0.4, 0.05), [Goal(width=3 * width)]).n == 100
    reached = outcome(looks, normal(0.4, 0.05), [Goal(width=1.7 * width)])
    assert reached.stop.kind == "answered" and 100 < reached.n < 1_000
    assert np.ptp(reached.bound[0, 0]) <= 1.7 * width
    assert outcome(looks, normal(0.4, 0.05), [Goal(width=0.5 * width)]).stop.kind == "futile"


def test_every_measurement_that_is_asked_about_counts():
    values = np.concatenate([normal(0.4, 0.05), normal(0.49, 0.05, seed=1), normal(9.0, 5.0, seed=2)])
    asked = [Goal(threshold=0.5), Goal(threshold=0.5), Goal()]
    both = outcome(PixelLooks((100, 200, 400, 1_000)), values, asked)
    alone = outcome(Looks((100, 200, 400, 1_000)), values[:1], asked[:1])
    assert alone.n == 100
    assert both.n == 100 and both.stop.kind == "answered"  # the first is decided, the second is given up


def test_undefined_values_are_the_worst_of_both_ends():
    values = normal(0.0, 1.0, 100)
    values[0, :5] = np.nan
    low, high = outcome(Fixed(100), values, [Goal()]).bound[0, 0]
    defined = np.sort(values[0, 5:])
    assert (low, high) == (defined[11 - 5], defined[88])
    values[0, :20] = np.nan
    assert outcome(Fixed(100), values, [Goal()]).bound[0, 0].tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize(
    ("budget", "shares", "asked", "message"),
    [
        ("grid", (0.75,), [Goal()], "does not serve measurements"),
        ("looks:100,200/0.1", (0.75,), [Goal(threshold=1.0)], "radii after the slash"),
        ("looks:100,200", (0.75,), [Goal()], "nothing says when to stop"),
        ("20", (0.75,), [Goal()], "use n >= 27"),
        ("100", (0.75, 1.0), [Goal()], "use a smaller radius"),
        ("100", (), [Goal()], "at least one"),
    ],
)
def test_impossible_settings_are_refused_before_any_sample(budget, shares, asked, message):
    with pytest.raises(InputError, match=message):
        start_interval(parse_budget(budget), shares, 1e-3, asked)


def test_values_that_do_not_go_on_are_refused():
    session = start_interval(Looks((100, 200)), (0.75,), 1e-3, [Goal(threshold=0.0)])
    values = normal(0.0, 1.0, 200)
    session.next(Values(100, values[:, :100]))
    with pytest.raises(InputError, match="do not go on"):
        session.next(Values(150, values[:, 50:200]))
    with pytest.raises(InputError, match="must be float64"):
        session.next(Values(150, values[:, :140]))


def test_goals_by_name():
    assert goals({"ctr": 0.5}, {"ctr": 0.1, "area": 3.0}) == {"ctr": Goal(0.1, 0.5), "area": Goal(3.0)}
    with pytest.raises(InputError, match="a width must be above 0"):
        goals(None, {"ctr": 0.0})
