"""Adapter files: the round trip, refusal of another model or class list, and hostile files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters.tiny_networks import NAMES, class_examples, classifier
from safetensors.torch import load_file, save_file

from certimed.adapters import Adaptation, AdapterPlan, AdapterRecipe, Examples, Parts, adapt
from certimed.errors import InputError
from certimed.models.learnt import learnt_schema

PLAN = AdapterPlan(Parts(("lora", "layernorm"), rank=2), AdapterRecipe(steps=2, batch=4), (0.0, 0.5))


@pytest.fixture(scope="module")
def learnt() -> Adaptation:
    held_out = Examples(*class_examples(1, seed=3))
    return adapt(classifier(), Examples(*class_examples(2)), NAMES, PLAN, held_out=held_out, shots=2)


def test_a_saved_adapter_comes_back_whole_and_gives_the_same_model(learnt: Adaptation, tmp_path: Path) -> None:
    path = learnt.save(tmp_path / "adapter.safetensors")
    loaded = Adaptation.load(path)
    assert loaded.metadata() == json.loads(json.dumps(learnt.metadata()))
    assert all(torch.equal(loaded.tensors[name], value) for name, value in learnt.tensors.items())
    assert loaded.identity == learnt.identity and learnt_schema(path) == "certimed/adapter/1"
    x, one, other = torch.rand(2, 1, 8, 8), learnt.apply(classifier()), loaded.apply(classifier())
    assert torch.equal(one(x), other(x)) and one.identity == other.identity
    assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"] and path.stat().st_size < 30_000
    assert {"seconds", "recipe", "sigmas", "seed", "shots", "shots_digest", "model_identity"} <= set(loaded.metadata())


def test_identity_is_of_all_that_decides_the_answers(learnt: Adaptation) -> None:
    name = next(iter(learnt.tensors))
    changed = [
        replace(learnt, tensors={**learnt.tensors, name: learnt.tensors[name] + 1}),
        replace(learnt, parts=replace(learnt.parts, scale=3.0)),
        replace(learnt, class_names=learnt.class_names[::-1]),
        replace(learnt, model_identity="0" * 64),
        replace(learnt, templates=("an image of {}.",)),
    ]
    assert len({learnt.identity, *(one.identity for one in changed)}) == 6
    assert replace(learnt, seconds=5.0, history=()).identity == learnt.identity


def test_another_model_or_class_list_or_a_test_image_is_refused(learnt: Adaptation) -> None:
    other = classifier()
    other.identity = "f" * 64
    with pytest.raises(InputError, match=r"tuned on tiny vit .* not on tiny vit"):
        learnt.apply(other)
    with pytest.raises(InputError, match="another order"):
        learnt.check(classifier(), NAMES[::-1])
    learnt.check_disjoint(["another"])
    with pytest.raises(InputError, match="1 of the images to certify were used to tune"):
        learnt.check_disjoint(learnt.tuned_on[:1])


def test_missing_damaged_and_foreign_files_are_refused(learnt: Adaptation, tmp_path: Path) -> None:
    whole = learnt.save(tmp_path / "whole").read_bytes()
    with pytest.raises(InputError, match=r"there is no file .* of an adapter"):
        Adaptation.load(tmp_path / "absent")
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:cut])
        assert learnt_schema(tmp_path / "cut") is None
        with pytest.raises(InputError, match="cannot be read"):
            Adaptation.load(tmp_path / "cut")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="not an adapter saved by certimed"):
        Adaptation.load(tmp_path / "foreign")
    with pytest.raises(InputError, match="cannot be written"):
        learnt.save(tmp_path / "missing" / "adapter.safetensors")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "certimed/prompt/1"),
        ("task", "boxes"),
        ("class_names", ["a", "b"]),
        ("model_identity", 5),
        ("parts", {}),
        ("parts", {"kinds": ["lora"], "rank": 0, "scale": 1.0, "targets": "all", "tokens": 1, "deep": False}),
        ("shape", [1.5]),
        ("prompt", {}),
        ("templates", "x"),
        ("sigmas", ["0.1"]),
        ("shots", "many"),
        ("tuned_on", []),
        ("shots_digest", "0" * 64),
        ("identity", "0" * 64),
    ],
)
def test_wrong_metadata_is_refused(learnt: Adaptation, tmp_path: Path, field: str, value: Any) -> None:
    metadata = {**learnt.metadata(), field: value}
    save_file(dict(learnt.tensors), tmp_path / "wrong", metadata={"certimed": json.dumps(metadata)})
    with pytest.raises(InputError, match="wrong"):
        Adaptation.load(tmp_path / "wrong")


def test_altered_values_are_refused(learnt: Adaptation, tmp_path: Path) -> None:
    header = {"certimed": json.dumps(learnt.metadata())}
    name = next(iter(learnt.tensors))
    for value in (learnt.tensors[name] + 1e-3, learnt.tensors[name].half(), torch.full((2, 2), float("nan"))):
        save_file({**learnt.tensors, name: value.contiguous()}, tmp_path / "altered", metadata=header)
        with pytest.raises(InputError, match="altered"):
            Adaptation.load(tmp_path / "altered")
    assert set(load_file(learnt.save(tmp_path / "sound"))) == set(learnt.tensors)
