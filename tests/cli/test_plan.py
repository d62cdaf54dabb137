"""The arithmetic of a forecast, and what the verb says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_helper import CLASSIFIER, SEGMENTER, call, refused
from tiny_runs import mask_spec, write_images, write_scans

from certimed.budgets import Fixed, Grid, Planned, expected
from certimed.runs import forecast
from certimed.runs.forecast import Forecast, Pilot, expected_samples
from certimed.runs.forecast import forecast as forecast_of


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
    assert expected_samples(Planned(0.05), 10, 20, 1e-3, 0.25) == Planned(0.05).cap
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
    scans = write_scans(tmp_path / "scans", 3)
    said = call("plan", "masks", *SEGMENTER, "--data", scans, "--n", 60, "--precision", "bfloat16")
    assert "70 of them an image (budget fixed:60, as 2 of the images went)" in said.text or (
        "70 of them an image (budget fixed:60, as 1 of the images went)" in said.text
    )
    assert "3 images take about 0 h 0 min" in said.text
    assert "tau 0.75 (radius 0.1686) over 64 pixels with holm needs n >= 39" in said.text  # of the data's own size
    text = call("plan", "masks", *SEGMENTER, "--data", scans, "--n", 60, "--pixels", 262_144).text
    assert "over 262,144 pixels with holm needs n >= 68" in text


def test_a_pilot_of_masks_takes_fewer_copies_than_the_run(tmp_path: Path) -> None:
    scans = write_scans(tmp_path / "scans", 3)
    job = mask_spec(scans, budget=1000).load(allow_code=True)
    drawn: list[int] = []
    record = type(job).record

    def counted(self: Any, index: int, progress: Any = None) -> Any:
        return record(self, index, lambda done: (drawn.append(done), progress(done)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(job), "record", counted)
        found = forecast_of(job)
    assert found.copies == 1005  # those of the run, known beforehand
    assert sum(drawn) == 26 * found.piloted  # fewer than 3 % of an image's


def test_classes_are_forecast_and_unreadable_images_named(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 5, broken=(2,))
    said = call("plan", "classes", *CLASSIFIER, "--data", images, "--budget", "betting:0.1")
    assert "5 images of" in said.text and "2 classes (dark, light)" in said.text
    assert "unreadable dark/00002.png" in said.err
    assert "noisy copies/s here" in said.text


def test_the_oracles_are_answered_without_model_and_data() -> None:
    text = call("plan", "classes", "--sigma", 1, "--radius", 1).text
    assert "3.199" in text and "2.463" in text
    assert "radius 1 needs n >= " in text
    assert (
        "needs n >= 184" in call("plan", "masks", "--tau", 0.9, "--pixels", 262144, "--correction", "bonferroni").text
    )
    assert "give one of them" in refused("plan", "classes", "--n", 10, "--budget", "grid")
    assert "--data is missing" not in call("plan", "masks", "--model", "demo").text


def test_nothing_is_cut_at_80_columns() -> None:
    text = call("plan", "classes", "--sigma", 0.5, "--n", 123_456_789, COLUMNS="80").out
    assert "123,456,789" in text
    assert "…" not in text
