"""Runs whose noise is on a workflow's settings: classes, masks, measurements, prompts; against closed forms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, norm
from tiny_runs import class_spec, full_run, lines, manifest, mask_spec, write_images, write_scans

from certimed import InputError, MaskTarget, MeasureTarget, Run, RunSpec
from certimed.budgets import as_budget
from certimed.certificates import SETTINGS, ClassCertificate, certificate_from_dict
from certimed.data import ReadOptions
from certimed.engine import Engine
from certimed.noise import as_law
from certimed.targets import Classes
from certimed.verification import verify

WINDOW = ("window-center=30grey", "window-width=20%")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("settings")
    return full_run(class_spec(write_images(base / "images", 4), vary=WINDOW, budget=300), base / "run")


def certificates(run: Run) -> list[Any]:
    return [one for record in run.folder.records() for one in record.certificates.values()]


def test_a_run_is_verified_and_says_what_each_setting_may_do(run: Run) -> None:
    assert verify(run.folder.path).faults == ()
    found = certificates(run)
    assert len(found) == 4 and all(isinstance(one, ClassCertificate) for one in found)
    one = max(found, key=lambda certificate: certificate.radius)
    settings = one.about.settings
    assert settings is not None and one.space == SETTINGS and one.shape == (2, 1) and one.sigma == 1
    centre, width = settings.axes
    assert (centre.at, width.at) == (127.5, 255.0)
    radius = one.radius - np.sqrt(2) / 2 / 65535
    assert centre.reach(one.real_radius) == pytest.approx(30 * radius, rel=1e-9)
    assert centre.reach(one.real_radius) <= 30 * radius and width.reach(one.real_radius) <= np.exp(0.2 * radius)
    said = one.statement()
    assert "window-center within" in said and "grey of 127.5 grey" in said and "inside one ellipsoid" in said
    assert certificate_from_dict(one.to_dict()).to_dict() == one.to_dict()
    assert manifest(run)["request"]["vary"] == ["window-center=30.0grey", "window-width=0.2"]


def test_a_table_has_the_reach_of_each_setting(run: Run) -> None:
    frame = run.to_pandas()
    assert list(frame.columns[-4:]) == [
        "at window-center",
        "reach window-center",
        "at window-width",
        "reach window-width",
    ]
    assert (frame["reach window-center"] <= 30 * frame["radius"]).all() and (frame["reach window-width"] >= 1).all()


def test_images_drawn_again_are_equal(run: Run, tmp_path: Path) -> None:
    spec = RunSpec.from_dict(manifest(run)["request"])
    assert spec.sigma == 1 and spec.space == SETTINGS
    again = full_run(spec, tmp_path / "again")
    assert lines(again) == lines(run)
    job = spec.load(allow_code=True)
    item = job.dataset.ids[2]
    redrawn = job.redraw(item)["certificates"]
    assert redrawn == [one.to_dict() for one in certificates(run) if one.item == item]


def test_the_radius_is_what_the_window_may_move_in_closed_form(run: Run) -> None:
    # The model compares the mean grey level with one half: at this width, the window's centre with the image's level.
    clean = {record.item: record.clean["plain"] for record in run.folder.records()}
    for one in certificates(run):
        grey = float(np.asarray(Image.open(run.folder.path.parent / "images" / one.item)).mean())
        # Light where grey > centre: |grey - 127.5| / 30 noise units away, whatever the width.
        assert one.real_radius <= abs(grey - 127.5) / 30
        assert clean[one.item] == int(grey > 127.5)


@pytest.mark.parametrize("margin", [0.2, 0.8, 1.7])
def test_a_radius_beyond_the_truth_is_rarer_than_alpha_by_exact_sums(margin: float) -> None:
    # A model that is linear in the settings: its class changes at exactly `margin` noise units.
    n, alpha = 100, 0.05
    law, target, budget = as_law("grid", 1.0), Classes(2), as_budget(n)
    wrong = 0.0
    for k in range(n + 1):
        selected, counts = np.array([0, 10]), np.array([n - k, k])
        session = target.start(selected, (2, 1), budget, alpha, law)
        assert session.next(np.zeros(2, dtype=np.int64)) == n and not session.next(counts)
        ((claim, _, _),) = target.claims(selected, counts, session.finish(counts), alpha, law)
        if claim.radius > margin:
            wrong += binom.pmf(k, n, norm.cdf(margin))
    assert 0 < wrong <= alpha


def test_violations_through_the_engine_stay_below_alpha() -> None:
    # Joint change of two settings along an oblique direction, drawn by the real sampler.
    direction, margin, alpha = torch.tensor([0.6, 0.8]), 0.9, 0.2
    law = as_law("grid", 1.0)

    def model(u: torch.Tensor) -> torch.Tensor:
        score = (u[:, :, 0] * direction).sum(1) + margin
        return torch.stack([-score, score], dim=1)

    engine = Engine.alone(model, law, identity="a" * 64, space="model input")
    runs, violated = 150, 0
    for seed in range(runs):
        found = engine.run(torch.zeros(2, 1), Classes(2), as_budget(60), n0=10, alpha=alpha, seed=seed, item_id="x")
        violated += found["plain"].certificate.radius > margin
    assert violated <= binom.ppf(0.9999, runs, alpha)


def test_masks_and_measurements_of_viewports(tmp_path: Path) -> None:
    write_scans(tmp_path / "scans", 2, size=12)
    vary = ("crop=1px", "rotation=3deg", "gain=0.1")
    target = MeasureTarget(measurements=("area:1", "dice:1"), radii=(0.3, 0.6), taus=(0.75,))
    run = full_run(mask_spec(tmp_path / "scans", vary=vary, target=target, budget=150), tmp_path / "run")
    assert verify(run.folder.path).faults == ()
    (first, *_) = run.folder.records()
    mask, interval = first.certificates.values()
    assert mask.about.settings.image == (1, 12, 12) and mask.claim.mask.shape == (12, 12)
    assert first.scores["plain"].per_class["guaranteed Dice"]
    assert interval.claim.intervals[0].lower[1] <= interval.claim.intervals[0].lower[0]
    assert "Each setting alone" in interval.statement() and "for every change of these settings" in mask.statement()


def test_the_mask_that_a_moved_viewport_gives_is_that_of_the_raw_image(tmp_path: Path) -> None:
    # A threshold does not care where the viewport is: pixels well inside and outside the disc keep their class.
    write_scans(tmp_path / "scans", 3, size=24)
    spec = mask_spec(tmp_path / "scans", vary=("crop=2px",), target=MaskTarget(taus=(0.75,)), budget=150)
    run = full_run(spec, tmp_path / "run")
    for record in run.folder.records():
        (one,) = record.certificates.values()
        assert one.share_certified > 0.9


def test_a_slice_position_is_varied_between_slices(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((6, 6, 9), dtype=np.float32)
    volume[:, :, 6:] = 1000.0  # the border lies between slices 5 and 6: at 5.5 where half of it is enough
    (tmp_path / "volumes").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volumes" / "v.nii")
    reading = ReadOptions(window=(500.0, 1000.0), slice=4)
    spec = class_spec(tmp_path / "volumes", vary=("slice=1",), budget=400)
    spec = spec.changed(data=type(spec.data)(str(tmp_path / "volumes"), classes=("dark", "light"), reading=reading))
    run = full_run(spec, tmp_path / "run")
    assert verify(run.folder.path).faults == ()
    (one,) = certificates(run)
    assert one.prediction == 0 and 1.0 < one.radius <= 1.5


def test_a_function_of_ones_own_is_run_on_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_workflow.py").write_text(
        "def brighten(raw, theta):\n    return raw / 255 + theta[:, :1].reshape(-1, 1, 1, 1).float()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    images = write_images(tmp_path / "images", 2)
    spec = class_spec(images, vary=("python:my_workflow:brighten=0.1",))
    run = full_run(spec, tmp_path / "run")
    assert verify(run.folder.path).faults == ()
    with pytest.raises(InputError, match="add --allow-code"):
        spec.changed(model="demo").load()
    sys.modules.pop("my_workflow")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sigma": 0.5}, "leave both out"),
        ({"denoiser": "demo"}, "leave both out"),
        ({"vary": (), "space": SETTINGS}, "needs settings to vary"),
        ({"vary": ("gain=",)}, "is not NAME=NUMBER"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        class_spec(tmp_path, **({"vary": WINDOW} | fields))


def test_a_box_is_of_segmenters_that_take_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="segmenters that are given a box"):
        class_spec(write_images(tmp_path / "images", 2), vary=("box=2px",)).load(allow_code=True)


def test_what_needs_noisy_pixels_is_refused(tmp_path: Path) -> None:
    spec = mask_spec(write_scans(tmp_path / "scans", 1), vary=("gain=0.1",))
    target = MeasureTarget(measurements=("intensity:1",), radii=(0.5,))
    with pytest.raises(InputError, match="looks at noisy pixels"):
        spec.changed(target=target, n0=0).load(allow_code=True)
