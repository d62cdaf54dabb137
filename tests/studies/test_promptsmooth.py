"""PromptSmooth's protocol on a tiny model and data set in Kather's layout, from Python and as a person runs it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from vlm_families import write_transformers_clip

from certimed.certificates import END_TO_END, FROZEN_AT_X
from certimed.errors import InputError
from certimed.prompts import Prompt
from certimed.runs import RunFolder, RunSpec, execute
from certimed.studies import PROTOCOL, Study, classification_preset, promptsmooth

PRESET = classification_preset("kather")
QUICK = replace(PROTOCOL, sigmas=(0.25,), n=20, shots=1, epochs=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    write_transformers_clip(folder)
    return str(folder)


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


def reproduce(data: Path, model: str, out: Path, **how: object) -> Study:
    return promptsmooth("kather", model, data, out, **{"protocol": QUICK, "images": 9, **how})


def only_test(data: Path, root: Path) -> Path:
    for item in PRESET.classes:
        folder = root / "test" / item.folders[0]
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes((data / "CRC-VAL-HE-7K" / item.folders[0] / "0.png").read_bytes())
    return root


class Noted:
    """A watcher that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def __getattr__(self, name: str):
        return lambda *values: None


def test_the_whole_protocol_then_again_from_where_it_is(data: Path, model: str, tmp_path: Path) -> None:
    out, two, watch = tmp_path / "run", replace(QUICK, sigmas=(0.25, 0.5)), Noted()
    study = reproduce(data, model, out, protocol=two, watcher=watch)
    assert "9 of 18 test images, class-balanced (seed 3)" in watch.notes[0]
    scopes = {one.label: one.scopes for one in study.series}
    assert scopes["zero-shot"] == scopes["both"] == {FROZEN_AT_X}
    assert scopes["plain"] == scopes["few-shot"] == {END_TO_END}
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert {(row["sigma"], row["method"]) for row in rows} == {
        (sigma, method) for sigma in ("0.25", "0.5") for method in ("plain", "few-shot", "zero-shot", "both")
    }
    assert len(rows) == 2 * 4 * 11 and all(row["images"] == "9" for row in rows)
    latex = (out / "table.tex").read_text()
    assert "both" in latex and "few-shot*" not in latex and "9 test images" in latex
    records = (out / "sigma-0.5" / "certificates.jsonl").read_text()
    assert sorted(json.loads(line)["label"] for line in records.splitlines()) == list(range(9))
    prompt = Prompt.load(out / "few-shot-1-shots-5-tokens.safetensors")
    assert prompt.shots == 1 and prompt.recipe["name"] == "published" and prompt.sigmas == (0.0, 0.25, 0.5)
    # Started again with everything there, nothing is certified anew and the table is the same.
    before = (out / "table.csv").read_text()
    reproduce(data, model, out, protocol=two)
    assert (out / "sigma-0.5" / "certificates.jsonl").read_text() == records
    assert (out / "table.csv").read_text() == before
    # An unfinished sigma is finished: cut its last two lines off.
    (out / "sigma-0.5" / "certificates.jsonl").write_text("".join(records.splitlines(keepends=True)[:-2]))
    reproduce(data, model, out, protocol=two)
    assert (out / "sigma-0.5" / "certificates.jsonl").read_text() == records
    assert (out / "table.csv").read_text() == before
    # Other settings are refused by name.
    with pytest.raises(InputError, match="was tuned with epochs 2 and 3 is asked for"):
        reproduce(data, model, out, protocol=replace(two, epochs=3))
    with pytest.raises(InputError, match='budget was "fixed:20" and is now "fixed:30"'):
        reproduce(data, model, out, protocol=replace(two, n=30))


def test_each_run_is_a_request_of_its_own(data: Path, model: str, tmp_path: Path) -> None:
    """The manifest says all that is needed: no other argument goes on with the run of one sigma."""
    study = reproduce(data, model, tmp_path / "a", methods=("plain", "few-shot"))
    (folder,) = study.folders.values()
    lines = (folder.path / "certificates.jsonl").read_text().splitlines(keepends=True)
    (folder.path / "certificates.jsonl").write_text("".join(lines[:4]))
    execute(None, folder.path, resume=True)
    assert (folder.path / "certificates.jsonl").read_text() == "".join(lines)


def test_baseline_and_learnt_methods_start_from_one_sentence(data: Path, model: str, tmp_path: Path) -> None:
    same = reproduce(data, model, tmp_path / "a", methods=("plain",))
    other = reproduce(data, model, tmp_path / "b", methods=("plain",), template="tissue: {}")
    templates = [next(iter(study.specs.values())).templates for study in (same, other)]
    assert templates == [("An H&E image patch of {}.",), ("tissue: {}",)]


@pytest.mark.parametrize(
    ("sweep", "values", "kind"),
    [
        ("shots", (1, 2), "few-shot"),
        ("context", (2, 3), "few-shot"),
        ("steps", (1, 2), "zero-shot"),
        ("copies", (5,), "zero-shot"),
    ],
)
def test_sweeps_share_one_run_and_say_their_kind_as_data(
    data: Path, model: str, tmp_path: Path, sweep: str, values: tuple[int, ...], kind: str
) -> None:
    study = reproduce(data, model, tmp_path / "s", images=2, sweep=sweep, values=values)
    ((_, folder),) = study.folders.items()
    named = [f"{sweep} {value}" for value in values]
    entries = {entry["name"]: entry for entry in folder.methods}
    assert list(entries) == ["plain", *named]
    assert {entries[name]["kind"] for name in named} == {kind}
    # The scope follows from the kind, whatever the row is called.
    scope = FROZEN_AT_X if kind == "zero-shot" else END_TO_END
    assert {entries[name]["scope"] for name in named} == {scope}
    assert {row["scope"] for row in study.rows() if row["method"] in named} == {scope}
    assert len({entries[name]["identity"] for name in named}) == len(named)


def test_the_envelope_says_it_is_hindsight(data: Path, model: str, tmp_path: Path) -> None:
    study = reproduce(data, model, tmp_path / "e", protocol=replace(QUICK, sigmas=(0.25, 0.5)), methods=("plain",))
    rows = study.envelope()
    curves = [one.curve(study.radii).values for one in study.series]
    assert [row["certified_accuracy"] for row in rows] == [max(values) for values in zip(*curves)]
    assert {row["scope"] for row in rows} == {"sigma chosen in hindsight"}


def test_pool_and_sound_methods(data: Path, model: str, tmp_path: Path) -> None:
    study = reproduce(data, model, tmp_path / "p", images=2, methods=("pool", "per-sample"))
    assert {one.label: one.marks for one in study.series} == {"pool": "", "per-sample": ""}
    assert (tmp_path / "p" / "pool.safetensors").is_file()


def test_an_image_in_both_parts_is_refused(data: Path, model: str, tmp_path: Path) -> None:
    root = only_test(data, tmp_path / "leaky")
    for folder in (root / "test").iterdir():
        (root / "train" / folder.name).mkdir(parents=True)
        (root / "train" / folder.name / "b.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(InputError, match="images are both tuned on and certified"):
        reproduce(root, model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_failed_image_counts_as_not_certified(data: Path, model: str, tmp_path: Path) -> None:
    root = only_test(data, tmp_path / "broken")
    (root / "test" / "ADI" / "a.png").write_bytes(b"no image")
    study = reproduce(root, model, tmp_path / "f", methods=("plain",))
    row = next(csv.DictReader((tmp_path / "f" / "table.csv").open()))
    assert (row["images"], row["failed"], study.failed) == ("9", "1", 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"methods": ("denoised",)}, "method denoised is unknown"),
        ({"sweep": "width"}, "sweep width is unknown"),
        ({"sweep": "shots", "methods": ("plain",)}, "leave out the methods"),
        ({"values": (1, 2)}, "values belong to a sweep"),
        ({"sweep": "shots", "values": (1.5,)}, "whole numbers"),
        ({"sweep": "shots", "values": (2, 2)}, "each named once"),
        ({"protocol": replace(QUICK, sigmas=(0.1, 0.1))}, "repeat a level"),
        ({"dataset": "cifar"}, "use one of kather"),
        ({"model": "medclip"}, "is not used with kather"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_opened(tmp_path: Path, how: dict, message: str) -> None:
    given = {"dataset": "kather", "model": str(tmp_path), **how}
    dataset, model = given.pop("dataset"), given.pop("model")
    with pytest.raises(InputError, match=message):
        promptsmooth(dataset, model, tmp_path / "nowhere", tmp_path / "out", **given)


def test_few_shot_without_a_training_part_says_what_to_do(data: Path, model: str, tmp_path: Path) -> None:
    root = only_test(data, tmp_path / "only-test")
    with pytest.raises(InputError, match=r"has no training images.*methods plain,zero-shot"):
        reproduce(root, model, tmp_path / "out")


def test_the_verb_says_the_same(data: Path, model: str, tmp_path: Path) -> None:
    from certimed.cli.reproduce import app

    command = ["promptsmooth", "--dataset", "kather", "--model", model, "--data-root", str(data), "--limit", "4"]
    command += ["--sigma", "0.25", "--n", "20", "--methods", "plain,zero-shot", "--progress", "none"]
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "verb")])
    assert found.exit_code == 0, found.output
    assert "4 of 18 test images" in found.output and "zero-shot*" in found.output
    study = reproduce(data, model, tmp_path / "python", images=4, methods=("plain", "zero-shot"))
    (folder,) = study.folders.values()
    verb = RunFolder.open(tmp_path / "verb" / "sigma-0.25")
    assert RunSpec.from_dict(verb.manifest["request"]) == RunSpec.from_dict(folder.manifest["request"])
    assert [one.certificates for one in verb.records()] == [one.certificates for one in folder.records()]
