"""Planning and dataset figures: every answer is the smallest that does, by brute force, and exact coverage."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import (
    binomial_tail,
    certified_accuracy_lower,
    clopper_pearson_lower,
    clopper_pearson_upper,
    holm_threshold,
    proportion_interval,
    radius_ceiling,
    radius_from_lower,
    require_samples_for_tau,
    samples_for_radius,
    samples_for_radius_at,
    samples_for_tau,
)


def test_radius_ceiling_published() -> None:
    ceilings = radius_ceiling([100, 1_000, 10_000, 100_000], 0.001, 0.5)
    np.testing.assert_allclose(2 * ceilings, [1.500, 2.463, 3.199, 3.811], atol=5e-4)
    assert float(radius_ceiling(9, 0.001, 1.0)) == 0.0 and float(radius_ceiling(10, 0.001, 1.0)) > 0.0


@pytest.mark.parametrize("alpha", [0.1, 0.001, 1e-9])
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 1.0, 1.5, 2.5, 3.8, 5.0, 5.4])
def test_samples_for_radius_is_the_smallest(ratio: float, alpha: float) -> None:
    sigma = 0.25
    n = samples_for_radius(ratio * sigma, sigma, alpha)
    assert float(radius_ceiling(n, alpha, sigma)) >= ratio * sigma
    assert n == 1 or float(radius_ceiling(n - 1, alpha, sigma)) < ratio * sigma
    assert n == pytest.approx(math.log(alpha) / stats.norm.logcdf(ratio), abs=1.0, rel=1e-4)


@pytest.mark.parametrize("p", [0.6, 0.71, 0.9, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize(("ratio", "alpha"), [(0.1, 0.05), (0.5, 0.001), (1.0, 0.2), (2.0, 0.001)])
def test_samples_for_radius_at_is_the_smallest_by_brute_force(p: float, ratio: float, alpha: float) -> None:
    needed = stats.norm.cdf(ratio)
    if p <= needed:
        with pytest.raises(InputError, match=r"^p=.* can never certify radius"):
            samples_for_radius_at(p, ratio, 1.0, alpha)
        return
    n = samples_for_radius_at(p, ratio, 1.0, alpha)
    sizes = np.arange(1, n + 1)
    counts = np.floor(sizes * p + 1e-9).astype(int)
    reached = radius_from_lower(clopper_pearson_lower(counts, sizes, alpha), 1.0) >= ratio
    assert reached[-1] and not reached[:-1].any()


def test_samples_for_tau_oracles() -> None:
    ours = [samples_for_tau(tau, 0.001, 512 * 512) for tau in (0.75, 0.9, 0.95, 0.99)]
    assert ours == [68, 184, 378, 1929]
    assert samples_for_tau(0.75, 0.001) == math.ceil(math.log(0.001) / math.log(0.75))


@pytest.mark.parametrize("tau", [0.3, 0.75, 0.99])
@pytest.mark.parametrize("pixels", [1, 10, 262_144])
def test_samples_for_tau_is_where_a_unanimous_image_starts_to_be_certified(tau: float, pixels: int) -> None:
    needed = samples_for_tau(tau, 0.001, pixels)
    for n in range(max(1, needed - 1), needed + 2):
        histogram = np.zeros(n + 1, dtype=np.int64)
        histogram[n] = pixels
        assert holm_threshold(histogram, n, tau, 0.001) == (n if n >= needed else None)
    assert samples_for_tau(tau, 0.001, pixels, "bonferroni") == needed


def test_a_hopeless_setting_is_refused_with_the_n_that_would_do() -> None:
    message = r"^n=100 cannot certify tau=0\.9 over 262144 pixels at alpha=0\.001; use n >= 184$"
    with pytest.raises(InputError, match=message):
        require_samples_for_tau(100, 0.9, 0.001, 512 * 512)
    require_samples_for_tau(184, 0.9, 0.001, 512 * 512)
    with pytest.raises(InputError):
        require_samples_for_tau(183, 0.9, 0.001, 512 * 512, correction="bonferroni")


@pytest.mark.parametrize("method", ["exact", "bernstein"])
@pytest.mark.parametrize(("alpha", "rho"), [(0.001, 0.001), (0.05, 0.01), (0.2, 0.001), (0.3, 0.3)])
@pytest.mark.parametrize("n_images", [1, 20, 500, 10_000])
def test_dataset_bound_covers(n_images: int, alpha: float, rho: float, method: str) -> None:
    """Every image wrong with probability alpha: P(share wrong > what the bound takes off) <= rho, exactly."""
    loss = 1.0 - certified_accuracy_lower(1.0, n_images, alpha, rho, method=method)
    allowed = math.floor(loss * n_images + 1e-9)
    assert stats.binom.sf(allowed, n_images, alpha) <= rho * (1 + 1e-9)
    if method == "exact" and allowed > 0:
        assert stats.binom.sf(allowed - 1, n_images, alpha) > rho * (1 - 1e-9)


def test_dataset_bound_needs_the_two_under_the_root() -> None:
    n_images, alpha, rho = 10_000, 0.2, 0.001
    log_risk = math.log(1 / rho)
    without = alpha + math.sqrt(alpha * (1 - alpha) * log_risk / n_images) + log_risk / (3 * n_images)
    assert stats.binom.sf(math.floor(without * n_images), n_images, alpha) > 2 * rho
    bernstein = alpha + math.sqrt(2 * alpha * (1 - alpha) * log_risk / n_images) + log_risk / (3 * n_images)
    assert certified_accuracy_lower(1.0, n_images, alpha, rho, "bernstein") == pytest.approx(1 - bernstein)
    assert certified_accuracy_lower(1.0, n_images, alpha, rho) > 1 - bernstein
    assert certified_accuracy_lower(0.001, 20, 0.2, 0.001) == 0.0


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("n", [5, 40, 200])
def test_clopper_pearson_interval_covers(n: int, confidence: float) -> None:
    k = np.arange(n + 1)
    low, high = proportion_interval(k, n, confidence)
    tail = (1 - confidence) / 2
    np.testing.assert_array_equal(low, clopper_pearson_lower(k, n, tail))
    np.testing.assert_array_equal(high, clopper_pearson_upper(k, n, tail))
    grid = np.concatenate([np.linspace(0.001, 0.999, 301), low[1:] * (1 - 1e-12), high[:-1] * (1 + 1e-12)])
    grid = grid[grid < 1]
    mass = stats.binom.pmf(k[None], n, grid[:, None])
    covered = (mass * ((low[None] <= grid[:, None]) & (grid[:, None] <= high[None]))).sum(1)
    assert covered.min() >= confidence - 1e-9


def test_wilson_interval_is_scipys() -> None:
    for k, n in itertools.product((0, 3, 20), (20, 50)):
        reference = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        low, high = proportion_interval(k, n, 0.95, "wilson")
        assert (float(low), float(high)) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: samples_for_radius(0.0, 1.0, 0.001), "radius"),
        (lambda: samples_for_radius(1.0, 0.0, 0.001), "sigma"),
        (lambda: samples_for_radius(7.0, 1.0, 0.001), "radius=7.0"),
        (lambda: samples_for_radius(70.0, 1.0, 0.001), "radius=70.0"),
        (lambda: samples_for_radius_at(1.1, 1.0, 1.0, 0.001), "p"),
        (lambda: samples_for_radius_at(0.5, 0.1, 1.0, 0.001), "p=0.5"),
        (lambda: samples_for_radius_at(0.5000001, 1e-7, 1.0, 0.001), "p=0.5000001"),
        (lambda: samples_for_tau(1.0, 0.001, 1), "tau"),
        (lambda: samples_for_tau(1 - 1e-10, 0.001, 1), "tau=0.9999999999"),
        (lambda: samples_for_tau(0.75, 0.001, 0), "pixels"),
        (lambda: samples_for_tau(0.75, 0.001, 10, "fdr"), "correction"),
        (lambda: samples_for_tau(0.75, 0.001, 10, "lehmann-romano"), "correction"),
        (lambda: radius_ceiling(0, 0.001, 1.0), "n"),
        (lambda: certified_accuracy_lower(1.2, 10, 0.1, 0.1), "observed"),
        (lambda: certified_accuracy_lower(0.5, 0, 0.1, 0.1), "n_images"),
        (lambda: certified_accuracy_lower(0.5, 10, 0.1, 0.0), "rho"),
        (lambda: certified_accuracy_lower(0.5, 10, 0.1, 0.1, "cohen"), "method"),
        (lambda: proportion_interval(3, 2), "k"),
        (lambda: proportion_interval(3, 5, 95), "confidence"),
        (lambda: proportion_interval(3, 5, 0.95, "wald"), "method"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(f"{name} ")
    assert time.perf_counter() - start < 2.0


def test_plan_agrees_with_the_test_itself() -> None:
    n = samples_for_tau(0.9, 0.001, 4)
    assert float(binomial_tail(n, n, 0.9)) <= 0.001 / 4 < float(binomial_tail(n - 1, n - 1, 0.9))
