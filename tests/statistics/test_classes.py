"""The three class bounds: exact error probabilities by enumerating every multinomial outcome."""

from __future__ import annotations

import numpy as np
import pytest
from enumeration import outcomes_of, simplex, true_radius
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import BOUND_NAMES, best_of_both, class_bound, one_sided_bound, two_sided_bound


@pytest.mark.parametrize(("classes", "n", "step"), [(2, 30, 40), (3, 20, 20), (3, 7, 21), (4, 9, 12)])
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_no_bound_certifies_too_much_more_often_than_alpha(classes: int, n: int, step: int, alpha: float) -> None:
    outcomes = outcomes_of(n, classes)
    for name in BOUND_NAMES:
        bounds = [class_bound(k, 0, alpha, 1.0, bound=name) for k in outcomes]
        radius = np.array([b.radius for b in bounds])
        lower = np.array([b.p_lower for b in bounds])
        upper = np.array([1 - b.p_lower if b.q_upper is None else b.q_upper for b in bounds])
        for p in simplex(classes, step):
            mass = stats.multinomial.pmf(outcomes, n, p)
            assert mass[radius > true_radius(p) + 1e-12].sum() <= alpha * (1 + 1e-9), (name, p)
            either = (lower > p[0] + 1e-12) | (upper < p[1:].max() - 1e-9)
            assert mass[either].sum() <= alpha * (1 + 1e-9), (name, p)


def test_two_sided_needs_no_correction_for_the_number_of_classes() -> None:
    """Many equal rivals: the largest of their counts is still a valid bound of the largest probability."""
    alpha, n, classes = 0.2, 6, 6
    outcomes = outcomes_of(n, classes)
    upper = np.array([two_sided_bound(k, 0, n, alpha, 1.0).q_upper for k in outcomes])
    for p in (np.full(classes, 1 / classes), np.array([0.5, *[0.1] * 5]), np.array([0.3, 0.3, *[0.1] * 4])):
        mass = stats.multinomial.pmf(outcomes, n, p)
        assert mass[upper < p[1:].max()].sum() <= alpha / 2


def test_levels_are_spent_in_full() -> None:
    """p just below a bound: the error is the whole level (so alpha/2 by mistake, or another k or n, is seen)."""
    n, alpha, k = 50, 0.05, 40
    bounds = [one_sided_bound([i, n - i], 0, n, alpha, 1.0) for i in range(n + 1)]
    p = bounds[k].p_lower * (1 - 1e-12)
    wrong = [stats.binom.pmf(i, n, p) for i in range(n + 1) if bounds[i].p_lower > p]
    assert alpha * (1 - 1e-6) <= sum(wrong) <= alpha

    p_low = float(stats.beta.ppf(alpha / 2, 30, n - 30 + 1))
    q_up = float(stats.beta.ppf(1 - alpha / 2, 12 + 1, n - 12))
    two = two_sided_bound([12, 30, 8], 1, n, alpha, 0.5)
    assert two.p_lower == pytest.approx(p_low, rel=1e-9) and two.q_upper == pytest.approx(q_up, rel=1e-9)
    assert two.radius == pytest.approx(0.25 * (stats.norm.ppf(p_low) - stats.norm.ppf(q_up)), rel=1e-8)
    assert two.method == "two-sided" and not two.abstained


def test_one_sided_is_cohens_formula() -> None:
    bound = one_sided_bound([3, 990, 7], 1, 1000, 0.001, 0.25)
    p_low = float(stats.beta.ppf(0.001, 990, 11))
    assert bound.p_lower == pytest.approx(p_low, rel=1e-10)
    assert bound.radius == pytest.approx(0.25 * stats.norm.ppf(p_low), rel=1e-9)
    assert bound.q_upper is None and not bound.abstained and bound.method == "one-sided"
    weak = one_sided_bound([500, 500], 0, 1000, 0.001, 0.25)
    assert weak.abstained and weak.radius == 0.0


def test_two_sided_certifies_below_one_half_and_a_wrong_top_is_refused() -> None:
    spread = [400, *[100] * 6]
    assert one_sided_bound(spread, 0, 1000, 0.001, 1.0).abstained
    bound = two_sided_bound(spread, 0, 1000, 0.001, 1.0)
    assert not bound.abstained and bound.p_lower < 0.5 and bound.radius > 0.3
    assert two_sided_bound(spread, 1, 1000, 0.001, 1.0).abstained
    assert best_of_both(spread, 1, 1000, 0.001, 1.0).abstained


@pytest.mark.parametrize("counts", [[900, 100, 0], [990, 5, 5], [400, 100, 500], [450, 275, 275], [1000, 0, 0]])
def test_best_is_at_least_each_of_the_two_it_pays_for(counts: list[int]) -> None:
    best = best_of_both(counts, 0, 1000, 0.01, 1.0)
    assert best.radius >= one_sided_bound(counts, 0, 1000, 0.005, 1.0).radius * (1 - 1e-9)
    assert best.radius >= two_sided_bound(counts, 0, 1000, 0.01, 1.0).radius
    # and never more than both bounds at the full level allow
    assert best.radius <= max(
        one_sided_bound(counts, 0, 1000, 0.005, 1.0).radius, two_sided_bound(counts, 0, 1000, 0.01, 1.0).radius
    ) * (1 + 1e-9)


def test_class_bound_selects_by_name() -> None:
    counts = [700, 200, 100]
    for name, function in (("one-sided", one_sided_bound), ("two-sided", two_sided_bound), ("best", best_of_both)):
        assert class_bound(counts, 0, 0.001, 0.5, bound=name) == function(counts, 0, 1000, 0.001, 0.5)
    assert class_bound(counts, 0, 0.001, 0.5).method == "one-sided"


@pytest.mark.parametrize(
    ("counts", "top", "n", "name"),
    [
        ([90, 10], 0, 110, "counts"),  # selection samples counted as trials
        ([90, 10], 0, 90, "counts"),  # trials less the selection samples
        ([100], 0, 100, "counts"),
        ([[50, 50]], 0, 100, "counts"),
        ([110, -10], 0, 100, "k"),
        ([90.0, 10.0], 0, 100, "counts"),
        ([90, 10], 2, 100, "top"),
        ([90, 10], -1, 100, "top"),
        ([0, 0], 0, 0, "n"),
    ],
)
def test_bad_counts_are_refused(counts, top, n, name) -> None:
    for function in (one_sided_bound, two_sided_bound, best_of_both):
        with pytest.raises(InputError, match=rf"^{name} "):
            function(counts, top, n, 0.001, 0.5)


def test_unknown_bound_and_bad_levels() -> None:
    with pytest.raises(InputError, match=r"^bound must be one of one-sided, two-sided, best, but"):
        class_bound([9, 1], 0, 0.001, 0.5, bound="cohen")
    with pytest.raises(InputError, match="alpha"):
        class_bound([9, 1], 0, 1.5, 0.5)
    with pytest.raises(InputError, match="sigma"):
        class_bound([9, 1], 0, 0.1, -0.5, bound="two-sided")
    with pytest.raises(InputError, match=r"^n "):
        class_bound([0, 0], 0, 0.1, 0.5)
