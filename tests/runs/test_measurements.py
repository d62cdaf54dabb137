"""Runs of measurements: spacing from files and through resizing, truth, resuming and workers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
from tiny_runs import lines, write_scans

from certimed.api import run
from certimed.errors import InputError
from certimed.runs import DataSpec, MeasureTarget, RunFolder, RunSpec

nibabel = pytest.importorskip("nibabel")


def spec(images, *measurements, radii=(0.05,), **fields):
    target = MeasureTarget(measurements, radii, **fields.pop("target", {}))
    return RunSpec("python:tiny_models:segmenter", DataSpec(str(images)), target, budget=60, **fields)


def intervals(folder):
    return [record.certificates["plain, measured"].intervals for record in folder.records()]


def test_spacing_comes_from_the_files_and_through_resizing(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    disc = np.zeros((16, 16, 1), np.float32)
    disc[4:12, 4:12] = 1
    nibabel.save(nibabel.Nifti1Image(disc, np.diag([5.0, 10.0, 1.0, 1.0])), images / "a.nii")
    window = {"reading": {"window": [0.5, 1.0]}}
    data = RunSpec.from_dict({**spec(tmp_path, "area:1").to_dict(), "data": {"path": str(images), **window}}).data
    for number, size in enumerate((None, (8, 8))):
        asked = spec(tmp_path, "area:1", sigma=0.05, size=size).changed(data=data)
        own = intervals(run(asked, tmp_path / str(number), allow_code=True))[0]["area:1"]
        # 8 of 16 pixels a side, 80 mm high and 40 mm wide: 32 cm2, however the image is resized.
        assert own.unit == "cm2" and own.lower[0] <= 32 <= own.upper[0] and own.upper[0] - own.lower[0] < 16


def test_stated_spacing_is_for_files_that_do_not_say(tmp_path):
    scans = write_scans(tmp_path / "scans", 1)
    stated = spec(scans, "area:1", target={"spacing": (10.0, 10.0)})
    ((known,), (unknown,)) = (
        intervals(run(one, tmp_path / str(i), allow_code=True)) for i, one in enumerate((stated, spec(scans, "area:1")))
    )
    assert known["area:1"].unit == "cm2" and unknown["area:1"].unit == "pixels"
    assert known["area:1"].values == pytest.approx(unknown["area:1"].values)


def test_truth_is_compared_with_and_its_absence_fails_the_image_alone(tmp_path):
    scans = write_scans(tmp_path / "scans", 2)
    for one in intervals(run(spec(scans, "dice:1"), tmp_path / "a", allow_code=True)):
        assert 0 < one["dice:1"].lower[0] <= one["dice:1"].upper[0] <= 1
    bare = tmp_path / "bare"
    bare.mkdir()
    (scans / "images" / "0.png").rename(bare / "0.png")
    made = run(spec(bare, "dice:1"), tmp_path / "b", allow_code=True)
    assert [record.reason for record in made.records()] == ["0.png has no true mask, and dice:1 compares with one"]


def test_stopped_runs_go_on_and_workers_write_the_same_lines(tmp_path):
    scans = write_scans(tmp_path / "scans", 3)
    asked = spec(scans, "area:1", "diameter:1", radii=(0.05, 0.1))
    whole = run(asked, tmp_path / "whole", allow_code=True)
    run(asked, tmp_path / "crew", allow_code=True, workers=2)
    assert sorted(lines(tmp_path / "crew")) == sorted(lines(tmp_path / "whole"))
    path = tmp_path / "whole" / "certificates.jsonl"
    before = path.read_bytes()
    path.write_bytes(b"".join(before.splitlines(keepends=True)[:1]))
    run(None, tmp_path / "whole", resume=True, allow_code=True)
    assert path.read_bytes() == before
    assert RunFolder.open(tmp_path / "whole").task == "interval" and whole.verify().ok


def test_requests_survive_json_and_refuse_what_makes_no_sense(tmp_path):
    asked = spec(tmp_path, "area:1", target={"thresholds": ("area:1=9",), "taus": (0.75,)})
    assert RunSpec.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    assert (asked.n0, spec(tmp_path, "area:1").n0) == (10, 0)
    for fields, message in (
        ({"radii": (0.1, 0.05)}, "must be above 0 and rise"),
        ({"n0": 5}, "have no selection samples"),
        ({"target": {"widths": ("area:1=0",)}}, "a width must be above 0"),
        ({"target": {"widths": ("ctr=1",)}}, "is not measured"),
        ({"target": {"spacing": (0.0, 1.0)}}, "lengths above 0"),
        ({"target": {"taus": (0.4,)}}, "0.5 <= tau < 1"),
        ({"sigma": 0.01}, "Phi"),
    ):
        with pytest.raises(InputError, match=message):
            spec(tmp_path, "area:1", **fields)
