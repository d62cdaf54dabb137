"""Runs for the tests of the report: labels and masks, small, with names that try to break out of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import certimed
from certimed.api import Run
from certimed.classifiers import ClassificationModel
from certimed.data import ReadOptions
from certimed.runs import ClassTarget, DataSpec, MaskTarget, RunSpec
from certimed.segmenters import SegmentationModel

CLASSES = ("dark", "light")
# Without "=", which the words of a class cannot have.
HOSTILE_CLASSES = (
    "<script>Object.assign(window, {pwned: 1})</script>",
    "</script><script>Object.assign(window, {pwned: 1})</script>\u2028 \"quoted' & more",
)
HOSTILE_FILE = "<b onclick=alert(1)>'\" &amp;.png"
SIGMA = 0.25


class Brightness(nn.Module):
    """Scores of "dark" and "light": the mean grey level against one half."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-level, level], dim=1)


class Bands(nn.Module):
    """Three classes by grey level: dark, middle, light."""

    def forward(self, x: Tensor) -> Tensor:
        level = nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 5, stride=1, padding=2)[:, 0]
        return torch.stack([-(level**2), -((level - 0.5) ** 2), -((level - 1) ** 2)], dim=1)


def brightness() -> ClassificationModel:
    """The brightness model on images of any size, shrunk to four by four values."""
    return ClassificationModel(Brightness(), input_shape=(1, 4, 4))


def bands() -> SegmentationModel:
    """The model of three grey levels."""
    return SegmentationModel(Bands(), num_classes=3, output="logits", in_channels=1)


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


def class_run(
    images: Path,
    out: Path,
    *,
    names: tuple[str, ...] = CLASSES,
    n: int = 50,
    bound: str = "one-sided",
    budget: Any = None,
    **options: Any,
) -> Run:
    """A finished run of labels."""
    labelled = (images / "dark").is_dir()
    classes = tuple(f"{folder}={words}" for folder, words in zip(CLASSES, names)) if labelled else names
    spec = RunSpec(
        "python:report_runs:brightness",
        DataSpec(str(images), classes=classes),
        ClassTarget(bound),
        budget=f"fixed:{n}" if budget is None else budget,
        **{"n0": 10, "seed": 3, "sigma": SIGMA, **options},
    )
    return certimed.run(spec, out, allow_code=True)


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


def mask_run(
    folder: Path,
    out: Path,
    names: tuple[str, ...] = ("dark", "middle", "light"),
    *,
    taus: tuple[float, ...] = (0.6, 0.75),
    **options: Any,
) -> Run:
    """A finished run of masks, one series a tau."""
    spec = RunSpec(
        "python:report_runs:bands",
        DataSpec(str(folder), classes=names),
        MaskTarget(taus),
        **{"n0": 5, "budget": "fixed:80", "sigma": SIGMA, **options},
    )
    return certimed.run(spec, out, allow_code=True)


class Bands3(nn.Module):
    """Three classes of a volume by its level: dark, middle, light."""

    def forward(self, x: Tensor) -> Tensor:
        level = nn.functional.avg_pool3d(x, 3, stride=1, padding=1)[:, 0]
        return torch.stack([-((level - centre) ** 2) for centre in (0.1, 0.45, 0.9)], dim=1)


def bands3() -> SegmentationModel:
    """The same for volumes."""
    return SegmentationModel(Bands3(), num_classes=3, output="logits", in_channels=1)


VOLUME_AFFINE = np.array([[-1.0, 0, 0, 40], [0, 0, 1.5, -30], [0, 3.0, 0, -20], [0, 0, 0, 1]])
"""To the left, up, to the front: voxels of 1 x 3 x 1.5 mm whose axes are not those of the patient's names."""


def volume_images(folder: Path, count: int, shape: tuple[int, int, int] = (12, 8, 10)) -> Path:
    """``images/`` and ``masks/``: heads with a bright and a grey ball, as NIfTI."""
    import nibabel

    generator = np.random.default_rng(5)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        middle = (x - 0.3) ** 2 + (y + 0.1) ** 2 + z**2 < 0.25 + 0.05 * index
        light = (x + 0.5) ** 2 + (y - 0.4) ** 2 + (z - 0.2) ** 2 < 0.15
        truth = np.where(light, 2, middle).astype(np.uint8)
        values = np.array([0.1, 0.45, 0.9])[truth] + generator.normal(0, 0.02, shape)
        for part, stored in (("images", (1000 * values).astype(np.int16)), ("masks", truth)):
            nibabel.Nifti1Image(stored, VOLUME_AFFINE).to_filename(folder / part / f"{index}.nii.gz")
    return folder


def volume_run(folder: Path, out: Path, *, n: int = 60) -> Run:
    """A finished run of whole volumes."""
    reading = ReadOptions(volume=True, percentiles=(0, 100))
    spec = RunSpec(
        "python:report_runs:bands3",
        DataSpec(str(folder), classes=("background", "ventricle", "lesion"), reading=reading),
        MaskTarget((0.75,)),
        n0=5,
        budget=f"fixed:{n}",
        sigma=0.1,
    )
    return certimed.run(spec, out, allow_code=True)


def slice_spec(folder: Path, slices: str = "every:3") -> RunSpec:
    """A request for slices of volumes, by the model of planes."""
    data = DataSpec(
        str(folder),
        classes=("background", "ventricle", "lesion"),
        slices=slices,
        reading=ReadOptions(percentiles=(0, 100)),
    )
    return RunSpec("python:report_runs:bands", data, MaskTarget((0.6,)), n0=5, budget="fixed:60", sigma=SIGMA)
