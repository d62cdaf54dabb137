"""Attacks in the space of settings: all around and by gradient, against closed forms; both sides on the page."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom
from tiny_runs import class_spec, full_run, mask_spec, write_images, write_scans

from certimed import InputError, MeasureTarget, Run, attack
from certimed.attacks import AnotherClass, Attacked, AttackSpec, Ball, Search
from certimed.attacks.grid import directions
from certimed.budgets import as_budget
from certimed.engine import Engine
from certimed.noise import as_law
from certimed.targets import Classes
from certimed.verification import verify

SPEC = AttackSpec(steps=3, copies=8, bisections=4, n=300)
WINDOW = ("window-center=30grey", "window-width=0.2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("settings")
    return full_run(class_spec(write_images(base / "images", 4), vary=WINDOW, budget=200), base / "run")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_directions_are_all_around(axes: int) -> None:
    found = directions(axes)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)).double())
    anywhere = torch.randn(200, axes, generator=torch.Generator().manual_seed(0)).double()
    nearest = (anywhere / anywhere.norm(dim=1, keepdim=True) @ found.T).amax(dim=1)
    assert float(nearest.min()) > {1: 0.999, 2: math.cos(math.pi / 24) - 1e-9, 3: 0.9}[axes]


@pytest.mark.parametrize("search", ["grid", "gradient"])
def test_an_attack_lies_beyond_the_truth_and_the_certificate_below_it(run: Run, tmp_path: Path, search: str) -> None:
    path = shutil.copytree(run.folder.path, tmp_path / "run")
    found = attack(path, SPEC.__class__(**{**SPEC.to_dict(), "search": search}), allow_code=True)
    assert verify(path).ok and found.space == "settings"
    rows = found.rows()
    assert len(rows) >= 3
    for row in rows:
        grey = float(np.asarray(Image.open(run.folder.path.parent / "images" / row["item"])).mean())
        truth = abs(grey - 127.5) / 30  # whatever the width
        assert row["radius"] <= truth <= row["broken"] * (1 + 1e-6) and not row["inside"]
        assert row["base"] >= truth * (1 - 1e-3)


@pytest.mark.slow
def test_a_grid_of_two_settings_is_never_inside_the_ellipse_more_often_than_alpha() -> None:
    # Both sides fail with a probability of their own; together they may not be seen to more often than that.
    alpha, runs, inside = 0.05, 40, 0
    law, device, direction = as_law("grid", 1.0), torch.device("cpu"), torch.tensor([0.6, -0.8])

    def model(u: torch.Tensor) -> torch.Tensor:
        score = (u[:, :, 0] * direction).sum(1) + 0.8
        return torch.stack([-score, score], dim=1)

    spec = AttackSpec(radii=(), bisections=2, copies=16, n=200, alpha=alpha, search="grid")
    for seed in range(runs):
        engine = Engine.alone(model, law, identity="a" * 64, space="model input", device=device)
        target, x = Classes(2), torch.zeros(2, 1)
        result = engine.run(x, target, as_budget(60), n0=10, alpha=alpha, seed=seed, item_id="x")["plain"].certificate
        if result.abstained:
            continue
        attacked = Attacked(engine, engine.methods[0], target, "x", seed, 1000 + seed, 64)
        found = Search(attacked, Ball(law, x), [AnotherClass(result.prediction, alpha)], spec).run(result.radius)
        norm = None if found.broken is None else found.trials[found.broken].norm
        assert norm is not None and norm > 0.8 * (1 - 1e-6)
        inside += norm < result.radius
    assert inside <= binom.ppf(0.9999, runs, 2 * alpha)


def test_masks_and_measurements_are_attacked_for_their_masks_and_stand_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    write_scans(tmp_path / "scans", 2, size=12)
    target = MeasureTarget(measurements=("area:1",), radii=(0.3,), taus=(0.75,))
    run = full_run(mask_spec(tmp_path / "scans", vary=("gain=0.2", "offset=0.1"), target=target), tmp_path / "run")
    assert "The other side: attacks" not in run.report().read_text()
    found = attack(run.folder.path, AttackSpec(copies=8, bisections=2, n=200, search="grid"), allow_code=True)
    for row in found.rows():
        assert row["guaranteed_dice"] <= row["reached_dice"] and not row["inside"]
    page = run.report().read_text()
    assert "The other side: attacks" in page and "L2 length of the noise" in page
    assert "guaranteed Dice, mean" in page and "Dice reached by an attack inside, mean" in page


def test_the_page_draws_the_ellipse_and_says_each_reach(run: Run) -> None:
    pytest.importorskip("jinja2")
    page = run.report().read_text()
    assert "How far settings may differ" in page and page.count('class="ellipse"') == 4
    one = next(iter(next(iter(run.folder.records())).certificates.values()))
    assert "window-center (noise 30 grey)" in page and "window-width (noise 0.2 on its logarithm)" in page
    assert one.about.settings is not None and page.count("<image href=") == 20


def test_what_does_not_fit_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="clip keeps pixels"):
        attack(run.folder.path, AttackSpec(clip=True), allow_code=True)
    plain = full_run(class_spec(run.folder.path.parent / "images"), tmp_path / "plain")
    with pytest.raises(InputError, match="at most 3 settings"):
        attack(plain.folder.path, AttackSpec(search="grid"), allow_code=True)
    with pytest.raises(InputError, match="search='far'"):
        AttackSpec(search="far")
