"""Hostile inputs by the thousand: one sentence or success, never a traceback, a hang, or a file somewhere else."""

import gzip
import io
import json
import resource
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzzing import ATTACKS, Kit, Writes, attack, encoded_images
from tiny_runs import class_spec, full_run, mask_spec, write_images, write_scans
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed.data import open_dataset
from certimed.errors import CertimedError
from certimed.prompts import few_shot
from certimed.runs import RunFolder

pytest.importorskip("pydicom")
pytest.importorskip("nibabel")
pytest.importorskip("mpmath")

QUICK, WHOLE = 300, 10_000


@pytest.fixture(scope="module")
def writes():
    return Writes()


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    base = tmp_path_factory.mktemp("valid")
    full_run(class_spec(write_images(base / "images", 3, broken=(2,))), base / "classes")
    full_run(mask_spec(write_scans(base / "scans", 2)), base / "masks")
    vlm = TinyVLM()
    shots, labels = class_images(vlm, 2)
    prompt = few_shot(vlm, shots, labels, CLASS_NAMES, shots=2, epochs=2).save(base / "prompt.safetensors")
    for run in (base / "classes", base / "masks"):
        (run / ".lock").unlink(missing_ok=True)
    return Kit(tmp_path_factory.mktemp("hostile"), base / "classes", base / "masks", prompt, encoded_images(base))


def run_attacks(kit, writes, seeds):
    """All of them; a failure names the seed that repeats it."""
    kinds = Counter()
    for seed in seeds:
        try:
            with writes.only_in(kit.place):
                kinds[attack(kit, seed)] += 1
        except BaseException as error:
            raise AssertionError(f"input {seed} breaks: {type(error).__name__}: {error}") from error
    assert set(kinds) == set(ATTACKS)
    assert not list(kit.place.iterdir())


def test_a_few_hundred_hostile_inputs(kit, writes):
    run_attacks(kit, writes, range(QUICK))


ONCE = (1405, 1478, 2531, 3668, 3689, 4327, 4705, 5233, 5897, 7879, 8027, 8713, 8753, 8898, 9553)


@pytest.mark.parametrize("seed", ONCE)
def test_inputs_that_once_broke_something(kit, writes, seed):
    """Certificates with fields missing or of another kind (in tables), 1e999 in a manifest, arrays badly deflated,
    labels and scores that fit nothing, digests no encoding has, line ends in a header."""
    with writes.only_in(kit.place):
        attack(kit, seed)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_hostile_inputs(kit, writes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run_attacks(kit, writes, range(WHOLE))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_what_is_written_elsewhere_is_noticed(kit, writes, tmp_path):
    with pytest.raises(AssertionError, match="elsewhere"), writes.only_in(kit.place):
        (tmp_path / "elsewhere").write_text("x")
    with writes.only_in(tmp_path):
        (tmp_path / "here").write_text("x")


def bombs(folder: Path) -> None:
    """Small files that claim or unpack to gigabytes."""
    head = bytearray(348)
    struct.pack_into("<i8h", head, 0, 348, *[0] * 8)
    struct.pack_into("<8h", head, 40, 3, 4000, 4000, 60, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<f", head, 108, 352.0)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    head[344:348] = b"n+1\0"
    with gzip.open(folder / "deep.nii.gz", "wb") as packed:
        packed.write(bytes(head) + bytes(4))
        packed.write(bytes(60_000_000))
    shape = (44, 5000, 5000)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    packed = zipfile.ZipFile(folder / "zeros.npz", "w", zipfile.ZIP_DEFLATED)
    with packed, packed.open("images.npy", "w", force_zip64=True) as member:
        member.write(stream.getvalue())
        for _ in range(shape[0]):
            member.write(bytes(shape[1] * shape[2]))


BOMBS = """
import resource, sys, time
import nibabel
from certimed.data import open_dataset
from certimed.errors import CertimedError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        open_dataset(path).load(0)
        print("read", path)
    except CertimedError as error:
        print("refused", error)
    print("seconds", time.process_time() - begin)
print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_decompression_bombs_are_refused_quickly_with_little_memory(tmp_path):
    bombs(tmp_path)
    paths = sorted(str(path) for path in tmp_path.iterdir())
    assert sum(Path(path).stat().st_size for path in paths) < 10 << 20
    done = subprocess.run([sys.executable, "-c", BOMBS, *paths], capture_output=True, text=True, check=True)
    said = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [kind for kind, _ in said] == ["refused", "seconds"] * len(paths) + ["grown"], done.stdout
    assert all(float(rest) < 5 for kind, rest in said if kind == "seconds"), done.stdout
    assert int(said[-1][1]) < 200, done.stdout  # MiB


def test_deeply_nested_json_is_one_sentence(tmp_path):
    for text in ("[" * 100_000, '{"a":' * 100_000, json.dumps("x")[:-1]):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(CertimedError, match="is not valid JSON"):
            RunFolder.open(tmp_path)
    with pytest.raises(CertimedError):
        open_dataset(tmp_path)
