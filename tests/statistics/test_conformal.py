"""Conformal levels against an independent oracle, and coverage and risk under the worst attack: exactly, and drawn."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from certimed.errors import InputError
from certimed.statistics import class_scores, images_needed, quantile_index, risk_index, robust_level

SIGMA = 0.5


def exact_level(alpha, ratio, v=0.0):
    with mpmath.workdps(40):
        left = mpmath.mpf(alpha) - mpmath.mpf(v)
        quantile = mpmath.findroot(lambda z: mpmath.ncdf(z) - left, stats.norm.ppf(alpha))
        return mpmath.ncdf(quantile - mpmath.mpf(ratio)) - mpmath.mpf(v)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0, 2.5])
@pytest.mark.parametrize("v", [0.0, 1e-9, 1e-4])
def test_levels_are_exact_and_rounded_down(alpha, ratio, v):
    exact, found = exact_level(alpha, ratio, v), robust_level(alpha, ratio * SIGMA, SIGMA, v)
    if exact <= 0:
        assert found == 0
        return
    assert found <= exact and found >= exact * (1 - mpmath.mpf(1e-10)) - 1e-15


def test_levels_that_nothing_reaches_are_zero_and_said():
    assert robust_level(0.1, 0.0, 1.0, 0.2) == 0 and images_needed(0.0) is None
    with pytest.raises(InputError, match="smaller radius"):
        quantile_index(10_000, 0.0)


@pytest.mark.parametrize("radius, needed", [(0.25, 15), (0.5, 26), (1.0, 88)])
def test_the_smallest_number_that_works_is_the_one_that_is_named(radius, needed):
    level = robust_level(0.1, radius, 1.0)
    assert images_needed(level) == needed and quantile_index(needed, level) <= needed
    with pytest.raises(InputError, match=f"{needed - 1} calibration images are too few .*{needed} are needed"):
        quantile_index(needed - 1, level)


@pytest.mark.parametrize("m", [1, 7, 99, 1000])
@pytest.mark.parametrize("level", [0.5, 0.1, 0.9999])
def test_the_index_is_the_ceiling_in_exact_arithmetic(m, level):
    wanted = math.ceil((m + 1) * (1 - Fraction(level)))
    if wanted > m:
        with pytest.raises(InputError):
            quantile_index(m, level)
        return
    assert quantile_index(m, level) == wanted


@pytest.mark.parametrize("m", [30, 100, 1000])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_exact_coverage_under_the_worst_attack(m, ratio):
    """One score s = w.(x + e), alike for all images: given the calibration, coverage is Beta, and the attack the worst.

    E[Phi(Phi^-1(b) - r / sigma)], b ~ Beta(k, m + 1 - k), by quadrature: never below the target; within two points of
    it where m is so large that rounding k up and Jensen's inequality cost little.
    """
    for alpha in (0.05, 0.1, 0.2):
        level = robust_level(alpha, ratio * SIGMA, SIGMA)
        if (images_needed(level) or m + 1) > m:
            continue
        k = quantile_index(m, level)
        law = stats.beta(k, m + 1 - k)
        covered, error = integrate.quad(
            lambda b, law=law: stats.norm.cdf(stats.norm.ppf(b) - ratio) * law.pdf(b),
            0,
            1,
            limit=400,
            points=[law.mean()],
        )
        assert covered >= 1 - alpha - error - 1e-9
        if m == 1000:
            assert covered <= 1 - alpha + 0.02


def coverage(rng, trials, m, ratio, spread, alpha=0.1):
    """Trials of a calibration and a test image: images exchangeable, an adversary who sees all but the test noise.

    The score is linear, s = x + e (the direction of x alone matters), so the worst attack is r along it.
    """
    k = quantile_index(m, robust_level(alpha, ratio * SIGMA, SIGMA))
    scores = spread * rng.standard_normal((trials, m)) + SIGMA * rng.standard_normal((trials, m))
    threshold = np.partition(scores, k - 1, axis=1)[:, k - 1]
    attacked = spread * rng.standard_normal(trials) + ratio * SIGMA + SIGMA * rng.standard_normal(trials)
    return float(np.mean(attacked <= threshold))


def risk(rng, trials, m, ratio, spread, alpha=0.1):
    """The same for the missed share: a loss 1 where the score is above the level, chosen by conformal risk control."""
    levels = np.linspace(-4, 6, 401) * max(SIGMA, spread)
    level = robust_level(alpha, ratio * SIGMA, SIGMA)
    lost = []
    for _ in range(trials):
        scores = spread * rng.standard_normal(m) + SIGMA * rng.standard_normal(m)
        losses = np.hstack([(scores[:, None] > levels[None, :-1]).astype(float), np.zeros((m, 1))])
        chosen = risk_index(losses, level)
        attacked = spread * rng.standard_normal() + ratio * SIGMA + SIGMA * rng.standard_normal()
        lost.append(float(attacked > levels[chosen]) if chosen < len(levels) - 1 else 0.0)
    return 1 - float(np.mean(lost))


def held_to(found, trials, alpha=0.1, *, tight=True):
    error = math.sqrt(alpha * (1 - alpha) / trials)
    assert found >= 1 - alpha - 3 * error
    if tight:
        assert found <= 1 - alpha + 0.02 + 3 * error


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_drawn_coverage_under_the_worst_attack(ratio):
    rng = np.random.default_rng(int(10 * ratio))
    held_to(coverage(rng, 20_000, 300, ratio, 0.0), 20_000)
    held_to(coverage(rng, 20_000, 100, ratio, 0.3), 20_000, tight=False)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_drawn_risk_under_the_worst_attack(ratio):
    rng = np.random.default_rng(7 + int(10 * ratio))
    held_to(risk(rng, 700, 300, ratio, 0.0), 700)
    held_to(risk(rng, 500, 100, ratio, 0.3), 500, tight=False)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_many_draws_of_coverage_and_risk(ratio):
    rng = np.random.default_rng(100 + int(100 * ratio))
    for spread in (0.0, 0.1, 1.0):
        held_to(coverage(rng, 100_000, 800, ratio, spread), 100_000, tight=spread == 0)
        held_to(risk(rng, 10_000, 800, ratio, spread), 10_000, tight=spread == 0)


def test_risk_index_is_the_first_level_that_the_corrected_mean_allows():
    losses = np.array([[1.0, 0.5, 0.25, 0.0], [0.75, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    for level, wanted in ((0.95, 0), (0.94, 0), (0.93, 1), (0.51, 1), (0.49, 2), (0.32, 2), (0.3, 3), (0.25, 3)):
        exact = [(sum(map(Fraction, column)) + 1) / 4 <= Fraction(level) for column in losses.T]
        assert risk_index(losses, level) == wanted == exact.index(True)
    with pytest.raises(InputError, match=r"too few .*: 4 are needed"):
        risk_index(losses, 0.2)
    for wrong in (losses[:, ::-1], losses[:, :-1], losses[0]):
        with pytest.raises(InputError):
            risk_index(wrong, 0.5)


def test_scores_by_hand_and_their_ties():
    p = [0.1, 0.4, 0.4, 0.1]
    assert class_scores(p, "lac").tolist() == [0.9, 0.6, 0.6, 0.9]
    assert class_scores(p, "aps") == pytest.approx([0.9, 0.4, 0.8, 1.0])
    # The last class has exactly 1, whatever the rounding of the sum of all: else a threshold of 1 would be dust.
    for seed in range(50):
        drawn = np.random.default_rng(seed).dirichlet(np.ones(7))
        assert class_scores(drawn, "aps").max() == 1.0
    with pytest.raises(InputError, match="unknown"):
        class_scores(p, "raps")
