"""Methods of a request: kinds, prompt files and names of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed.certificates import END_TO_END, FROZEN_AT_X
from certimed.errors import InputError
from certimed.prompts import Prompt, few_shot
from certimed.runs import Prompting, Tuning

WORDS = "an image of {}."


@pytest.fixture
def files(tmp_path: Path) -> dict[int, str]:
    vlm = TinyVLM()
    found = {}
    for shots in (2, 4):
        images, labels = class_images(vlm, shots)
        prompt = few_shot(vlm, images, labels, CLASS_NAMES, shots=shots, epochs=1)
        found[shots] = str(prompt.save(tmp_path / f"a=b, {shots}.safetensors"))
    return found


def test_several_files_of_one_kind_have_names_of_their_own(files: dict[int, str]) -> None:
    vlm = TinyVLM()
    entries = ["plain", f"shots 2={files[2]}", f"shots 4={files[4]}", "more=zero-shot:steps=3:copies=7", "zero-shot"]
    prompting = Prompting.read(entries, Tuning(copies=5))
    assert prompting.kinds == {
        "plain": "plain",
        "shots 2": "few-shot",
        "shots 4": "few-shot",
        "more": "zero-shot",
        "zero-shot": "zero-shot",
    }
    methods = {one.name: one for one in prompting.methods(vlm, CLASS_NAMES, [WORDS], 0.25)}
    assert list(methods) == list(prompting.kinds)
    assert {name: one.scope for name, one in methods.items()} == {
        name: FROZEN_AT_X if kind == "zero-shot" else END_TO_END for name, kind in prompting.kinds.items()
    }
    assert methods["more"].settings[-3:-1] == [7, 3] and methods["zero-shot"].settings[-3] == 5
    assert methods["shots 2"].settings != methods["shots 4"].settings
    learnt = [Prompt.load(path).tuned_on for path in files.values()]
    assert prompting.tuned_on == {item for items in learnt for item in items}


def test_a_kind_stands_for_its_one_file(files: dict[int, str]) -> None:
    prompting = Prompting.read(["both", "few-shot", files[2]], Tuning())
    assert [one.name for one in prompting.entries] == ["both", "few-shot"]
    assert prompting.entries[0].prompt is prompting.entries[1].prompt


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["few-shot"], "method few-shot needs a tuned prompt"),
        (["both"], "starts from one few-shot prompt and 0 are named"),
        (["nonsense"], "neither a method"),
        (["x=nonsense"], "neither a method"),
        (["x=zero-shot:steps=two"], "option 'steps=two'"),
        (["x=zero-shot:width=2"], "option 'width=2'"),
        (["plain", "plain=zero-shot"], "two methods are named plain"),
    ],
)
def test_what_cannot_be_read_is_refused(entries: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompting.read(entries, Tuning())


def test_two_files_need_names_and_both_needs_one(files: dict[int, str]) -> None:
    with pytest.raises(InputError, match="two methods are named few-shot; give each a name of its own"):
        Prompting.read([files[2], files[4]], Tuning())
    with pytest.raises(InputError, match="and 2 are named"):
        Prompting.read([f"a={files[2]}", f"b={files[4]}", "both"], Tuning())
