"""A folder of hostile files: every one handled, none wrong, nothing on the terminal, little memory and time."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile import make_hostile_folder

from certimed.data import identity, open_dataset
from certimed.errors import ImageError

pytest.importorskip("pydicom")
pytest.importorskip("nibabel")

# One process reads the whole folder under an address-space limit of 1 GiB above what its imports took.
READ_ALL = """
import resource, sys
import numpy, PIL.Image, pydicom, nibabel, tifffile, imagecodecs
import pydicom.pixels
from certimed.data import open_dataset
from certimed.errors import ImageError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = open_dataset(sys.argv[1])
for index, name in enumerate(dataset.ids):
    try:
        dataset.load(index)
        print("read", name)
    except ImageError as error:
        assert chr(10) not in str(error)
        print("failed", error)
print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_every_hostile_file_is_handled(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = make_hostile_folder(tmp_path / "hostile")
    assert len(wanted) >= 30
    capfd.readouterr()
    start = time.perf_counter()
    dataset = open_dataset(tmp_path / "hostile")
    assert sorted(wanted) == list(dataset.ids)
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, name in enumerate(dataset.ids):
            outcome = wanted[name]
            if isinstance(outcome, tuple):
                image = dataset.load(index)
                assert image.pixels.shape == outcome, name
                assert image.id == name
                assert image.intensity
                continue
            with pytest.raises(ImageError) as caught:
                dataset.load(index)
            message = str(caught.value)
            assert message.startswith(name), name
            assert outcome in message, message
            assert "\n" not in message
            assert len(message) < 400
    assert time.perf_counter() - start < 5
    assert logging.root.manager.disable == level
    assert capfd.readouterr() == ("", "")
    assert len(identity(dataset)) == 64


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the address space")
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    wanted = make_hostile_folder(tmp_path / "hostile")
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path / "hostile")],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum(line.startswith("read ") for line in lines) == sum(isinstance(o, tuple) for o in wanted.values())
    assert sum(line.startswith("failed ") for line in lines) == sum(isinstance(o, str) for o in wanted.values())
    assert "more memory" not in done.stdout
    assert int(lines[-1].split()[1]) < 100  # MiB above the imports


@pytest.mark.parametrize("name", ["truncated.png", "good.dcm", "good.nii.gz", "cmyk.jpg", "truncated.tif", "deep.png"])
def test_random_damage_never_escapes(tmp_path: Path, name: str) -> None:
    make_hostile_folder(tmp_path / "hostile")
    data = (tmp_path / "hostile" / name).read_bytes()
    generator = np.random.default_rng(3)
    (tmp_path / "damaged").mkdir()
    target = tmp_path / "damaged" / name
    for _ in range(40):
        damaged = np.frombuffer(data, np.uint8).copy()
        spots = generator.integers(0, len(damaged), 6)
        damaged[spots] = generator.integers(0, 256, 6)
        target.write_bytes(damaged[: generator.integers(1, len(damaged) + 1)].tobytes())
        try:
            pixels = open_dataset(target).load(0).pixels
        except ImageError as error:
            assert str(error).startswith(name)
        else:
            assert pixels.min() >= 0
            assert pixels.max() <= 1
