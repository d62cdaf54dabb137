"""What the grid law costs in radius, from the recorded runs that are kept with the results."""

from pathlib import Path

import pytest

from benchmarks.noise import RADIUS_BAR, REAL, RECORDED, mean_radii

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("name", RECORDED)
def test_the_grid_costs_next_to_no_radius(name):
    means = mean_radii(RESULTS, name, RECORDED[name])
    assert 1 - RADIUS_BAR / 100 < means["grid"] / means["float32"] < 1
    assert 0.002 < means["grid"] - means[REAL] < 0.003
