"""The box that a promptable segmenter is given for each image: from a table, or around the true mask."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certimed.certificates import VariedSetting, VariedSettings
from certimed.data import MedicalImage
from certimed.errors import ImageError, InputError
from certimed.segmenters import PromptedSegmenter
from certimed.settings import Axis
from certimed.settings.workflow import pixels_a_unit

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the image from its upper left corner."""

COLUMNS = ("left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes by image; a click is in the middle of its box.

    Attributes:
        table: by the id of the image; None: around the true mask, all classes but the background together.
        digest: hex SHA-256 of the table's file, part of the model's identity; ``"around the mask"`` without one.
    """

    table: dict[str, Box] | None = None
    digest: str = "around the mask"

    @classmethod
    def read(cls, path: str | None) -> Boxes:
        """From a CSV file with the columns image, left, top, right, bottom; None: from masks.

        Raises:
            InputError: no such file, a column that is missing, or a box that is none.
        """
        if path is None:
            return cls()
        try:
            content = Path(path).read_bytes()
            rows = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"the boxes {path} cannot be read: {error}") from error
        table: dict[str, Box] = {}
        for number, row in enumerate(rows, 2):
            try:
                left, top, right, bottom = (float(row[name]) for name in COLUMNS)
                name = row["image"]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"the boxes {path} line {number} must have an image and numbers in the columns {', '.join(COLUMNS)}"
                ) from error
            if not (left < right and top < bottom and all(map(math.isfinite, (left, top, right, bottom)))):
                raise InputError(f"the boxes {path} line {number}: {left:g}, {top:g}, {right:g}, {bottom:g} is no box")
            table[name] = (left, top, right, bottom)
        return cls(table, hashlib.sha256(content).hexdigest())

    def of(self, image: MedicalImage) -> Box:
        """The box of an image; ImageError where it has none."""
        if self.table is not None:
            if image.id not in self.table:
                raise ImageError(f"{image.id} has no box in the table; add a line for it")
            return self.table[image.id]
        if image.mask is None or image.mask.ndim != 2 or not (image.mask > 0).any():
            raise ImageError(
                f"{image.id} has no mask with an object to put a box around; give boxes, e.g. --boxes FILE"
            )
        rows, columns = np.nonzero(image.mask > 0)
        return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


class Prompting:
    """A box or a click at one image, as settings that noise is on: the image is embedded once.

    Args:
        axes: what is varied, all of the box or click.
        image: as it was read.
        box: of it.
        network: the segmenter.
        device: where it runs.

    Attributes:
        varied: for the certificate.
        digest: hex SHA-256 of image and box.
    """

    def __init__(
        self, axes: tuple[Axis, ...], image: MedicalImage, box: Box, network: PromptedSegmenter, device: torch.device
    ) -> None:
        self.axes, self.network = axes, network
        self._pixels = torch.from_numpy(image.pixels).to(device)
        clicked = axes[0].name.startswith("click")
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        names = ("click-x", "click-y") if clicked else tuple(f"box-{side}" for side in COLUMNS)
        given = dict(zip(names, middle if clicked else box))
        units = {axis.name: pixels_a_unit(axis, image) for axis in axes}
        self.varied = VariedSettings(
            tuple(
                VariedSetting(axis.name, axis.unit, axis.kind.how, axis.scale, given[axis.name] / units[axis.name])
                for axis in axes
            ),
            tuple(self._pixels.shape),
        )
        self._own = torch.tensor(list(given.values()), dtype=torch.float64, device=device)
        self._spread = torch.zeros((len(axes), len(names)), dtype=torch.float64, device=device)
        for place, axis in enumerate(axes):
            self._spread[place, names.index(axis.name)] = axis.scale * units[axis.name]
        found = hashlib.sha256(repr((tuple(given.items()), tuple(self._pixels.shape))).encode())
        found.update(np.ascontiguousarray(image.pixels, dtype="<f4").tobytes())
        self.digest = found.hexdigest()
        self._embedding: Tensor | None = None

    @property
    def start(self) -> Tensor:
        """The coordinates of the given box or click: zeros ``(k, 1)``."""
        return torch.zeros((len(self.axes), 1), device=self._pixels.device)

    def answer(self, u: Tensor) -> Tensor:
        """Coordinates ``(B, k, 1)`` -> scores ``(B, 2, H, W)``; the encoder runs the first time only."""
        if self._embedding is None:
            with torch.no_grad():
                self._embedding = self.network.embed(self._pixels.unsqueeze(0))
        prompts = self._own + u[:, :, 0].double() @ self._spread
        height, width = self._pixels.shape[1:]
        return self.network.answer(self._embedding, prompts, (int(height), int(width)))


def boxed(network: PromptedSegmenter, box: Box) -> Any:
    """The segmenter with its box given: images ``(B, C, H, W)`` -> scores ``(B, 2, H, W)``."""

    def answer(x: Tensor) -> Tensor:
        prompts = torch.tensor([box], dtype=torch.float64, device=x.device).expand(len(x), 4)
        return network.answer(network.embed(x), prompts, (int(x.shape[2]), int(x.shape[3])))

    return answer
