"""Calibrations and runs of sets: units and groups, refusals, resuming, workers, shards, and what a threshold is."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
from PIL import Image
from tiny_runs import class_spec, lines

from certimed import Calibration, CalibrationSpec, DataSpec, Fixed, RunSpec, calibrate, run
from certimed.errors import InputError
from certimed.exports.summary import summary
from certimed.exports.tables import write_csv
from certimed.noise import NoiseKey, NoiseStream, as_law, content_id
from certimed.report.html.page import write_report
from certimed.report.kind_tables import table
from certimed.report.series import series
from certimed.runs import merge
from certimed.statistics import class_scores, quantile_index, robust_level
from certimed.verification import verify


def write(folder: Path, count: int, seed: int, *, patients: int = 0) -> Path:
    """Grey noise of two brightnesses; names hold a patient where there are some."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        name = ("dark", "light")[index % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        level = 128 + 60 * (2 * (index % 2) - 1) + 25 * rng.standard_normal()
        grey = np.clip(level + 5 * rng.standard_normal((4, 4)), 0, 255).astype(np.uint8)
        patient = f"p{seed}{index % patients}_" if patients else ""
        Image.fromarray(grey).save(folder / name / f"{patient}{index:05d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("images")
    return write(base / "calibration", 120, 1), write(base / "test", 12, 2)


def spec(images, radii=(0.0, 0.1, 0.2), **how):
    return CalibrationSpec(class_spec(images, **how.pop("fields", {})), radii, **how)


@pytest.fixture(scope="module")
def calibration(folders, tmp_path_factory):
    found = calibrate(spec(folders[0]), allow_code=True)
    return found, found.save(tmp_path_factory.mktemp("calibration") / "c.json")


def sets(calibration, images, out, **how):
    changes = how.pop("changes", {})
    return run(RunSpec.calibrated(*calibration, DataSpec(str(images)), **changes), out, allow_code=True, **how)


def test_a_threshold_is_the_quantile_of_scores_on_one_noisy_copy_keyed_by_content(folders, calibration):
    found = calibration[0]
    again = []
    job = class_spec(folders[0]).load(allow_code=True)
    law = as_law("grid", 0.25)
    for index in range(len(job.dataset)):
        image = job.dataset.load(index)
        x = job.prepare(image).pixels
        noise = NoiseStream(NoiseKey(3, content_id(x), "calibration"), tuple(x.shape), law=law).draw(1)
        p = job.model(law.noisy(law.origin(x), noise)).double().softmax(dim=1)[0]
        again.append(float(class_scores(p.numpy(), "lac")[image.label]))
    assert sorted(again) == sorted(found.scores) and found.m == 120
    for radius, row in zip(found.radii, found.thresholds):
        level = robust_level(0.1, radius, 0.25, found.variation)
        assert row == (sorted(again)[quantile_index(120, level) - 1],) * 2
    assert found.thresholds[0] < found.thresholds[1] < found.thresholds[2]


def test_files_survive_and_refuse_thresholds_that_scores_do_not_give(calibration, tmp_path):
    found, path = calibration
    assert Calibration.load(path) == found and Calibration.load(path).digest == found.digest
    data = json.loads(path.read_text())
    assert data["statement"] == found.statement() and "exchangeable" in data["statement"]
    assert list(data)[-1] == "statement" and not any("png" in one for one in data["content"])
    data["thresholds"][0][0] -= 1e-9
    (tmp_path / "c.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="not those that its scores give"):
        Calibration.load(tmp_path / "c.json")


def test_sets_hold_the_classes_within_the_threshold_and_say_what_is_proved(calibration, folders, tmp_path):
    made = sets(calibration, folders[1], tmp_path / "run")
    assert verify(tmp_path / "run").ok
    for record in made.records():
        one = record.certificates["plain"]
        scores = class_scores(one.claim.probabilities, "lac")
        assert one.scope == "marginal" and one.alpha == 0.1 and one.n == 1
        for row, own in zip(calibration[0].thresholds, one.sets):
            assert own == tuple(np.flatnonzero(scores <= np.array(row)))
        assert set(one.sets[0]) <= set(one.sets[1]) <= set(one.sets[2])
        if not one.abstained:
            assert "misses the true class with probability at most 0.1 over calibration images" in one.statement()
            assert "nothing is said about this image alone" in one.statement()
    rows = summary(made.folder)["results"]["plain"]["sets"]
    assert [row["radius"] for row in rows] == [0.0, 0.1, 0.2] and all(0 <= row["low"] <= row["high"] for row in rows)
    assert write_csv(made.folder, tmp_path / "a.csv") == 36
    assert table(series([tmp_path / "run"])).rows[0].cells[2] == "LAC"
    page = (tmp_path / "page.html", write_report([tmp_path / "run"], tmp_path / "page.html"))[0].read_text()
    assert 'id="sets"' in page and "Nothing is said about one image alone" in page and "{dark}" in page
    assert "alters the smoothed model" not in page
    assert len(made.plot().axes) == 2


def test_stopped_runs_go_on_without_the_file_and_workers_and_shards_write_the_same_lines(
    calibration, folders, tmp_path
):
    found, _ = calibration
    moved = found.save(tmp_path / "moved.json")
    whole = sets((found, moved), folders[1], tmp_path / "whole")
    for number in (1, 2):
        sets(calibration, folders[1], tmp_path / f"part{number}", shard=f"{number}/2")
    merge([tmp_path / "part1", tmp_path / "part2"], tmp_path / "merged").close()
    assert lines(tmp_path / "merged") == lines(whole)
    text = tmp_path / "whole" / "certificates.jsonl"
    before = text.read_bytes()
    text.write_bytes(b"".join(before.splitlines(keepends=True)[:3]))
    moved.unlink()
    run(None, tmp_path / "whole", resume=True, allow_code=True)
    assert text.read_bytes() == before
    other = calibrate(spec(folders[0], score="aps"), allow_code=True)
    with pytest.raises(InputError, match=r"calibration\.\w+ was"):
        sets((other, other.save(tmp_path / "other.json")), folders[1], tmp_path / "whole", resume=True)


@pytest.mark.slow
def test_workers_write_the_same_lines(calibration, folders, tmp_path):
    whole = sets(calibration, folders[1], tmp_path / "whole")
    sets(calibration, folders[1], tmp_path / "crew", workers=2)
    assert lines(tmp_path / "crew") == lines(whole)


def test_too_few_images_are_refused_with_the_number_that_would_do(folders):
    with pytest.raises(InputError, match=r"120 calibration images are too few at level .*: 1[0-9]+ are needed"):
        calibrate(spec(folders[0], (0.3,)), allow_code=True)
    with pytest.raises(InputError, match=r"class dark has 60 calibration images, too few .* are needed of every class"):
        calibrate(spec(folders[0], (0.25,), class_conditional=True), allow_code=True)


def test_classes_calibrated_by_themselves_have_thresholds_of_their_own(folders):
    found = calibrate(spec(folders[0], (0.0, 0.1), class_conditional=True), allow_code=True)
    for level, row in zip(found.levels(), found.thresholds):
        for label in (0, 1):
            own = sorted(score for score, its in zip(found.scores, found.labels) if its == label)
            assert row[label] == own[quantile_index(60, level) - 1]
    assert found.thresholds[0][0] != found.thresholds[0][1] and "within each class" in found.statement()


def test_adaptive_sets_are_calibrated_on_their_own_score(folders):
    found = calibrate(spec(folders[0], score="aps"), allow_code=True)
    assert max(found.scores) == 1.0 and found.thresholds[-1][0] == 1.0  # of two classes the second has all the mass


def test_groups_are_the_units_one_image_of_each_drawn_by_the_seed(tmp_path):
    images = write(tmp_path / "grouped", 120, 5, patients=40)
    pattern = r"(p\d+)_"
    found = calibrate(spec(images, (0.1,), group=pattern), allow_code=True)
    assert found.m == 40 == len(found.groups) and found.left_out["same group"] == 80 and len(found.content) == 120
    other = calibrate(spec(images, (0.1,), group=pattern, fields={"seed": 9}), allow_code=True)
    assert sorted(other.scores) != sorted(found.scores) and other.groups == found.groups
    path = found.save(tmp_path / "c.json")
    test = write(tmp_path / "test", 2, 6)
    Image.fromarray(np.full((4, 4), 99, np.uint8)).save(test / "dark" / "p53_new.png")
    for one in (test / "dark" / "00000.png", test / "light" / "00001.png"):
        one.rename(one.with_name(f"p99_{one.name}"))
    reasons = {r.item: r.reason for r in sets((found, path), test, tmp_path / "run").records()}
    assert reasons.pop("dark/p53_new.png") == (
        "dark/p53_new.png is of a group (patient, sequence) that was calibrated on; a test image must not be"
    )
    assert set(reasons.values()) == {None}
    with pytest.raises(InputError, match="finds nothing in"):
        calibrate(spec(images, (0.1,), group=r"^(x)"), allow_code=True)
    with pytest.raises(InputError, match="regular expression with one bracket"):
        spec(images, group="p[0-9]+")


def test_calibration_images_are_refused_as_test_images_whatever_they_are_called(calibration, folders, tmp_path):
    (tmp_path / "test" / "dark").mkdir(parents=True)
    (tmp_path / "test" / "light").mkdir()
    first = sorted((folders[0] / "dark").iterdir())[0]
    (tmp_path / "test" / "dark" / "renamed.png").write_bytes(first.read_bytes())
    (tmp_path / "test" / "light" / "a.png").write_bytes(sorted((folders[1] / "light").iterdir())[0].read_bytes())
    reasons = {r.item: r.reason for r in sets(calibration, tmp_path / "test", tmp_path / "run").records()}
    assert reasons == {
        "dark/renamed.png": "dark/renamed.png was a calibration image; a test image must not be",
        "light/a.png": None,
    }


def test_second_copies_and_broken_files_are_no_units(folders, tmp_path):
    for name in ("dark", "light"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for path in sorted((folders[0] / name).iterdir())[:20]:
            (tmp_path / "images" / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "dark" / "copy.png").write_bytes((sorted((folders[0] / "dark").iterdir())[0]).read_bytes())
    (tmp_path / "images" / "light" / "broken.png").write_bytes(b"no image")
    found = calibrate(spec(tmp_path / "images", (0.1,)), allow_code=True)
    assert found.m == 40 and found.left_out == {"unusable": 1, "second copy": 1, "same group": 0}


def test_another_model_or_setting_than_the_calibration_is_refused(calibration, folders, tmp_path):
    for changes, message in (
        ({"sigma": 0.3}, "sigma 0.3 is not the calibration's 0.25"),
        ({"alpha": 0.2}, "alpha 0.2 is not the calibration's 0.1"),
        ({"model": "python:tiny_models:shifted"}, "model .* is not the calibration's"),
        ({"budget": "fixed:2"}, "take one noisy copy of an image; use fixed:1"),
        ({"n0": 3}, "sets have no selection samples"),
        ({"noise": "float32"}, "noise 'float32' is not"),
    ):
        with pytest.raises(InputError, match=message):
            sets(calibration, folders[1], tmp_path / "run", changes=changes)
    for how, message in (
        ({"radii": (0.2, 0.1)}, "must be at least 0 and rise"),
        ({"radii": (0.0,)}, "above 0"),
        ({"alpha": 1.0}, "alpha must"),
        ({"score": "raps"}, "score 'raps' is unknown"),
        ({"fields": {"methods": ("plain", "zero-shot")}}, "calibrate one at a time|a calibration is of one"),
    ):
        with pytest.raises(InputError, match=message):
            spec(folders[0], **how)


def test_requests_survive_json(calibration, folders):
    asked = RunSpec.calibrated(*calibration, DataSpec(str(folders[1])))
    assert RunSpec.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    assert (asked.n0, asked.budget, asked.alpha) == (0, "fixed:1", 0.1)


def test_coverage_of_a_real_run_under_a_white_box_attack(calibration, tmp_path):
    """The brightness model is linear, so that the worst attack is known: every value moves the same way."""
    found = calibration[0]
    images = write(tmp_path / "test", 200, 11)
    job = RunSpec.calibrated(*calibration, DataSpec(str(images))).load(allow_code=True)
    radius, hits = found.radii[-1], 0
    for index in range(len(job.dataset)):
        image = job.dataset.load(index)
        x = job.prepare(image).pixels
        step = radius * (1 - 1e-6) / math.sqrt(x.numel())
        attacked = x + step * (1 if image.label == 0 else -1)
        result = job.engine.run(
            attacked, job.target, Fixed(1), n0=0, alpha=0.1, seed=5, item_id=image.id
        )  # fmt: skip
        hits += image.label in result["plain"].certificate.sets[-1]
    # Given the calibration coverage varies as Beta(k, m + 1 - k) does; 200 images add three standard errors.
    assert hits / 200 >= 0.9 - 3 * math.sqrt(0.09 / 200) - 0.06
