"""The consistency test of redrawn masks: exact level, power where it claims it, shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from certimed.errors import InputError
from certimed.verification.resampling import LEVEL, compare_masks


def compare(first, second, n=100, classes=None):
    first, second = np.atleast_1d(first), np.atleast_1d(second)
    zeros = np.zeros(first.shape, dtype=np.uint8)
    return compare_masks("x", "plain", n, (zeros, first), (zeros if classes is None else classes, second))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_level_of_two_pixels_is_exact(p):
    """Two independent pixels of equal probability in both draws: the chance of a p-value below u is at most u."""
    n = 6
    chance = stats.binom.pmf(np.arange(n + 1), n, p)
    below = dict.fromkeys((0.01, 0.1, 0.3), 0.0)
    for counts in itertools.product(range(n + 1), repeat=4):
        found = compare(counts[:2], counts[2:], n)
        for level in below:
            below[level] += chance[list(counts)].prod() * (found.p_value <= level)
    assert all(found <= level for level, found in below.items())


def test_p_value_is_fishers_times_the_pixels():
    found = compare([90, 80, 50], [70, 81, 50])
    fisher = min(
        2 * stats.hypergeom.sf(89, 200, 160, 100),
        1.0,
    )
    assert (found.moved, found.pixels, found.equal) == (2, 3, False)
    assert found.p_value == pytest.approx(3 * fisher, rel=1e-9)


def test_equal_draws_are_equal_and_one_moved_class_is_not():
    counts = np.array([[90, 100], [3, 70]])
    assert compare(counts, counts.astype(np.uint16)).equal
    moved = compare(counts, counts, classes=np.array([[0, 1], [0, 0]]))
    assert (moved.moved, moved.equal, moved.consistent) == (1, False, True)


def test_power_is_what_the_docs_say():
    wide = np.full((512, 512), 80)
    for found, verdict in ((57, False), (58, True)):
        first, second = wide.copy(), wide.copy()
        first[5, 7], second[5, 7] = 97, found
        assert compare(first, second).consistent is verdict


def test_independent_draws_of_a_large_image_are_consistent():
    rng = np.random.default_rng(0)
    p = rng.random((256, 256))
    found = compare(rng.binomial(1_000, p), rng.binomial(1_000, p), 1_000)
    assert not found.equal and found.p_value > LEVEL * 1e3


def test_shapes_must_agree():
    with pytest.raises(InputError, match="different shapes"):
        compare(np.zeros(3, dtype=int), np.zeros(4, dtype=int))
