"""Attacks on sets: they find the worst of a linear model, and coverage under them keeps its promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
import torch
from cli_helper import call
from tiny_runs import class_spec, write_noise

from certimed import CalibrationSpec, DataSpec, RunSpec, attack, calibrate, run
from certimed.attacks.sets import missing
from certimed.integrity import SETTINGS_DIGEST, seal_line
from certimed.runs import RunFolder
from certimed.verification import verify

SIZES = {"calibration": 100, "test": 40}
SETTINGS = {"steps": 4, "copies": 8, "n": 60}


@pytest.fixture(scope="module", params=["lac", "aps"])
def attacked(request, tmp_path_factory):
    base = tmp_path_factory.mktemp("sets")
    images = {name: write_noise(base / name, count, count, apart=35, spread=15) for name, count in SIZES.items()}
    made = calibrate(
        CalibrationSpec(class_spec(images["calibration"]), (0.0, 0.1, 0.2), score=request.param), allow_code=True
    )
    asked = RunSpec.calibrated(made, made.save(base / "c.json"), DataSpec(str(images["test"])))
    done = run(asked, base / "run", allow_code=True)
    return done, made, attack(base / "run", allow_code=True, **SETTINGS)


def test_every_labelled_image_is_attacked_at_every_radius_and_never_beyond(attacked):
    done, _, found = attacked
    assert len(found.attacks) == 40 and {len(one.trials) for one in found.attacks} == {2}
    for one in found.attacks:
        assert [round(trial.radius, 6) for trial in one.trials] == [0.099, 0.198]
        assert all(trial.norm <= trial.radius for trial in one.trials)
    assert found.rows() == [] and found.summary() == [] and list(found.findings()) == []
    assert verify(done.folder.path).ok


def test_attacks_move_a_linear_model_as_far_as_they_may(attacked):
    """The brightness model's score is a function of the mean: the whole norm should go into it, against the class."""
    done, made, found = attacked
    job = done.spec.load(allow_code=True)
    law = job.engine.law
    for one in found.attacks[:10]:
        image = job.dataset.load(job.dataset.ids.index(one.item))
        mean = float(law.clean(law.origin(job.prepare(image).pixels)).mean())
        worst = one.trials[-1].radius / 4 * (1 if image.label == 0 else -1)
        # Of sigma / 4 noise the mean has; the share of fresh copies that hold the class follows from the threshold.
        logit = 2 * (mean + worst - 0.5) * (-1 if image.label == 0 else 1)
        most = made.thresholds[-1][image.label]
        if made.score == "lac":
            cut = np.log((1 - most) / most)
            wanted = 0.5 * (1 + torch.erf(torch.tensor((logit - cut) / (2 * 0.25 / 4) / 2**0.5))).item()
            assert abs(one.trials[-1].judged.counts[0] / 60 - wanted) < 4 * (0.25 / 60) ** 0.5 + 0.03


def test_coverage_keeps_its_promise_and_is_lower_than_without_an_attack(attacked):
    done, _, found = attacked
    rows = found.coverage()
    assert [round(row["radius"], 6) for row in rows] == [0.1, 0.2] and {row["images"] for row in rows} == {40}
    for row, place in zip(rows, (1, 2)):
        assert row["high"] >= 0.9 and row["target"] == 0.9 and row["low"] <= row["coverage"] <= row["high"]
        clean = np.mean([record.label in record.certificates["plain"].sets[place] for record in done.records()])
        assert row["coverage"] <= clean and row["fresh"] <= 1
    printed = call("attack", str(done.folder.path), "--steps", "4", "--copies", "8", "--n", "60", "--allow-code").text
    assert "sets hold the true class after an attack below radius 0.1" in printed


def test_the_loss_rises_as_the_class_leaves_the_set():
    for score, threshold in (("lac", 0.6), ("aps", 0.9)):
        losses = [float(missing(torch.tensor([[gap, 0.0, 0.0]]), 0, score, threshold)) for gap in (4.0, 1.0, 0.0, -2.0)]
        assert losses == sorted(losses)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["trials"][0]["judged"].update(counts=[60, 60]),
        lambda data: data["trials"][0]["judged"].update(answer=7),
        lambda data: data["trials"][0].update(radius=0.5),
        lambda data: data["trials"][1]["judged"].update(status="abstained"),
        lambda data: data.update(broken=None if data["broken"] is not None else 0),
    ],
)
def test_what_was_changed_is_found(attacked, tmp_path, change):
    import shutil

    copy = shutil.copytree(attacked[0].folder.path, tmp_path / "run")
    first, *others = (copy / "attacks.jsonl").read_text().splitlines()
    data = json.loads(first)
    del data["sha256"]
    change(data)
    settings = RunFolder.open(copy).manifest[SETTINGS_DIGEST]
    (copy / "attacks.jsonl").write_text("\n".join([seal_line(json.dumps(data), settings), *others]) + "\n")
    assert not verify(copy).ok
