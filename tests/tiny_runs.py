"""Runs of tiny images at a millisecond each, as anybody starts them: a request and a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_models import SIZE

from certimed import DataSpec, MaskTarget, Run, RunSpec
from certimed import run as certify

CLASSES = ("dark", "light")


def write_images(folder: Path, count: int, broken: tuple[int, ...] = (), *, size: int = SIZE) -> Path:
    """Class folders of grey squares; some files may be broken."""
    for index in range(count):
        name = CLASSES[index % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / name / f"{index:05d}.png"
        level = 60 + (index * 37) % 140
        Image.fromarray(np.full((size, size), level, dtype=np.uint8)).save(path)
        if index in broken:
            path.write_bytes(b"not an image")
    return folder


def write_noise(folder: Path, count: int, seed: int, *, apart: float = 60, spread: float = 25) -> Path:
    """Class folders of noisy grey squares, no two alike, dark and light ones so far apart on average."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        (folder / CLASSES[index % 2]).mkdir(parents=True, exist_ok=True)
        level = 128 + apart * (2 * (index % 2) - 1) + spread * rng.standard_normal()
        grey = np.clip(level + 5 * rng.standard_normal((SIZE, SIZE)), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / CLASSES[index % 2] / f"{index:05d}.png")
    return folder


def write_scans(folder: Path, count: int, *, size: int = 8) -> Path:
    """Images of discs and their masks, ``images/`` and ``masks/``."""
    rows, columns = np.mgrid[:size, :size] - size / 2 + 0.5
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        disc = rows**2 + columns**2 < (1.5 + number % 3) ** 2
        grey = np.where(disc, 220, 30 + 10 * (number % 4)).astype(np.uint8)
        Image.fromarray(grey).save(folder / "images" / f"{number}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(folder / "masks" / f"{number}.png")
    return folder


def class_spec(images: str | Path, **fields: Any) -> RunSpec:
    """A request for labels by the brightness model."""
    about = {"model": "python:tiny_models:classifier", "n0": 10, "budget": 50, "seed": 3} | fields
    return RunSpec(data=DataSpec(str(images)), **about)


def mask_spec(images: str | Path, **fields: Any) -> RunSpec:
    """A request for masks by the threshold model."""
    about = {"model": "python:tiny_models:segmenter", "n0": 5, "budget": 100, "target": MaskTarget()} | fields
    return RunSpec(data=DataSpec(str(images)), **about)


def full_run(spec: RunSpec | None, out: str | Path, **how: Any) -> Run:
    """A run, done."""
    return certify(spec, out, allow_code=True, **how)


def lines(run: Run | Path) -> list[str]:
    """Sorted lines of a run."""
    path = run if isinstance(run, Path) else run.folder.path
    return sorted((path / "certificates.jsonl").read_text().splitlines())


def manifest(run: Run | Path) -> dict[str, Any]:
    """What is in ``run.json``."""
    path = run if isinstance(run, Path) else run.folder.path
    found: dict[str, Any] = json.loads((path / "run.json").read_text())
    return found
