"""The segmentation protocol on a small data set in the expected layout."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from certimed.errors import InputError
from certimed.runs import execute
from certimed.segmenters import SmallUNet
from certimed.studies import SEGMENTATION_PROTOCOL, Study, segmentation, segmentation_preset
from certimed.studies.masks import test_part as part_of

QUICK = replace(SEGMENTATION_PROTOCOL, sigmas=(0.1,), n=80)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SmallUNet(1, 2, (4, 8), patch=2).save(folder)
    return f"unet:{folder}"


def discs(root: Path, names: list[str], size: int = 40, channels: str = "L") -> Path:
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    rows, columns = np.mgrid[:size, :size]
    for number, name in enumerate(names):
        disc = (rows - size // 2) ** 2 + (columns - size // 2) ** 2 < (6 + number % 10) ** 2
        Image.fromarray((disc * 200).astype(np.uint8)).convert(channels).save(root / "images" / f"{name}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(root / "masks" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten bright discs and their masks, laid out as the Montgomery preset expects."""
    return discs(tmp_path_factory.mktemp("montgomery"), [str(number) for number in range(10)])


class Noted:
    """A watcher that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def __getattr__(self, name: str):
        return lambda *values: None


def reproduce(unet: str, data: Path, out: Path, **how: object) -> Study:
    return segmentation("montgomery", unet, data, out, **{"protocol": QUICK, **how})


def test_table_and_resume(unet: str, radiographs: Path, tmp_path: Path) -> None:
    watch = Noted()
    study = reproduce(unet, radiographs, tmp_path / "run", watcher=watch)
    assert any("here are 10" in note for note in watch.notes)
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").open()))
    assert {row["method"] for row in rows} == {"plain"}
    metrics = {row["metric"]: row for row in rows if row["class"] == "foreground mean"}
    assert {"certified Dice (published)", "guaranteed Dice", "Dice (clean)"} <= set(metrics)
    assert int(metrics["guaranteed Dice"]["images"]) == 1
    assert r"\toprule" in (tmp_path / "run" / "table.tex").read_text()
    certificates = tmp_path / "run" / "sigma-0.1" / "certificates.jsonl"
    before = certificates.read_bytes()
    reproduce(unet, radiographs, tmp_path / "run")
    assert certificates.read_bytes() == before
    # The request names the test images one by one, so the run goes on from its manifest alone.
    certificates.write_bytes(b"")
    execute(None, study.folders["sigma-0.1"].path, resume=True)
    assert certificates.read_bytes() == before


def test_sequences_stay_whole_and_are_the_units_of_the_intervals(tmp_path: Path) -> None:
    preset = segmentation_preset("cvc-clinicdb")
    root = discs(tmp_path / "cvc", [str(frame) for frame in range(1, 130)], size=8, channels="RGB")
    source = part_of(preset, root, "leak-free")
    assert source.items and source.groups and len(source.items) == len(source.groups)
    whole = {item: group for item, group in zip(source.items, source.groups)}
    opened = source.open()
    assert opened.ids == source.items and {item.id: item.group for item in opened.items} == whole
    rest = set(part_of(preset, root, "published").items or ()) - set(source.items)
    assert rest, "the published split is another one"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"dataset": "mars"}, "data set mars is unknown"),
        ({"split": "random"}, "split random is unknown"),
        ({"data": "nowhere"}, "expected for montgomery"),
    ],
)
def test_refusals(unet: str, radiographs: Path, tmp_path: Path, how: dict, sentence: str) -> None:
    given = {"dataset": "montgomery", "data": radiographs, **how}
    dataset, data = given.pop("dataset"), given.pop("data")
    with pytest.raises(InputError, match=sentence):
        segmentation(dataset, unet, data, tmp_path / "r", **given)


def test_presets_are_those_of_the_paper() -> None:
    assert segmentation_preset("isic2018").size == (384, 512)
    assert segmentation_preset("cvc-clinicdb").leak_free_split.by == "sequence"
