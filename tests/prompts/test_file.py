"""Prompt files: the round trip, refusal of another model or class list, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed.errors import InputError
from certimed.prompts import Prompt, few_shot


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    vlm = TinyVLM()
    images, labels = class_images(vlm, 2)
    return few_shot(vlm, images, labels, CLASS_NAMES, shots=2, epochs=2, held_out=class_images(vlm, 1, seed=4))


def test_a_saved_prompt_comes_back_whole(prompt: Prompt, tmp_path: Path) -> None:
    path = prompt.save(tmp_path / "prompt.safetensors")
    loaded = Prompt.load(path)
    assert torch.equal(loaded.context, prompt.context)
    assert loaded.metadata() == json.loads(json.dumps(prompt.metadata()))
    assert loaded.identity == prompt.identity
    vlm = TinyVLM()
    assert torch.equal(loaded.classifier(vlm).text_features, prompt.classifier(vlm).text_features)
    assert [file.name for file in tmp_path.iterdir()] == ["prompt.safetensors"]
    assert path.stat().st_size < 20_000


def test_another_model_or_class_list_is_refused_with_the_difference_named(prompt: Prompt) -> None:
    with pytest.raises(InputError, match=r"tuned on tiny:0 .* not on tiny:1"):
        prompt.classifier(TinyVLM(seed=1))
    vlm = TinyVLM()
    prompt.check(vlm, CLASS_NAMES)
    with pytest.raises(InputError, match="knows 'mucus', it does not know 'benign'"):
        prompt.check(vlm, ["adipose tissue", "benign", "smooth muscle fibre"])
    with pytest.raises(InputError, match="another order"):
        prompt.check(vlm, CLASS_NAMES[::-1])


def test_saving_where_nothing_can_be_written_is_refused(prompt: Prompt, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        prompt.save(tmp_path / "missing" / "prompt.safetensors")


def test_missing_truncated_and_foreign_files_are_refused(prompt: Prompt, tmp_path: Path) -> None:
    whole = prompt.save(tmp_path / "whole").read_bytes()
    with pytest.raises(InputError, match=r"there is no file .* of a prompt"):
        Prompt.load(tmp_path / "absent")
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cannot be read"):
            Prompt.load(tmp_path / "cut")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="not a prompt saved by certimed"):
        Prompt.load(tmp_path / "foreign")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(InputError, match="far too many"):
        Prompt.load(tmp_path / "huge")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "certimed/prompt/99"),
        ("class_names", "adipose tissue"),
        ("class_names", ["a", "b"]),
        ("model_identity", 5),
        ("position", "behind"),
        ("sigmas", ["0.1"]),
        ("seed", 1.5),
        ("shots", "many"),
        ("history", [1]),
        ("accuracies", {"tuning": 3}),
        ("accuracies", {"tuning": {"0.1": "high"}}),
        ("recipe", []),
        ("tuned_on", [None]),
        ("suffix", None),
        ("identity", "0" * 64),
    ],
)
def test_wrong_metadata_is_refused(prompt: Prompt, tmp_path: Path, field: str, value: object) -> None:
    metadata = {**prompt.metadata(), field: value}
    save_file({"context": prompt.context}, tmp_path / "wrong", metadata={"certimed": json.dumps(metadata)})
    with pytest.raises(InputError, match="wrong"):
        Prompt.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "context", [torch.zeros(5), torch.zeros(2, 5, 12), torch.full((5, 12), float("inf")), torch.zeros(5, 12).half()]
)
def test_a_context_of_the_wrong_kind_is_refused(prompt: Prompt, tmp_path: Path, context: torch.Tensor) -> None:
    save_file({"context": context}, tmp_path / "wrong", metadata={"certimed": json.dumps(prompt.metadata())})
    with pytest.raises(InputError, match="context"):
        Prompt.load(tmp_path / "wrong")


def test_metadata_that_is_no_json_is_refused(prompt: Prompt, tmp_path: Path) -> None:
    for text in ("", "[1]", "{", "[" * 100_000):
        save_file({"context": prompt.context}, tmp_path / "wrong", metadata={"certimed": text})
        with pytest.raises(InputError, match="wrong"):
            Prompt.load(tmp_path / "wrong")
