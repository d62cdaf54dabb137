"""``certimed reproduce promptsmooth`` as a person runs it, with a tiny model on a tiny data set in Kather's layout."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from vlm_families import write_transformers_clip

from certimed.cli.app import app
from certimed.presets import classification_preset
from certimed.prompts import Prompt

PRESET = classification_preset("kather")
QUICK = ["--sigma", "0.25", "--n", "20", "--shots", "1", "--epochs", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_transformers_clip(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kather")
    generator = np.random.default_rng(0)
    for part, count in (("NCT-CRC-HE-100K", 3), ("CRC-VAL-HE-7K", 2)):
        for item in PRESET.classes:
            folder = root / part / item.folders[0]
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(generator.integers(0, 256, (36, 40, 3), np.uint8)).save(folder / f"{index}.png")
    return root


def reproduce(data: Path, model: Path, out: Path, *extra: str, code: int = 0) -> str:
    command = ["reproduce", "promptsmooth", "--dataset", "kather", "--model", str(model)]
    result = CliRunner().invoke(app, [*command, "--data-root", str(data), "--out", str(out), *QUICK, *extra])
    assert result.exit_code == code, result.output
    return result.output


def test_the_whole_protocol_then_again_from_where_it_is(data: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = " ".join(reproduce(data, model, out, "--limit", "9", "--sigma", "0.25,0.5").split())
    assert "9 of 18 test images, class-balanced (seed 3)" in said and "zero-shot*" in said
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert {(row["sigma"], row["method"]) for row in rows} == {
        (sigma, method) for sigma in ("0.25", "0.5") for method in ("none", "few-shot", "zero-shot", "both")
    }
    assert len(rows) == 2 * 4 * 11 and all(row["images"] == "9" for row in rows)
    latex = (out / "table.tex").read_text()
    assert "both$^{*}$" in latex and "few-shot$^{*}$" not in latex and "9 test images" in latex
    records = (out / "sigma-0.5" / "certificates.jsonl").read_text()
    labels = [json.loads(line)["label"] for line in records.splitlines()]
    assert sorted(labels) == list(range(9))
    prompt = Prompt.load(out / "few-shot-1-shots-5-tokens.safetensors")
    assert prompt.shots == 1 and prompt.recipe["name"] == "published" and prompt.sigmas == (0.0, 0.25, 0.5)
    # Started again with everything there, nothing is certified anew and the table is the same.
    before = (out / "table.csv").read_text()
    reproduce(data, model, out, "--limit", "9", "--sigma", "0.25,0.5")
    assert (out / "sigma-0.5" / "certificates.jsonl").read_text() == records
    assert (out / "table.csv").read_text() == before
    # An unfinished sigma is finished: cut its last two lines off.
    lines = records.splitlines(keepends=True)
    (out / "sigma-0.5" / "certificates.jsonl").write_text("".join(lines[:-2]))
    reproduce(data, model, out, "--limit", "9", "--sigma", "0.25,0.5")
    assert (out / "sigma-0.5" / "certificates.jsonl").read_text() == records
    assert (out / "table.csv").read_text() == before
    # Other settings are refused by name.
    said = reproduce(data, model, out, "--limit", "9", "--sigma", "0.25,0.5", "--epochs", "3", code=2)
    assert "was tuned with epochs 2 and 3 is asked for" in " ".join(said.split())
    said = reproduce(data, model, out, "--limit", "9", "--sigma", "0.25,0.5", "--n", "30", code=2)
    assert 'settings.budget was "fixed:20" and is now "fixed:30"' in " ".join(said.split())


def test_baseline_and_learnt_methods_start_from_one_sentence(data: Path, model: Path, tmp_path: Path) -> None:
    reproduce(data, model, tmp_path / "a", "--limit", "9", "--prompts", "none")
    reproduce(data, model, tmp_path / "b", "--limit", "9", "--prompts", "none", "--baseline-template", "tissue: {}")
    templates = [json.loads((tmp_path / run / "sigma-0.25" / "run.json").read_text())["templates"] for run in "ab"]
    assert templates == [["An H&E image patch of {}."], ["tissue: {}"]]


@pytest.mark.parametrize(("sweep", "values"), [("shots", "1,2"), ("context", "2,3"), ("steps", "1,2"), ("copies", "5")])
def test_ablations_share_one_run(data: Path, model: Path, tmp_path: Path, sweep: str, values: str) -> None:
    reproduce(data, model, tmp_path / "s", "--limit", "2", "--sweep", sweep, "--values", values)
    methods = {row["method"] for row in csv.DictReader((tmp_path / "s" / "table.csv").open())}
    assert methods == {"none", *(f"{sweep} {value}" for value in values.split(","))}
    about = json.loads((tmp_path / "s" / "sigma-0.25" / "run.json").read_text())
    assert set(about["prompts"]["ablation"]) == methods


def test_pool_and_sound_methods(data: Path, model: Path, tmp_path: Path) -> None:
    said = reproduce(data, model, tmp_path / "p", "--limit", "2", "--prompts", "pool,per-sample")
    assert "per-sample" in said and "pool*" not in said
    assert (tmp_path / "p" / "pool.safetensors").is_file()


def test_an_image_in_both_parts_is_refused(data: Path, model: Path, tmp_path: Path) -> None:
    root = tmp_path / "leaky"
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        for folder in (data / "CRC-VAL-HE-7K").iterdir():
            (root / part / folder.name).symlink_to(folder)
    # Links to folders are not followed, so copy the one that matters by hand.
    said = reproduce(root, model, tmp_path / "x", "--limit", "9", code=2)
    assert "expected for kather" in " ".join(said.split())
    for part in ("train", "test"):
        for link in (root / part).iterdir():
            target = link.resolve()
            link.unlink()
            link.mkdir()
            for image in target.iterdir():
                (link / image.name).write_bytes(image.read_bytes())
    said = " ".join(reproduce(root, model, tmp_path / "x", "--limit", "18", code=2).split())
    assert "images are both tuned on and certified" in said and not (tmp_path / "x").exists()


def test_a_failed_image_counts_as_not_certified(data: Path, model: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    for item in PRESET.classes:
        folder = root / "test" / item.folders[0]
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes((data / "CRC-VAL-HE-7K" / item.folders[0] / "0.png").read_bytes())
    (root / "test" / "ADI" / "a.png").write_bytes(b"no image")
    reproduce(root, model, tmp_path / "f", "--prompts", "none", code=3)
    row = next(csv.DictReader((tmp_path / "f" / "table.csv").open()))
    assert (row["images"], row["failed"]) == ("9", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompts", "denoised"), "--prompts denoised is unknown"),
        (("--sweep", "width"), "--sweep width is unknown"),
        (("--sweep", "shots", "--prompts", "none"), "leave out --prompts"),
        (("--values", "1,2"), "add e.g. --sweep shots"),
        (("--sweep", "shots", "--values", "1.5"), "whole numbers"),
        (("--sigma", "0.1,0.1"), "repeats a level"),
        (("--dataset", "cifar"), "use one of kather"),
        (("--model", "medclip"), "is not used with kather"),
    ],
)
def test_what_cannot_be_run_is_refused_first(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    said = reproduce(tmp_path, tmp_path, tmp_path / "out", *arguments, code=2)
    assert message in " ".join(said.split())


def test_few_shot_without_a_training_part_says_what_to_do(data: Path, model: Path, tmp_path: Path) -> None:
    root = tmp_path / "only-test"
    root.mkdir()
    (root / "test").mkdir()
    for item in PRESET.classes:
        folder = root / "test" / item.folders[0]
        folder.mkdir()
        (folder / "a.png").write_bytes((data / "CRC-VAL-HE-7K" / item.folders[0] / "0.png").read_bytes())
    said = " ".join(reproduce(root, model, tmp_path / "out", code=2).split())
    assert "has no training images" in said and "--prompts none,zero-shot" in said
