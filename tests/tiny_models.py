"""Models a millisecond large, in the form a person's own code has: ``python:tiny_models:FACTORY``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from toys import brightness, threshold

from certimed import ClassificationModel
from certimed.segmenters import SegmentationModel

SIZE = 4


class Brightness(nn.Module):
    """Scores of "dark" and "light"."""

    def forward(self, x: Tensor) -> Tensor:
        return brightness(x)


class Shifted(Brightness):
    """The same with a weight, and other answers."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.shift)


class Slow(Brightness):
    """Writes down its process at every pass, and takes a while; where to, the environment says."""

    def forward(self, x: Tensor) -> Tensor:
        with Path(os.environ["TINY_JOURNAL"]).open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.1)
        return super().forward(x)


class Threshold(nn.Module):
    """Two classes a pixel: darker and lighter than one half."""

    def forward(self, x: Tensor) -> Tensor:
        return threshold(x)


class Broken(Brightness):
    """Right on a few grey images; never on more than two at once."""

    def forward(self, x: Tensor) -> Tensor:
        return brightness(x) if len(x) <= 2 else torch.zeros(len(x), 5)


def classifier() -> ClassificationModel:
    """Grey images of 4 by 4."""
    return ClassificationModel(Brightness(), input_shape=(1, SIZE, SIZE))


def shifted() -> ClassificationModel:
    """Another model."""
    return ClassificationModel(Shifted(), input_shape=(1, SIZE, SIZE))


def slow() -> ClassificationModel:
    """:func:`classifier`, slowly."""
    return ClassificationModel(Slow(), input_shape=(1, SIZE, SIZE))


def broken() -> ClassificationModel:
    """Its answers have another number of classes than it says."""
    return ClassificationModel(Broken(), input_shape=(1, SIZE, SIZE))


def bare() -> nn.Module:
    """A network that does not say how large its images are."""
    return Brightness()


def segmenter() -> SegmentationModel:
    """Grey images of any size."""
    return SegmentationModel(Threshold(), num_classes=2, output="logits", in_channels=1)


def other_segmenter() -> SegmentationModel:
    """The same answers, its input normalised another way."""
    return SegmentationModel(Threshold(), num_classes=2, output="logits", in_channels=1, mean=(0.1,), std=(1.0,))
