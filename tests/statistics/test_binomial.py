"""Binomial tails, bounds, radii and PREDICT's test, against 50-digit arithmetic and exact binomial sums."""

from __future__ import annotations

import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import (
    abstains,
    binomial_tail,
    clopper_pearson_lower,
    clopper_pearson_upper,
    predict_p_value,
    radius_from_lower,
    radius_two_sided,
)

SIZES = (1, 2, 3, 10, 100, 1_000, 100_000, 1_000_000)
LEVELS = (0.5, 0.05, 1e-3, 1e-12)


def exact_tail(k: int, n: int, p: mp.mpf) -> mp.mpf:
    """P(Bin(n, p) >= k) to more than 40 digits by its defining sum."""
    if k == 0 or p == 1:
        return mp.mpf(1)
    q = 1 - p
    log_pmf = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1) + k * mp.log(p) + (n - k) * mp.log(q)
    term = mp.exp(log_pmf)
    total, i = term, k
    while i < n and term > total * mp.mpf(10) ** -40:
        term = term * (n - i) / (i + 1) * p / q
        total += term
        i += 1
    return total


def counts_to_try(n: int) -> list[int]:
    return sorted({k for k in (0, 1, 2, n // 1000, n // 2, int(0.9 * n), n - 1, n) if 0 <= k <= n})


@pytest.mark.parametrize("n", SIZES)
def test_lower_bound_is_outward_and_tight_at_high_precision(n: int) -> None:
    with mp.workdps(50):
        for alpha in LEVELS:
            for k in counts_to_try(n):
                bound = float(clopper_pearson_lower(k, n, alpha))
                if k == 0:
                    assert bound == 0.0
                    continue
                assert 0.0 < bound < 1.0
                assert exact_tail(k, n, mp.mpf(bound)) <= alpha, (k, n, alpha)
                assert exact_tail(k, n, mp.mpf(bound) * (1 + mp.mpf("1e-9"))) > alpha, (k, n, alpha)


@pytest.mark.parametrize("n", SIZES)
def test_upper_bound_is_outward_and_tight_at_high_precision(n: int) -> None:
    with mp.workdps(50):
        for alpha in LEVELS:
            for k in counts_to_try(n):
                bound = float(clopper_pearson_upper(k, n, alpha))
                if k == n:
                    assert bound == 1.0
                    continue
                # P(Bin(n, p) <= k) = P(Bin(n, 1 - p) >= n - k)
                if bound < 1.0:
                    assert exact_tail(n - k, n, 1 - mp.mpf(bound)) <= alpha, (k, n, alpha)
                assert exact_tail(n - k, n, 1 - mp.mpf(bound) * (1 - mp.mpf("1e-9"))) > alpha, (k, n, alpha)


def test_unanimous_samples_have_the_closed_form() -> None:
    n = np.array([1, 10, 100, 1_000, 100_000])
    np.testing.assert_allclose(clopper_pearson_lower(n, n, 1e-3), 1e-3 ** (1 / n), rtol=1e-10)
    np.testing.assert_allclose(clopper_pearson_upper(0, n, 1e-3), 1 - 1e-3 ** (1 / n), rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-3])
@pytest.mark.parametrize("n", [1, 5, 20, 100, 1_000])
def test_coverage_of_both_bounds_by_exact_binomial_sums(n: int, alpha: float) -> None:
    k = np.arange(n + 1)
    lower, upper = clopper_pearson_lower(k, n, alpha), clopper_pearson_upper(k, n, alpha)
    # The worst p lie just beyond the bounds themselves; a regular grid alone would miss them.
    grid = np.concatenate([np.linspace(1e-4, 1 - 1e-4, 199), lower[1:] * (1 - 1e-12), upper[:-1] * (1 + 1e-12)])
    grid = grid[(grid > 0) & (grid < 1)]
    mass = stats.binom.pmf(k[None, :], n, grid[:, None])
    too_high = (mass * (lower[None, :] > grid[:, None])).sum(1)
    too_low = (mass * (upper[None, :] < grid[:, None])).sum(1)
    assert too_high.max() <= alpha * (1 + 1e-9)
    assert too_low.max() <= alpha * (1 + 1e-9)
    # Exactness: the level is used up somewhere, so alpha/2, a shifted k or another n would be seen.
    assert too_high.max() >= alpha * (1 - 1e-6)
    assert too_low.max() >= alpha * (1 - 1e-6)


def test_tail_is_rounded_up_and_tight() -> None:
    with mp.workdps(50):
        for n in (1, 10, 1_000, 1_000_000):
            for tau in (0.01, 0.5, 0.75, 0.99):
                for k in [*counts_to_try(n), int(n * tau), min(n, int(n * tau + 5 * np.sqrt(n)))]:
                    value = mp.mpf(float(binomial_tail(k, n, tau)))
                    if k == 0:
                        assert value == 1
                        continue
                    # Below the mean the sum of the other side is the short one.
                    p = mp.mpf(tau)
                    exact = exact_tail(k, n, p) if k >= n * tau else 1 - exact_tail(n - k + 1, n, 1 - p)
                    assert exact <= value <= exact * (1 + mp.mpf("1e-11")) + mp.mpf("3e-308"), (k, n, tau)


def test_bounds_broadcast_and_keep_shape() -> None:
    k = np.array([[0], [50], [100]], dtype=np.uint8)
    alpha = np.array([0.1, 0.001])
    result = clopper_pearson_lower(k, 100, alpha)
    assert result.shape == (3, 2) and result.dtype == np.float64
    assert result[1, 1] == clopper_pearson_lower(50, 100, 0.001)
    assert clopper_pearson_lower(np.array([], dtype=int), 100, 0.001).shape == (0,)
    assert clopper_pearson_upper(3, 10, 0.1).shape == ()


@pytest.mark.parametrize("function", [clopper_pearson_lower, clopper_pearson_upper])
@pytest.mark.parametrize(
    ("k", "n", "alpha", "name"),
    [
        (-1, 10, 0.1, "k"),
        (11, 10, 0.1, "k"),
        (5.0, 10, 0.1, "k"),
        (True, 10, 0.1, "k"),
        (5, 10.5, 0.1, "n"),
        (0, 0, 0.1, "n"),
        (5, 10, 0.0, "alpha"),
        (5, 10, 1.0, "alpha"),
        (5, 10, float("nan"), "alpha"),
        (5, 10, "often", "alpha"),
        ([1, 2], [10, 10, 10], 0.1, "k and n"),
    ],
)
def test_bad_input_is_named(function, k, n, alpha, name) -> None:
    with pytest.raises(InputError, match=rf"^{name} "):
        function(k, n, alpha)


def test_radius_is_rounded_down_and_zero_up_to_one_half() -> None:
    p = np.array([0.0, 0.3, 0.5, 0.5 + 1e-9, 0.7, 0.999, 1 - 1e-9, 1 - 2e-16])
    radius = radius_from_lower(p, 0.25)
    assert (radius[:3] == 0).all() and (radius[3:] > 0).all() and np.isfinite(radius).all()
    with mp.workdps(50):
        for value, r in zip(p[3:], radius[3:]):
            # Phi is checked forwards: Phi(r / sigma) <= p, and barely.
            assert mp.ncdf(mp.mpf(float(r)) / mp.mpf("0.25")) <= mp.mpf(float(value))
            assert mp.ncdf(mp.mpf(float(r)) * (1 + mp.mpf("3e-13")) / mp.mpf("0.25")) >= mp.mpf(float(value))


def test_ceilings_published_for_alpha_one_thousandth() -> None:
    n = np.array([100, 1_000, 10_000, 100_000])
    radius = radius_from_lower(clopper_pearson_lower(n, n, 1e-3), 1.0)
    np.testing.assert_allclose(radius, [1.500, 2.463, 3.199, 3.811], atol=5e-4)


def test_two_sided_radius_formula_and_edges() -> None:
    p, q = np.array([0.4, 0.9, 0.6, 0.3, 0.0, 0.9]), np.array([0.2, 0.1, 0.6, 0.5, 1.0, 1.0])
    radius = radius_two_sided(p, q, 2.0)
    expected = np.where(p > q, stats.norm.ppf(p) - stats.norm.ppf(q), 0.0)
    np.testing.assert_allclose(radius[:4], expected[:4], rtol=1e-12)
    assert (radius[2:] == 0).all()
    assert (radius[:2] < expected[:2]).all()
    # With all the remaining mass on one rival it is the one-sided radius.
    np.testing.assert_allclose(radius_two_sided(0.8, 1 - 0.8, 1.0), radius_from_lower(0.8, 1.0), rtol=1e-12)
    # Nearly equal bounds must not gain from cancellation.
    with mp.workdps(50):
        a, b = 0.7, np.nextafter(0.7, 0)
        exact = (mp.mpf(float(a)) - mp.mpf(float(b))) / mp.npdf(stats.norm.ppf(0.7)) / 2
        assert mp.mpf(float(radius_two_sided(a, b, 1.0))) <= exact


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: radius_from_lower(1.0, 1.0), "p_lower"),
        (lambda: radius_from_lower(0.9, 0.0), "sigma"),
        (lambda: radius_from_lower(0.9, float("inf")), "sigma"),
        (lambda: radius_two_sided(0.9, 0.0, 1.0), "q_upper"),
        (lambda: radius_two_sided(0.9, 1.1, 1.0), "q_upper"),
        (lambda: predict_p_value(-1, 3), "k"),
        (lambda: predict_p_value(1.5, 3), "k_top"),
        (lambda: abstains(5, 3, 0.0), "alpha"),
    ],
)
def test_bad_bounds_are_refused(call, name) -> None:
    with pytest.raises(InputError, match=rf"^{name} "):
        call()


def test_predict_p_value_is_scipys_binomial_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 60, 200), rng.integers(0, 60, 200)
    ours = predict_p_value(first, second)
    for a, b, value in zip(first, second, ours):
        expected = stats.binomtest(int(a), int(a + b), 0.5).pvalue if a + b else 1.0
        assert value == pytest.approx(expected, rel=1e-10)
        assert value >= min(1.0, expected * (1 - 1e-12))
    assert float(predict_p_value(0, 0)) == 1.0
    assert bool(abstains(0, 0, 0.05))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("n", [10, 25])
def test_predict_returns_a_wrong_class_with_at_most_alpha(n: int, alpha: float) -> None:
    """Three classes, every outcome enumerated: P(a class other than the most probable is returned) <= alpha."""
    outcomes = np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])
    ranked = np.sort(outcomes, axis=1)
    returned = np.where(abstains(ranked[:, 2], ranked[:, 1], alpha), -1, outcomes.argmax(axis=1))
    worst = 0.0
    for probabilities in [
        (0.5, 0.5, 0.0),
        (0.4, 0.35, 0.25),
        (1 / 3, 1 / 3, 1 / 3),
        (0.501, 0.499, 0.0),
        (0.6, 0.4, 0),
    ]:
        mass = stats.multinomial.pmf(outcomes, n, probabilities)
        top = max(probabilities)
        wrong = np.array([i >= 0 and probabilities[i] < top for i in returned])
        worst = max(worst, float(mass[wrong].sum()))
        # A tie has no unique top class: returning either is bounded by alpha for each, 2 alpha/2 in all.
        tied = [i for i in range(3) if probabilities[i] == top]
        for i in tied[:-1]:
            assert float(mass[returned == i].sum()) <= alpha
    assert worst <= alpha


def test_statistics_do_not_import_torch() -> None:
    code = "import sys, certimed.statistics; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
