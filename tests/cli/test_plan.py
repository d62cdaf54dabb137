"""The arithmetic of a forecast, and what the verb says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from certimed.budgets import Fixed, Grid, Precision, expected
from certimed.cli import forecast
from certimed.cli.app import app
from certimed.cli.forecast import Forecast, Pilot, expected_samples
from certimed.segmenters.small_unet import SmallUNet


def test_a_run_is_its_images_times_overhead_and_copies() -> None:
    pilots = [
        Pilot(seconds=99.0, copies=10, copy_seconds=5.0, expected_copies=100),  # warms up: its times are left out
        Pilot(seconds=3.0, copies=100, copy_seconds=0.02, expected_copies=100),
        Pilot(seconds=3.5, copies=100, copy_seconds=0.03, expected_copies=400),
        Pilot(seconds=9.0, copies=100, copy_seconds=0.02, expected_copies=1000),
    ]
    assert [one.overhead for one in pilots[1:]] == [1.0, 0.5, 7.0]
    found = Forecast.of(pilots, images=50)
    assert (found.copy_seconds, found.overhead, found.copies, found.piloted) == (0.02, 1.0, 400.0, 4)
    assert found.seconds == pytest.approx(50 * (1.0 + 400 * 0.02))
    assert Forecast.of(pilots[1:2], images=2).seconds == pytest.approx(2 * (1.0 + 100 * 0.02))


def test_noise_of_the_clock_makes_no_negative_overhead() -> None:
    assert Pilot(seconds=1.0, copies=100, copy_seconds=0.011, expected_copies=1).overhead == 0


def test_expected_samples_follow_the_budget_for_the_probability_seen() -> None:
    assert expected_samples(Fixed(1234), 10, 20, 1e-3, 0.25) == 1234
    assert expected_samples(Precision(0.05), 10, 20, 1e-3, 0.25) == Precision(0.05).cap
    # With many pilot samples the posterior is a point, and the forecast the exact expectation there.
    budget = Grid()
    exact = expected(budget, 0.9, 1e-3, 0.25).samples
    assert expected_samples(budget, 900_000, 1_000_000, 1e-3, 0.25) == pytest.approx(exact, rel=0.02)
    # An image on which everything agrees costs less than the cap, and so does one that gives up.
    assert expected_samples(budget, 40, 200, 1e-3, 0.25) < budget.cap / 4


def test_the_clock_times_full_batches() -> None:
    clock = forecast._Clock()
    clock.batches = [(32, 9.0), (32, 3.2), (4, 4.0), (32, 6.4), (32, 3.2)]
    assert clock.copy_seconds() == pytest.approx(0.1)
    clock.batches = [(5, 1.0)]
    assert clock.copy_seconds() == pytest.approx(0.2)


def test_masks_are_piloted_as_the_run_certifies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "PILOT_IMAGES", 2)
    network, data = tmp_path / "net", tmp_path / "images"
    SmallUNet(1, 2, (4, 8), 2).save(network)
    data.mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype=np.uint8)):
        Image.fromarray(pixels).save(data / f"{index}.png")
    words = ["plan", "--task", "segment", "--model", str(network), "--output", "logits", "--data", str(data)]
    result = CliRunner().invoke(app, [*words, "--n", "60", "--precision", "bfloat16"])
    text = " ".join(result.output.split())
    assert result.exit_code == 0, text
    assert "70 of them an image (n 60, as 2 of the images went)" in text
    assert "3 images take about 0 h 0 min" in text


def test_masks_without_data_cannot_be_forecast() -> None:
    result = CliRunner().invoke(app, ["plan", "--task", "segment", "--model", "demo"])
    assert result.exit_code == 2
    assert "--data is missing" in result.output
