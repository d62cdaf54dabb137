"""What a measurement looks at: one mask, and what is known beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scene:
    """One answer of a segmenter, with what is known beside it.

    Attributes:
        mask: integers ``space``: the class of every pixel (voxel).
        spacing: millimetres from pixel to pixel along each axis of ``space``, or None where it is not known; lengths
            are then in pixels, which are taken to be as high as wide.
        image: float32 ``(C, *space)``: what the segmenter was given, noise included; None unless a measurement asks.
        truth: integers ``space``: the true classes, or None.
    """

    mask: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    image: NDArray[np.float32] | None = None
    truth: NDArray[Any] | None = None

    @property
    def steps(self) -> tuple[float, ...]:
        """Length of a pixel along each axis: millimetres, or 1 where the spacing is not known."""
        return self.spacing or (1.0,) * self.mask.ndim

    @property
    def pixel(self) -> float:
        """Area (volume) of a pixel in these lengths."""
        return math.prod(self.steps)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """int64: number of pixels of each class, up to the largest class present."""
        return np.bincount(self.mask.ravel())

    def pixels(self, classes: Sequence[int]) -> int:
        """Number of pixels of any of these classes."""
        return int(sum(self.counts[one] for one in classes if one < len(self.counts)))

    def inside(self, classes: Sequence[int]) -> NDArray[np.bool_]:
        """Boolean ``space``: where the mask is of any of these classes."""
        return within(self.mask, classes)


def within(mask: NDArray[Any], classes: Sequence[int]) -> NDArray[np.bool_]:
    """Where a mask is of any of these classes."""
    found: NDArray[np.bool_] = mask == classes[0]
    for one in classes[1:]:
        found |= mask == one
    return found
