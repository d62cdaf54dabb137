"""``certimed reproduce segmentation`` on a small data set in the expected layout."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from certimed.cli.app import app
from certimed.presets import segmentation_preset
from certimed.segmenters import SmallUNet


def run(*words):
    return CliRunner().invoke(app, ["reproduce", "segmentation", *map(str, words)])


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SmallUNet(1, 2, (4, 8), patch=2).save(folder)
    return folder


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """Ten bright discs and their masks, laid out as the Montgomery preset expects."""
    root = tmp_path_factory.mktemp("montgomery")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rows, columns = np.mgrid[:40, :40]
    for number in range(10):
        disc = (rows - 20) ** 2 + (columns - 20) ** 2 < (6 + number) ** 2
        Image.fromarray((disc * 200).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    return root


def test_table_and_resume(unet, radiographs, tmp_path):
    words = ["--dataset", "montgomery", "--model", f"unet:{unet}", "--data-root", radiographs, "--sigma", "0.1"]
    words += ["--n", 80, "--out", tmp_path / "run"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "here are 10" in result.output
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").open()))
    assert {row["method"] for row in rows} == {"plain"}
    metrics = {row["metric"]: row for row in rows if row["class"] == "foreground mean"}
    assert {"certified Dice (published)", "guaranteed Dice", "Dice (clean)"} <= set(metrics)
    assert int(metrics["guaranteed Dice"]["images"]) == 1
    assert r"\toprule" in (tmp_path / "run" / "table.tex").read_text()
    before = (tmp_path / "run" / "sigma-0.1" / "certificates.jsonl").read_bytes()
    assert run(*words).exit_code == 0
    assert (tmp_path / "run" / "sigma-0.1" / "certificates.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dataset", "mars"], "--dataset mars is unknown"),
        (["--split", "random"], "--split random"),
        (["--data-root", "nowhere"], "expected for montgomery"),
    ],
)
def test_refusals(unet, radiographs, tmp_path, words, sentence):
    given = ["--dataset", "montgomery", "--model", f"unet:{unet}", "--data-root", radiographs, "--out", tmp_path / "r"]
    result = run(*given, *words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_presets_are_those_of_the_paper():
    assert segmentation_preset("isic2018").size == (384, 512)
    assert segmentation_preset("cvc-clinicdb").leak_free_split.by == "sequence"
