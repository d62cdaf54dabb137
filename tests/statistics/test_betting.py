"""Betting thresholds: Ville's promise checked exactly, sample by sample, over all counts."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from certimed.errors import InputError
from certimed.statistics.betting import betting_thresholds, log_wealth
from certimed.statistics.sequential import crossing_probability


def crossing(thresholds: np.ndarray, p: float, every: int = 1) -> float:
    mass, crossed = np.ones(1), 0.0
    for n in range(1, len(thresholds)):
        mass = np.append(mass * (1 - p), 0.0) + np.append(0.0, mass * p)
        if n % every == 0:
            crossed += mass[thresholds[n] :].sum()
            mass[thresholds[n] :] = 0.0
    return float(crossed)


@pytest.mark.parametrize("z", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_error_at_the_worst_case_is_at_most_alpha_at_any_time(z: float, alpha: float) -> None:
    p0 = float(special.ndtr(z))
    thresholds = betting_thresholds(2_000, p0, alpha)
    everywhere = crossing(thresholds, p0)
    assert 0.05 * alpha < everywhere <= alpha
    # Batch ends only, and smaller p, cross no more often.
    for every in (7, 64):
        assert crossing(thresholds, p0, every) <= everywhere
    errors = [crossing(thresholds, p) for p in np.linspace(0.3, 1.0, 8) * p0]
    assert errors == sorted(errors)
    assert crossing_probability(range(1, 2_001), thresholds[1:], p0) == pytest.approx(everywhere, rel=1e-6)


def test_thresholds_are_the_smallest_counts_with_the_wealth() -> None:
    for p0, alpha in ((0.5, 0.001), (0.75, 0.01), (0.98, 0.001)):
        thresholds = betting_thresholds(300, p0, alpha)
        for n in range(1, 301):
            k = np.arange(n + 1)
            rich = (log_wealth(k, n, p0) >= -np.log(alpha)) & (k > n * p0)
            assert thresholds[n] == (int(rich.argmax()) if rich.any() else n + 1)


def test_log_wealth_against_high_precision_and_mean_one() -> None:
    for k, n in ((0, 1), (7, 10), (950, 1_000), (10_000, 10_000)):
        with mpmath.workdps(40):
            mixture = mpmath.beta(k + mpmath.mpf("0.5"), n - k + mpmath.mpf("0.5")) / mpmath.pi
            ratio = mixture / (mpmath.mpf("0.75") ** k * mpmath.mpf("0.25") ** (n - k))
            assert float(log_wealth(k, n, 0.75)) == pytest.approx(float(mpmath.log(ratio)), abs=1e-9)
    counts = np.arange(301)
    assert (stats.binom.pmf(counts, 300, 0.75) * np.exp(log_wealth(counts, 300, 0.75))).sum() == pytest.approx(1.0)


def test_wealth_is_the_product_of_kt_bets() -> None:
    """The closed form against the bettor's own bookkeeping in rational arithmetic."""
    p0, wealth, k = Fraction(3, 4), Fraction(1), 0
    for n, agrees in enumerate([1, 1, 0, 1, 1, 1, 0, 1]):
        predicted = (k + Fraction(1, 2)) / (n + 1)
        wealth *= predicted / p0 if agrees else (1 - predicted) / (1 - p0)
        k += agrees
        assert float(log_wealth(k, n + 1, 0.75)) == pytest.approx(float(np.log(float(wealth))), abs=1e-12)


def test_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match="p0"):
        betting_thresholds(100, 1.0, 0.001)
    with pytest.raises(InputError, match="alpha"):
        betting_thresholds(100, 0.5, 0.0)
    with pytest.raises(InputError, match="at most 1000000"):
        betting_thresholds(10**7, 0.5, 0.001)
