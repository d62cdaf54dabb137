"""Where a run computes: on a GPU where there is one, and workers each on their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_helper import CLASSIFIER, call, refused
from tiny_runs import class_spec, manifest, write_images

from certimed.errors import InputError
from certimed.models.device import checked_device
from certimed.runs.run import local_crew


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, place in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert checked_device("auto") == torch.device(place)
    with pytest.raises(InputError, match="sees none here"):
        checked_device("cuda:1")
    for name in ("meta", "xla"):
        with pytest.raises(InputError, match=f"'{name}' cannot be computed on here"):
            checked_device(name)
    with pytest.raises(InputError, match="use 'auto', 'cpu'"):
        checked_device("gpu")


def test_the_first_line_says_where(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 2)
    words = ("certify", "classes", *CLASSIFIER, "--data", images, "--n", 30, "--n0", 5, "--out")
    said = call(*words, tmp_path / "run")
    assert said.err.splitlines()[0].startswith("2 images to do on the CPU (")
    assert manifest(tmp_path / "run")["request"]["device"] == "auto"
    assert manifest(tmp_path / "run")["provenance"]["device"] == "cpu"
    assert "images to do" not in call(*words, tmp_path / "quiet", "--quiet").err
    assert call("certify", "--resume", tmp_path / "run", "--allow-code", "--device", "cpu").code == 0
    assert "needs a CUDA GPU" in refused(*words, tmp_path / "other", "--device", "cuda")


@pytest.mark.parametrize(
    ("asked", "count", "visible", "workers", "gpus"),
    [
        ("auto", 2, None, 3, ("0", "1", "0")),
        ("cuda", 2, "GPU-a,GPU-b", 2, ("GPU-a", "GPU-b")),
        ("cuda:1", 2, None, 2, ()),
        ("auto", 0, None, 2, ()),
    ],
)
def test_gpus_are_dealt_to_workers(
    monkeypatch: pytest.MonkeyPatch, asked: str, count: int, visible: str | None, workers: int, gpus: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    place = torch.device("cpu" if not count else "cuda" if asked == "auto" else asked)
    work: Any = SimpleNamespace(engine=SimpleNamespace(device=place), spec=class_spec("images", device=asked))
    crew = local_crew(work, workers)
    assert (crew.workers, crew.gpus) == (workers, gpus)
