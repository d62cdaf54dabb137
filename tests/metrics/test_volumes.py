"""Slices by volume: nothing is lost, and what holds at once is bounded from above."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certimed.metrics import count_pixels
from certimed.metrics.volumes import CutVolume, all_at_once, by_volume, summed


def test_slices_are_found_again_whatever_the_volume_is_called():
    items = ["p/a#b.nii#0003", "p/a#b.nii#0010", "plain.dcm", "c#0000", "c#12345"]
    assert by_volume(items, ["c#0001", "lost.nii"]) == [
        CutVolume("p/a#b.nii", (0, 1), 0),
        CutVolume("plain.dcm", (2,), 0),
        CutVolume("c", (3, 4), 1),
        CutVolume("lost.nii", (), 1),
    ]


@given(st.lists(st.floats(1e-12, 0.05), max_size=60))
def test_the_union_bound_is_never_below_the_exact_sum(alphas):
    found, exact = all_at_once(alphas), sum(map(Fraction, alphas), Fraction(0))
    assert Fraction(found) >= min(exact, Fraction(1)) and found <= 1.0
    assert found == pytest.approx(min(1.0, float(exact)), rel=1e-15)


def test_counts_of_slices_add_up_to_those_of_the_volume():
    generator = np.random.default_rng(0)
    mask, truth = generator.integers(0, 3, (2, 5, 6, 7))
    certified = generator.random((5, 6, 7)) < 0.7
    whole = count_pixels(mask, certified, truth, 3)
    parts = summed([count_pixels(m, c, t, 3) for m, c, t in zip(mask, certified, truth)])
    for name in ("true_positive", "predicted", "truth", "abstained"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))
    assert parts.pixels == whole.pixels
