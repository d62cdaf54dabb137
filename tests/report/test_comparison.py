"""Two runs compared: figures, intervals, what is no pair, and the exit code that a pipeline stops on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helper import SIZE, call, refused
from PIL import Image
from tiny_runs import class_spec, full_run, mask_spec, write_scans

import certimed
from certimed import InputError, MaskTarget, MeasureTarget
from certimed.metrics import mean_interval
from certimed.statistics import difference_interval

COUNT = 24


def write_levels(folder: Path) -> Path:
    """Grey squares on both sides of one half, the dark ones so near to it that a shifted model takes them for light;
    one cannot be read."""
    for index in range(COUNT):
        path = folder / ("dark" if index % 2 else "light") / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIZE, SIZE), (95 if index % 2 else 180) + index, np.uint8)).save(path)
    path.write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the same by a worse model, the same by the same model, and others that are no pair."""
    base = tmp_path_factory.mktemp("comparison")
    spec = class_spec(write_levels(base / "images"), sigma=0.1)
    full_run(spec, base / "old")
    full_run(spec, base / "same")
    full_run(spec.changed(model="python:tiny_models:shifted"), base / "new")
    full_run(spec.changed(sigma=0.2), base / "sigma")
    full_run(spec.changed(seed=4), base / "seed")
    full_run(spec.changed(budget=80), base / "budget")
    full_run(spec, base / "part", shard="1/2")
    full_run(spec.changed(data=replace(spec.data, limit=8)), base / "fewer")
    masks = mask_spec(write_scans(base / "scans", 5))
    full_run(masks, base / "masks")
    full_run(masks.changed(model="python:tiny_models:other_segmenter"), base / "other-masks")
    full_run(masks.changed(target=MaskTarget(taus=(0.8,))), base / "tau")
    full_run(masks.changed(target=MeasureTarget(("area:1",), (0.05,)), n0=0), base / "measured")
    return base


def hits(run: Path, radius: float) -> dict[str, bool]:
    """Right and certified beyond the radius, from the lines of a run; failed images are not."""
    found = {}
    for record in certimed.load_run(run).records():
        one = record.certificates.get("plain")
        found[record.item] = (
            one is not None and not one.abstained and one.prediction == record.label and one.radius > radius
        )
    return found


def test_every_row_is_what_the_lines_say(place: Path) -> None:
    found = certimed.compare(place / "old", place / "new")
    assert [row.where for row in found.rows] == ["r=0", "r=0.1"]  # 50 samples reach no more at this sigma
    for row in found.rows:
        own, its = (hits(place / name, float(row.where[2:])) for name in ("old", "new"))
        assert row.before == pytest.approx(sum(own.values()) / COUNT)
        assert row.after == pytest.approx(sum(its.values()) / COUNT)
        gained = sum(its[item] and not own[item] for item in own)
        lost = sum(own[item] and not its[item] for item in own)
        assert (row.gained, row.lost, row.images, row.metric) == (gained, lost, COUNT, "certified accuracy")
        assert (row.low, row.high) == difference_interval(gained, lost, COUNT, 1 - 0.05 / 2)
        assert row.low <= row.difference <= row.high
    assert found.losses and found.losses[0].where == "r=0"
    assert set(found.changed) == {"model", "model identity"}
    assert "a loss is shown: plain at r=0" in found.verdict()


def test_a_margin_allows_a_loss_and_the_same_run_has_none(place: Path) -> None:
    assert not certimed.compare(place / "old", place / "new", margin=0.9).losses
    same = certimed.compare(place / "old", place / "same")
    assert not same.losses and not same.changed
    assert all(row.gained == row.lost == 0 and row.low < 0 < row.high for row in same.rows)
    assert "no loss is shown" in same.verdict()
    # A longer budget is another run of the same noise: told, not refused.
    assert set(certimed.compare(place / "old", place / "budget").changed) == {"budget"}
    wide, narrow = (certimed.compare(place / "old", place / "new", confidence=c).rows[0] for c in (0.99, 0.5))
    assert wide.high - wide.low > narrow.high - narrow.low


def test_guaranteed_dice_is_paired(place: Path) -> None:
    found = certimed.compare(place / "masks", place / "other-masks")
    (row,) = found.rows
    assert (row.metric, row.method) == ("guaranteed Dice", "plain")

    def dice(name: str) -> dict[str, float]:
        records = certimed.load_run(place / name).records()
        return {one.item: one.scores["plain"].per_class["guaranteed Dice"][1] for one in records}

    own, its = dice("masks"), dice("other-masks")
    change = np.array([its[item] - own[item] for item in sorted(own)])
    assert row.difference == pytest.approx(change.mean())
    spread = mean_interval((change + 1) / 2, None, confidence=0.95)
    assert (row.low, row.high) == pytest.approx((2 * spread.low - 1, 2 * spread.high - 1))
    assert (row.gained, row.lost) == ((change > 0).sum(), (change < 0).sum())


def test_the_command_says_it_and_a_pipeline_stops(place: Path) -> None:
    said = call("compare", place / "old", place / "new", code=1, COLUMNS="80")
    assert "differs: model, python:tiny_models:classifier before" in said.text
    assert "a loss is shown: plain at r=0" in said.text
    assert "…" not in said.out and "24 images with the same noise" in said.text
    said = call("compare", place / "old", place / "same")
    assert "no loss is shown; a loss of " in said.text
    found = json.loads(call("compare", place / "old", place / "new", "--radius", "0.05", "--json", code=1).out)
    assert found["lost"] is True and [row["where"] for row in found["rows"]] == ["r=0.05"]
    said = call("compare", place / "masks", place / "other-masks", code=None)
    assert "guaranteed Dice (%), before and after" in said.text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("old", "sigma"), "sigma is 0.1 and 0.2"),
        (("old", "seed"), "seed is 3 and 4"),
        (("old", "part"), "other images"),
        (("old", "fewer"), "other images"),
        (("old", "masks"), 'task is "classes" and "mask"'),
        (("masks", "tau"), "target is"),
        (("measured", "measured"), "runs of measurements"),
        (("old", "nowhere"), "not a run folder"),
        (("old", "same", "--method", "denoised"), "no method is asked for that both runs have"),
        (("old", "same", "--against", "plain"), "name the first one's too"),
        (("old", "same", "--margin", "2"), "margin=2.0"),
        (("old", "same", "--confidence", "nan"), "confidence=nan"),
    ],
)
def test_what_is_no_pair_is_refused(place: Path, names: tuple[str, ...], reason: str) -> None:
    folders, more = names[:2], names[2:]
    assert reason in refused("compare", *(place / name for name in folders), *more)


def test_an_unfinished_run_and_other_noise_are_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "same", tmp_path / "cut")
    lines = (tmp_path / "cut" / "certificates.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut" / "certificates.jsonl").write_text("".join(lines[:-3]))
    with pytest.raises(InputError, match="lacks 3 images"):
        certimed.compare(place / "old", tmp_path / "cut")
    _edit(place / "same", tmp_path / "gpu", lambda text: text.replace('"device": "cpu"', '"device": "cuda:0"'))
    with pytest.raises(InputError, match="draw other noise"):
        certimed.compare(place / "old", tmp_path / "gpu")
    shutil.copytree(place / "same", tmp_path / "shape")
    lines_file = tmp_path / "shape" / "certificates.jsonl"
    lines_file.write_text(lines_file.read_text().replace('"shape": [1, 4, 4]', '"shape": [1, 5, 5]'))
    with pytest.raises(InputError, match="--space native"):
        certimed.compare(place / "old", tmp_path / "shape")


def _edit(run: Path, copy: Path, change: Any) -> None:
    shutil.copytree(run, copy)
    (copy / "run.json").write_text(change((copy / "run.json").read_text()))
