"""Count thresholds against plain step-down tests, published oracles, and exact error rates by enumeration."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import (
    alpha_split,
    binomial_tail,
    bonferroni_threshold,
    clopper_pearson_lower,
    count_threshold,
    holm_threshold,
    holm_thresholds,
    minimum_count,
    radius_from_lower,
    radius_map_bonferroni,
)

Threshold = Callable[[np.ndarray, int, float, float], "int | None"]


def step_down(p_values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Any step-down test, pixel by pixel: sort, accept while below the threshold, stop at the first failure."""
    order = np.argsort(p_values, kind="stable")
    accepted = np.zeros(p_values.size, dtype=bool)
    for rank, pixel in enumerate(order):
        if p_values[pixel] > thresholds[rank]:
            break
        accepted[pixel] = True
    return accepted


def certified(counts: np.ndarray, threshold: int | None) -> np.ndarray:
    return np.zeros(counts.shape, dtype=bool) if threshold is None else counts >= threshold


def test_thresholds_equal_plain_step_down_tests_on_random_cases() -> None:
    rng = np.random.default_rng(11)
    certifying = 0
    for case in range(1_000):
        n, pixels = int(rng.integers(5, 150)), int(rng.integers(1, 200))
        tau, alpha = float(rng.uniform(0.3, 0.95)), float(10 ** rng.uniform(-4, -0.5))
        spread = rng.uniform(tau - 0.1, 1, pixels) if case % 2 else np.full(pixels, min(0.99, tau + 0.2))
        counts = rng.binomial(n, np.clip(spread, 0, 1))
        histogram = np.bincount(counts, minlength=n + 1)
        p_values = stats.binom.sf(counts - 1, n, tau)
        holm = step_down(p_values, alpha / (pixels - np.arange(pixels)))
        np.testing.assert_array_equal(certified(counts, holm_threshold(histogram, n, tau, alpha)), holm)
        bonferroni = certified(counts, bonferroni_threshold(n, tau, alpha, pixels))
        np.testing.assert_array_equal(bonferroni, p_values <= alpha / pixels)
        assert (bonferroni <= holm).all()
        certifying += bool(holm.any() and not holm.all())
    assert certifying > 100


@pytest.mark.parametrize(
    ("n", "tau", "pixels", "first"),
    [
        (100, 0.75, 110_592, 97),
        (100, 0.75, 196_608, 97),
        (100, 0.75, 262_144, 97),
        (100, 0.75, 2**21, 98),
        (1_000, 0.75, 110_592, 825),
        (1_000, 0.75, 196_608, 827),
        (1_000, 0.75, 262_144, 827),
        (100, 0.9, 262_144, None),
    ],
)
def test_published_first_steps(n: int, tau: float, pixels: int, first: int | None) -> None:
    assert bonferroni_threshold(n, tau, 0.001, pixels) == first
    # Holm's first step is the same: all pixels tied at that count are certified, one lower and none is.
    for count in range(n - 10 if first is None else first - 2, n + 1 if first is None else first + 2):
        histogram = np.zeros(n + 1, dtype=np.int64)
        histogram[count] = pixels
        expected = count if first is not None and count >= first else None
        assert holm_threshold(histogram, n, tau, 0.001) == expected


@pytest.mark.parametrize(("n", "last"), [(100, 89), (1_000, 793)])
def test_published_last_step(n: int, last: int) -> None:
    assert minimum_count(n, 0.75, 0.001) == last
    histogram = np.zeros(n + 1, dtype=np.int64)
    histogram[n] = 262_143
    histogram[last] = 1
    assert holm_threshold(histogram, n, 0.75, 0.001) == last
    histogram[[last, last - 1]] = [0, 1]
    assert holm_threshold(histogram, n, 0.75, 0.001) == n


def test_89_of_100_does_not_certify_two_million_pixels() -> None:
    histogram = np.zeros(101, dtype=np.int64)
    histogram[89] = 2**21
    assert holm_threshold(histogram, 100, 0.75, 0.001) is None
    histogram[[89, 97]] = [0, 2**21]
    assert holm_threshold(histogram, 100, 0.75, 0.001) is None
    histogram[[97, 98]] = [0, 2**21]
    assert holm_threshold(histogram, 100, 0.75, 0.001) == 98


def test_the_walk_stops_at_the_first_failure() -> None:
    """A group that fails shields the groups below it, even where their own step would pass."""
    n, tau, alpha = 100, 0.75, 0.001
    histogram = np.zeros(n + 1, dtype=np.int64)
    histogram[[100, 91, 90]] = [10, 10_000, 1]
    assert holm_threshold(histogram, n, tau, alpha) == 100
    assert float(binomial_tail(90, n, tau)) <= alpha


def test_minimum_count_is_the_smallest_by_exhaustion() -> None:
    for n, tau, alpha in itertools.product((1, 2, 7, 40, 333), (0.1, 0.5, 0.75, 0.99), (0.3, 0.01, 1e-6)):
        passing = np.flatnonzero(stats.binom.sf(np.arange(n + 1) - 1, n, tau) <= alpha)
        assert minimum_count(n, tau, alpha) == (int(passing[0]) if passing.size else None)


def rejections(procedure: Threshold, n: int, tau: float, alpha: float, pixels: int) -> np.ndarray:
    """Certified pixels for every possible vector of counts, shape ((n + 1)^pixels, pixels); cached over orderings."""
    cache: dict[tuple[int, ...], int | None] = {}
    rows = []
    for counts in itertools.product(range(n + 1), repeat=pixels):
        key = tuple(sorted(counts))
        if key not in cache:
            cache[key] = procedure(np.bincount(key, minlength=n + 1), n, tau, alpha)
        rows.append(n + 1 if cache[key] is None else cache[key])
    grid = np.stack(np.meshgrid(*[np.arange(n + 1)] * pixels, indexing="ij"), -1).reshape(-1, pixels)
    return grid >= np.array(rows)[:, None]


def error_rate(rejected: np.ndarray, probabilities: tuple[float, ...], n: int, tau: float) -> float:
    """P(a pixel with p <= tau is certified) for independent pixels, an exact sum."""
    mass = np.ones(1)
    for p in probabilities:
        mass = np.outer(mass, stats.binom.pmf(np.arange(n + 1), n, p)).ravel()
    null = np.array(probabilities) <= tau
    return float(mass[(rejected & null).any(1)].sum())


PROBABILITIES = (0.5, 0.75, 0.85, 0.99)


@pytest.mark.parametrize(("pixels", "n"), [(2, 60), (3, 20), (4, 9)])
@pytest.mark.parametrize("alpha", [0.3, 0.05])
def test_family_wise_error_is_at_most_alpha(pixels: int, n: int, alpha: float) -> None:
    tau = 0.75

    def bonferroni(histogram: np.ndarray, n: int, tau: float, alpha: float) -> int | None:
        return bonferroni_threshold(n, tau, alpha, int(histogram.sum()))

    for procedure in (holm_threshold, bonferroni):
        rejected = rejections(procedure, n, tau, alpha, pixels)
        for probabilities in itertools.combinations_with_replacement(PROBABILITIES, pixels):
            assert error_rate(rejected, probabilities, n, tau) <= alpha, (procedure, probabilities)


def test_family_wise_error_uses_its_level() -> None:
    """At a level the lattice attains, the error is nearly alpha: alpha/2, or a count one too high, would be seen."""
    n, tau, pixels = 60, 0.75, 2
    alpha = pixels * float(binomial_tail(52, n, tau))
    rejected = rejections(holm_threshold, n, tau, alpha, pixels)
    assert 0.95 * alpha <= error_rate(rejected, (tau, tau), n, tau) <= alpha
    # With one certain true effect Holm tests the other pixel at the full level, Bonferroni at half of it.
    level = float(binomial_tail(52, n, tau))
    single = rejections(holm_threshold, n, tau, level, pixels)
    assert 0.999 * level <= error_rate(single, (tau, 1.0), n, tau) <= level * (1 + 1e-9)


def test_error_under_the_worst_dependence_of_shared_noise() -> None:
    """All pixels share one count (perfect dependence): an error needs the common p-value at the first step."""
    n, tau, alpha, pixels = 80, 0.75, 0.05, 10
    rate = 0.0
    for count in range(n + 1):
        histogram = np.zeros(n + 1, dtype=np.int64)
        histogram[count] = pixels
        if holm_threshold(histogram, n, tau, alpha) is not None:
            rate += stats.binom.pmf(count, n, tau)
    assert 0 < rate <= alpha / pixels


@pytest.mark.parametrize("variation", [0.01, 0.05])
def test_radius_maps_hold_although_the_noise_is_off(variation: float) -> None:
    """Exactly: two pixels of true probability p, counted under noise that is off by the whole variation upwards."""
    n, alpha, sigma, worst = 40, 0.1, 1.0, 0.0
    for p in (0.5, 0.6, 0.75, 0.9):
        counts = np.arange(n + 1)
        radii, uncharged = (
            np.array([float(radius_map_bonferroni([k], n, alpha, 2, sigma, v)[0]) for k in counts])
            for v in (variation, 0.0)
        )
        wrong = radii > sigma * float(stats.norm.ppf(p))
        one = float(stats.binom.pmf(counts, n, min(p + variation, 1.0))[wrong].sum())
        worst = max(worst, 1 - (1 - one) ** 2)
        assert 1 - (1 - one) ** 2 <= alpha
        assert (radii <= uncharged).all()
    assert worst > 0.1 * alpha


def test_several_taus_share_alpha() -> None:
    rng = np.random.default_rng(5)
    counts = rng.binomial(200, 0.95, 500)
    histogram = np.bincount(counts, minlength=201)
    taus = (0.7, 0.8, 0.9)
    ours = holm_thresholds(histogram, 200, taus, 0.001)
    assert ours == tuple(holm_threshold(histogram, 200, tau, 0.001 / 3) for tau in taus)
    with pytest.raises(InputError, match=r"^weights "):
        holm_thresholds(histogram, 200, (), 0.001)


def test_alpha_split_never_exceeds_alpha() -> None:
    from fractions import Fraction

    rng = np.random.default_rng(1)
    for parts in (1, 3, 7, 1_000):
        weights = rng.uniform(0.1, 5, parts)
        for shares in (alpha_split(0.001, parts), alpha_split(0.001, weights.tolist())):
            assert shares.shape == (parts,)
            assert sum(Fraction(float(s)) for s in shares) <= Fraction(0.001)
            assert shares.sum() == pytest.approx(0.001, rel=1e-9)
    np.testing.assert_allclose(alpha_split(0.01, [1, 4]), [0.002, 0.008], rtol=1e-9)
    for wrong in (0, [], [1, -1], [[1], [2]], True):
        with pytest.raises(InputError):
            alpha_split(0.001, wrong)


@pytest.mark.parametrize(
    ("n", "pixels", "alpha"), [(100, 262_144, 0.001), (7, 4, 0.9), (2, 1, 0.4), (5, 1, 0.6), (10, 1, 0.9)]
)
def test_radius_map_is_the_bound_of_each_count(n: int, pixels: int, alpha: float) -> None:
    for k in range(n + 1):
        expected = radius_from_lower(clopper_pearson_lower(k, n, alpha / pixels), 0.5)
        assert radius_map_bonferroni(np.array([k], dtype=np.uint16), n, alpha, pixels, 0.5) == expected
    image = np.array([[n, n - 1], [n // 2, 0]], dtype=np.uint8)
    level = alpha / max(pixels, image.size)
    whole = radius_map_bonferroni(image, n, alpha, max(pixels, image.size), 0.5)
    np.testing.assert_array_equal(whole, radius_from_lower(clopper_pearson_lower(image, n, level), 0.5))


def test_radius_map_agrees_with_the_bonferroni_threshold() -> None:
    n, pixels, alpha = 1_000, 262_144, 0.001
    radius = radius_map_bonferroni(np.arange(n + 1), n, alpha, pixels, 1.0)
    for tau in (0.6, 0.75, 0.9):
        threshold = bonferroni_threshold(n, tau, alpha, pixels)
        reached = np.flatnonzero(radius >= stats.norm.ppf(tau))
        assert threshold == reached[0]


def test_radius_map_is_a_copy_the_caller_may_change() -> None:
    first = radius_map_bonferroni([100, 99], 100, 0.001, 10, 0.5)
    expected = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(radius_map_bonferroni([100, 99], 100, 0.001, 10, 0.5), expected)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: holm_threshold(np.ones(100, dtype=int), 100, 0.75, 0.001), "histogram"),
        (lambda: holm_threshold(np.ones(101), 100, 0.75, 0.001), "histogram"),
        (lambda: holm_threshold(np.zeros(101, dtype=int), 100, 0.75, 0.001), "histogram"),
        (lambda: holm_threshold(-np.ones(101, dtype=int), 100, 0.75, 0.001), "histogram"),
        (lambda: holm_threshold(np.ones(101, dtype=int), 100, 1.0, 0.001), "tau"),
        (lambda: holm_threshold(np.ones(101, dtype=int), 100, 0.75, 0.0), "alpha"),
        (lambda: bonferroni_threshold(100, 0.75, 0.001, 0), "pixels"),
        (lambda: count_threshold(np.ones(101, dtype=int), 100, 0.75, 0.001, "fdr"), "correction='fdr'"),
        (lambda: minimum_count(0, 0.75, 0.001), "n"),
        (lambda: radius_map_bonferroni([101], 100, 0.001, 1, 0.5), "k"),
        (lambda: radius_map_bonferroni([100, 100], 100, 0.001, 1, 0.5), "pixels"),
        (lambda: radius_map_bonferroni([100], 100, 0.001, 1, 0.0), "sigma"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} "):
        call()


def test_statistics_of_a_large_image_take_at_most_five_milliseconds() -> None:
    n, pixels = 1_000, 512 * 512
    counts = np.random.default_rng(0).binomial(n, 0.9, pixels).astype(np.uint16).reshape(512, 512)
    histogram = np.bincount(counts.ravel(), minlength=n + 1)
    times = []
    for repeat in range(7):
        start = time.perf_counter()
        threshold = holm_threshold(histogram, n, 0.75, 0.001)
        assert threshold is not None and (counts >= threshold).any()
        # Another sigma each time: the cached table of radii must not flatter the figure.
        radius_map_bonferroni(counts, n, 0.001, pixels, 0.5 + repeat)
        times.append(time.perf_counter() - start)
    assert min(times) <= 0.005
