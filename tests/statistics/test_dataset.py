"""The paired difference of two shares: exact coverage over every outcome, and the sign as McNemar's test has it."""

from __future__ import annotations

import numpy as np
import pytest
from enumeration import outcomes_of, simplex
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import difference_interval


@pytest.mark.parametrize(("n", "step"), [(1, 20), (6, 20), (25, 10)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_it_covers_with_at_least_its_confidence_whatever_the_truth(n: int, step: int, confidence: float) -> None:
    outcomes = outcomes_of(n, 3)  # gained, lost, same
    low, high = np.array([difference_interval(int(up), int(down), n, confidence) for up, down, _ in outcomes]).T
    for p in simplex(3, step):
        truth = p[0] - p[1]
        covered = stats.multinomial.pmf(outcomes, n, p)[(low <= truth) & (truth <= high)].sum()
        assert covered >= confidence * (1 - 1e-9), p


def test_it_is_not_wider_than_it_need_be() -> None:
    """Somewhere its coverage is near its confidence, and its sign is nearly as often decided as by the exact test."""
    n, confidence = 25, 0.8
    outcomes = outcomes_of(n, 3)
    low, high = np.array([difference_interval(int(up), int(down), n, confidence) for up, down, _ in outcomes]).T
    coverage = []
    for p in simplex(3, 20):
        truth = p[0] - p[1]
        coverage.append(stats.multinomial.pmf(outcomes, n, p)[(low <= truth) & (truth <= high)].sum())
    assert min(coverage) < 0.9
    for lost in range(1, 30):
        test = stats.binomtest(0, lost, 0.5).pvalue
        _, upper = difference_interval(0, lost, 100)
        assert (upper < 0) == (test < 0.04)  # four fifths of 0.05 are spent on the sign


def test_it_mirrors_and_it_shrinks() -> None:
    low, high = difference_interval(3, 17, 200)
    assert difference_interval(17, 3, 200) == pytest.approx((-high, -low), abs=1e-9)
    assert -0.07 > low > -1 and low <= (3 - 17) / 200 <= high
    assert high - low > np.diff(difference_interval(30, 170, 2000))[0]
    none = difference_interval(0, 0, 1000)
    assert none[0] == -none[1] and none[1] < 0.01


@pytest.mark.parametrize(("gained", "lost", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0), (0.5, 0, 5)])
def test_impossible_counts_are_refused(gained, lost, n) -> None:
    with pytest.raises(InputError):
        difference_interval(gained, lost, n)
