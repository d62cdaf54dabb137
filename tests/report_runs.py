"""Runs for the tests of the report: labels and masks, small, with names that try to break out of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_runs import CLASSES, Certify, brightness, manifest
from torch import nn

from certimed.certificates import ClassCertificate, collect_provenance
from certimed.data import Dataset, MedicalImage, open_dataset
from certimed.runs import (
    MaskCertifier,
    MaskSettings,
    RunFolder,
    certify_dataset,
    certify_masks,
    data_section,
)

HOSTILE_CLASSES = (
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>\u2028 \"quoted' & more",
)
HOSTILE_FILE = "<b onclick=alert(1)>'\" &amp;.png"
SIGMA = 0.25


class Shrinking(Certify):
    """The certifier of the brightness model on images of any size: certified are the means of four by four fields."""

    def __call__(self, image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        small = nn.functional.adaptive_avg_pool2d(torch.from_numpy(image.pixels).mean(0, keepdim=True), 4)
        options = {name: self.settings[name] for name in ("n0", "n", "alpha", "bound", "seed")}
        certificate = self.smoothed.certify(small, item_id=image.id, intensity=image.intensity, **options)
        return {"none": int(brightness(small.unsqueeze(0)).argmax())}, {"none": certificate}


def class_images(folder: Path, count: int, edge: int = 32, broken: int | None = None, hostile: bool = False) -> Path:
    """Class folders of grey gradients of many levels, as grainy as photographs are."""
    ramp, generator = np.linspace(-30, 30, edge), np.random.default_rng(9)
    for index in range(count):
        place = folder / CLASSES[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        smooth = 64 + (index * 37) % 128 + ramp[:, None] + ramp[None]
        pixels = np.clip(smooth + generator.normal(0, 12, (edge, edge)), 0, 255).astype(np.uint8)
        name = HOSTILE_FILE if hostile and index == 0 else f"{index:05d}.png"
        Image.fromarray(pixels).save(place / name)
        if index == broken:
            (place / name).write_bytes(b"not an image")
    return folder


def class_run(images: Path, out: Path, *, names: tuple[str, ...] = CLASSES, **options: object) -> RunFolder:
    """A finished classification run."""
    dataset, certify = open_dataset(images), Shrinking(**options)  # type: ignore[arg-type]
    with RunFolder.create(out, {**manifest(dataset, certify), "classes": list(names)}) as folder:
        for _ in certify_dataset(dataset, certify, folder):
            pass
    return folder


class Bands(nn.Module):
    """Three classes by grey level: dark, middle, light; ``sharp`` sets how far from a border it is sure."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 5, stride=1, padding=2)[:, 0] + self.shift
        return torch.stack([-(level**2), -((level - 0.5) ** 2), -((level - 1) ** 2)], dim=1)


def mask_images(folder: Path, count: int, edge: int = 28) -> Path:
    """``images/`` and ``masks/``: blocks of three grey levels, the last image with a file that cannot be read."""
    generator = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        truth = np.kron(generator.integers(0, 3, (4, 4)), np.ones((edge // 4, edge // 4), dtype=int))
        pixels = np.clip(truth * 127 + generator.normal(0, 12, truth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(truth.astype(np.uint8)).save(folder / "masks" / f"{index}.png")
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    (folder / "images" / f"{count - 1}.png").write_bytes(b"broken")
    return folder


def mask_dataset(folder: Path) -> Dataset:
    """The data set of :func:`mask_images`."""
    return open_dataset(folder)


def mask_run(folder: Path, out: Path, names: tuple[str, ...] = ("dark", "middle", "light")) -> RunFolder:
    """A finished segmentation run of two methods."""
    dataset, settings = mask_dataset(folder), MaskSettings(SIGMA, n0=5, n=80)
    models = {"plain": Bands().eval(), "denoised": Bands(0.03).eval()}
    certifier = MaskCertifier(models, models["plain"], 3, settings, model_ids={name: name for name in models})
    content = {
        "task": "segment",
        "settings": {"sigma": SIGMA, "n0": 5, "n": 80, "tau": 0.75, "alpha": 0.001, "seed": 0, "correction": "holm"},
        "methods": list(models),
        "model": {"name": "bands", "identity": "plain"},
        "classes": list(names),
        "data": data_section(dataset),
        "provenance": collect_provenance("cpu").to_dict(),
    }
    with RunFolder.create(out, content) as target:
        for _ in certify_masks(dataset, certifier, target):
            pass
    return target
