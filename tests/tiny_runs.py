"""A data set of tiny images, a linear model and everything a run needs, at a millisecond an image."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from toys import brightness

from certimed.certificates import ClassCertificate, collect_provenance
from certimed.classification import SmoothedClassifier
from certimed.data import Dataset, MedicalImage, open_dataset
from certimed.runs import RunFolder, certify_dataset, data_section

SIZE = 4
CLASSES = ("dark", "light")


def write_images(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """Class folders of grey squares; some files may be broken."""
    for index in range(count):
        name = CLASSES[index % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        path = folder / name / f"{index:05d}.png"
        level = 60 + (index * 37) % 140
        Image.fromarray(np.full((SIZE, SIZE), level, dtype=np.uint8)).save(path)
        if index in broken:
            path.write_bytes(b"not an image")
    return folder


class Certify:
    """Certifier of the brightness model; it may be slow, and may write down what it computes."""

    def __init__(
        self, n: int = 50, sigma: float = 0.25, seed: int = 3, delay: float = 0.0, journal: Path | None = None
    ) -> None:
        self.settings = {"sigma": sigma, "n0": 10, "n": n, "alpha": 0.001, "bound": "one-sided", "seed": seed}
        self.smoothed = SmoothedClassifier(brightness, 2, sigma, model_id="a" * 64)
        self.delay = delay
        self.journal = journal

    def __call__(self, image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        if self.journal is not None:
            with self.journal.open("a") as stream:
                stream.write(f"{os.getpid()} {image.id}\n")
        time.sleep(self.delay)
        x = torch.from_numpy(image.pixels)
        options = {name: self.settings[name] for name in ("n0", "n", "alpha", "bound", "seed")}
        certificate = self.smoothed.certify(x, item_id=image.id, intensity=image.intensity, **options)
        return {"none": int(brightness(x.unsqueeze(0)).argmax())}, {"none": certificate}


def manifest(dataset: Dataset, certify: Certify, previous: dict[str, object] | None = None) -> dict[str, object]:
    """The manifest of a run of :class:`Certify`."""
    return {
        "task": "classify",
        "certimed": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "arguments": ["certify"],
        "settings": dict(certify.settings),
        "model": {"name": "brightness", "identity": "a" * 64, "input_shape": [1, SIZE, SIZE]},
        "classes": list(CLASSES),
        "templates": ["{}"],
        "data": data_section(dataset, previous),
        "provenance": collect_provenance("cpu", model="a" * 64).to_dict(),
    }


def open_images(folder: str | Path) -> Dataset:
    """The data set of :func:`write_images`."""
    return open_dataset(folder)


def full_run(images: Path, out: Path, **options: object) -> RunFolder:
    """One undisturbed run, closed."""
    dataset, certify = open_images(images), Certify(**options)  # type: ignore[arg-type]
    with RunFolder.create(out, manifest(dataset, certify)) as folder:
        for _ in certify_dataset(dataset, certify, folder):
            pass
    return folder


def make(images: str, delay: float = 0.0, journal: str | None = None) -> tuple[Dataset, Certify]:
    """What a worker builds."""
    return open_images(images), Certify(delay=delay, journal=None if journal is None else Path(journal))


def lines(folder: Path) -> list[str]:
    """Sorted lines of a run."""
    return sorted((folder / "certificates.jsonl").read_text().splitlines())
