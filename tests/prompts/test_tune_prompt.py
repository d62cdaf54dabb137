"""Prompts learnt from a data set, from Python and as a person does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import TinyVLM
from typer.testing import CliRunner

from certimed.data import open_dataset
from certimed.errors import InputError
from certimed.prompts import Prompt, TuningPlan, tune_prompt

NAMES = ("benign", "malignant")
PLAN = TuningPlan(sigmas=(0.0, 0.25), shots=2, epochs=2, context="a slide of")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            pixels = generator.integers(0, 256, (4, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


def test_shots_are_drawn_and_the_rest_is_held_out(labelled: Path) -> None:
    vlm, dataset, seen = TinyVLM(), open_dataset(labelled), []
    prompt = tune_prompt(vlm, dataset, NAMES, TuningPlan(**{**PLAN.__dict__, "held_out": 1}), progress=seen.append)
    assert prompt.shots == 2 and len(prompt.tuned_on) == 4 and "held_out" in prompt.accuracies
    assert seen[-1].stage == "tuning"
    again = tune_prompt(vlm, dataset, NAMES, PLAN)
    assert again.tuned_on == prompt.tuned_on


def test_a_pool_needs_no_labels_but_noise(labelled: Path) -> None:
    vlm, dataset = TinyVLM(), open_dataset(labelled / NAMES[0])
    plan = TuningPlan(sigmas=(0.0, 0.25), context="a slide of", copies=3)
    prompt = tune_prompt(vlm, dataset, NAMES, plan, method="pool")
    assert prompt.method == "pool" and prompt.sigmas == (0.25,) and len(prompt.tuned_on) == 3
    with pytest.raises(InputError, match="no level above 0"):
        tune_prompt(vlm, dataset, NAMES, TuningPlan(sigmas=(0.0,)), method="pool")
    with pytest.raises(InputError, match="without labels, which few-shot tuning needs"):
        tune_prompt(vlm, dataset, NAMES, PLAN)
    with pytest.raises(InputError, match="method best is unknown"):
        tune_prompt(vlm, dataset, NAMES, PLAN, method="best")


def test_a_test_image_is_never_learnt_from(labelled: Path, tmp_path: Path) -> None:
    test = tmp_path / "test"
    test.mkdir()
    for name in NAMES:
        (test / f"{name}.png").write_bytes((labelled / name / "1.png").read_bytes())
    every = TuningPlan(**{**PLAN.__dict__, "shots": 3})
    with pytest.raises(InputError, match="2 images are both tuned on and certified"):
        tune_prompt(TinyVLM(), open_dataset(labelled), NAMES, every, test=open_dataset(test))


def test_the_verb_writes_a_prompt_file(labelled: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra: vlm)")
    from typer import Typer

    from certimed.cli.tune import tune

    app = Typer()
    app.command()(tune)
    out = tmp_path / "prompt.safetensors"
    command = ["--model", "demo", "--data", str(labelled), "--shots", "2", "--epochs", "1", "--sigmas", "0,0.25"]
    found = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert Prompt.load(out).class_names == NAMES and "accuracy on tuning images" in found.output
    again = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert again.exit_code == 2 and "nothing was overwritten" in " ".join(again.output.split())
