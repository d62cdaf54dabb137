"""The files of a run: changed bytes, digests, other schemas, unfinished runs, single certificates, damaged files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verification.folders import BROKEN, Folder, Work
from verification.forgeries import FILES, KINDS, WORKS
from verification.honest import class_certificate, mask_certificates

from certimed.errors import InputError
from certimed.verification import verify

WORK = WORKS["grid"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WORK.write(tmp_path_factory.mktemp("original") / "run")


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run"))


BYTES: dict[str, Callable[[str], str]] = {
    "a digit of a number": lambda text: text.replace('"n0": 20', '"n0": 21', 1),
    "white space added": lambda text: text.replace('"n0": 20', '"n0":  20', 1),
    "a line cut": lambda text: text[:-30],
    "the last line end lost": lambda text: text[:-1],
    "an empty line": lambda text: text + "\n",
    "a repeated key": lambda text: text.replace('"radius":', '"radius": 9.0, "radius":', 1),
    "not a number": lambda text: text.replace('"sigma": 0.25', '"sigma": NaN', 1),
    "bytes that are no text": lambda text: text + "\udcff\n",
    "everything gone": lambda text: "",
}


@pytest.mark.parametrize("kind", BYTES)
def test_changed_bytes_are_caught(run: Path, kind: str) -> None:
    path = run / "certificates.jsonl"
    changed = BYTES[kind](path.read_text()).encode(errors="surrogateescape")
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    faults = verify(run).faults
    assert faults
    assert faults[0][0].startswith("certificates.jsonl")


@pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.caught_by != FILES and kind.run == "grid"]
)
def test_what_files_cannot_show_contradicts_a_digest_noted_elsewhere(run: Path, kind: str) -> None:
    noted = verify(run).digest
    folder = Folder.read(run)
    KINDS[kind].edit(folder)
    folder.write()
    # The circumstances of one machine are no part of what was proved.
    local = kind in ("batch size", "date of the run", "name of the model")
    assert verify(run, expect=noted).ok is local


@pytest.mark.parametrize("name", ["run.json", "certificates.jsonl"])
def test_an_edit_that_leaves_the_digests_is_caught(run: Path, name: str) -> None:
    path = run / name
    changed = path.read_text().replace('"seed": 3', '"seed": 4', 1)
    assert changed != path.read_text()
    path.write_text(changed)
    assert any("sha256 does not match" in what for _, what in verify(run).faults)


def test_a_line_of_another_run_is_caught(run: Path, tmp_path: Path) -> None:
    other = Work(seed=4).write(tmp_path / "other")
    own = (run / "certificates.jsonl").read_text().splitlines(keepends=True)
    own[0] = (other / "certificates.jsonl").read_text().splitlines(keepends=True)[0]
    (run / "certificates.jsonl").write_text("".join(own))
    assert verify(run).faults[0][0] == "certificates.jsonl line 1"


def test_an_unfinished_run_is_named_and_can_be_allowed(run: Path) -> None:
    path = run / "certificates.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    assert verify(run).faults == (("certificates.jsonl", "2 of 7 images are missing"),)
    assert verify(run, allow_incomplete=True).ok


def test_a_retried_failure_is_no_double(run: Path) -> None:
    path = run / "certificates.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    (again,) = [line for line in lines if json.loads(line)["item"] == BROKEN]
    path.write_text("".join([*lines, again]))
    assert verify(run).ok
    path.write_text("".join([*lines, lines[0]]))
    assert verify(run).faults == (("certificates.jsonl line 8", "item '0.png' comes twice"),)


def test_other_schemas_are_refused_in_one_sentence(run: Path, tmp_path: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"schema": "certimed/run/1"}))
    with pytest.raises(InputError, match="is of schema 'certimed/run/1', and this version reads 'certimed/run/2'"):
        verify(run)
    path = tmp_path / "one.json"
    for content in (
        "[1]",
        "{}",
        '{"schema": "certimed/class-certificate/1"}',
        '{"schema": "certimed/mask-certificate/1"}',
    ):
        path.write_text(content)
        with pytest.raises(InputError, match="neither a run folder nor a certificate that this version reads"):
            verify(path)
    with pytest.raises(InputError, match="there is no run folder or certificate"):
        verify(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        verify(tmp_path)


def test_single_certificates_are_checked(tmp_path: Path) -> None:
    made = class_certificate("grid", [0.9, 0.1])
    text, *_ = made.save(tmp_path / "one")
    assert verify(text).ok
    text.write_text(made.to_json().replace('"n0": 100', '"n0": 200'))
    assert "selection counts" in verify(text).faults[0][1]
    (mask,) = mask_certificates("100", np.full((8, 8), 0.97))
    text, _ = mask.save(tmp_path / "mask")
    assert verify(text).ok
    with pytest.raises(InputError, match="--expect is the digest of a run"):
        verify(text, expect="0" * 64)


ARRAYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a layer gone": lambda layers: layers.pop("certified"),
    "a layer added": lambda layers: layers.update(more=layers["mask"]),
    "floats": lambda layers: layers.update(agreement=layers["agreement"].astype(float)),
    "another shape": lambda layers: layers.update(mask=layers["mask"][:2]),
    "another class": lambda layers: layers.update(mask=layers["mask"] + 7),
    "pickled": lambda layers: layers.update(mask=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("kind", [*ARRAYS, "gone", "cut"])
def test_damaged_arrays_are_caught(tmp_path: Path, kind: str) -> None:
    (made,) = mask_certificates("100", np.full((8, 8), 0.97))
    text, path = made.save(tmp_path / "mask")
    with np.load(path) as stored:
        layers = dict(stored)
    if kind in ARRAYS:
        ARRAYS[kind](layers)
        np.savez(path, allow_pickle=True, **layers)
    elif kind == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    assert verify(text).faults


def fuzz(run: Path, name: str, data: st.DataObject) -> None:
    """Any bytes, or the true file with some bytes changed; answers are verdicts or one sentence."""
    path = run / name
    good = path.read_bytes()
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        changed = bytearray(good)
        for _ in range(data.draw(st.integers(1, 5))):
            changed[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(changed)
    path.write_bytes(content)
    try:
        # White space between the parts of run.json is the one change without a meaning.
        if verify(run).ok and content != good:
            assert name == "run.json" and json.loads(content) == json.loads(good)
    except InputError:
        pass
    finally:
        path.write_bytes(good)


def mangled(value: Any, data: st.DataObject) -> Any:
    """A JSON value with one part replaced by something else."""
    numbers = st.integers(-3, 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    anything = st.none() | st.booleans() | numbers | st.text(max_size=5) | st.just([]) | st.just({}) | st.just([[1]])
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        name = data.draw(st.sampled_from(sorted(value)))
        return value | {name: mangled(value[name], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 9)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], mangled(value[at], data), *value[at + 1 :]]
    return data.draw(anything)


def mangle(run: Path, data: st.DataObject) -> None:
    """Any value of any field replaced, digests made anew: a verdict or one sentence."""
    folder = Folder.read(run)
    manifest, records = folder.manifest, folder.records
    if data.draw(st.booleans()):
        folder.manifest = mangled(manifest, data)
    else:
        at = data.draw(st.integers(0, len(records) - 1))
        folder.records = [*records[:at], mangled(records[at], data), *records[at + 1 :]]
    if not all(isinstance(one, dict) for one in [folder.manifest, *folder.records]):
        return
    folder.write()
    try:
        verify(run)
    except InputError:
        pass
    finally:
        Folder(run, manifest, records).write()


@pytest.mark.parametrize("name", ["run.json", "certificates.jsonl"])
def test_damaged_files_never_raise_anything_else(
    original: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    run = Path(shutil.copytree(original, tmp_path_factory.mktemp("fuzz") / "run"))

    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def attack(data: st.DataObject) -> None:
        fuzz(run, name, data)

    attack()


@pytest.mark.parametrize("kind", ["grid", "masks"])
def test_mangled_fields_never_raise_anything_else(tmp_path: Path, kind: str) -> None:
    run = WORKS[kind].write(tmp_path / "run")

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def attack(data: st.DataObject) -> None:
        mangle(run, data)

    attack()


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kind", ["grid", "masks"])
def test_thousands_of_mangled_and_damaged_files(tmp_path: Path, kind: str) -> None:
    run = WORKS[kind].write(tmp_path / "run")

    @settings(max_examples=2_000, deadline=None)
    @given(data=st.data())
    def attack(data: st.DataObject) -> None:
        mangle(run, data)
        fuzz(run, data.draw(st.sampled_from(["run.json", "certificates.jsonl"])), data)

    attack()
