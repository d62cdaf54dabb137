"""Sizes a denoiser was not made for: padding, and overlapping tiles blended into one image. Nothing is ever resized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad ``(B, C, H, W)`` on the right and below to multiples of ``multiple``.

    Reflected where the image is larger than the padding, which keeps the noise's standard deviation; otherwise the
    border is repeated. A size that already fits is returned as it is.
    """
    below, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    if not below and not right:
        return x
    reflects = below < x.shape[-2] and right < x.shape[-1]
    return F.pad(x, (0, right, 0, below), mode="reflect" if reflects else "replicate")


def tile_starts(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """First pixels of tiles that cover ``length``; neighbours share ``overlap`` pixels or more, the last ends flush."""
    if length <= tile:
        return (0,)
    starts = list(range(0, length - tile, tile - overlap))
    return (*starts, length - tile)


@dataclass(frozen=True)
class Tiling:
    """Tiles of at most ``tile`` pixels a side over ``height`` x ``width``, blended linearly where they overlap."""

    height: int
    width: int
    tile: int
    overlap: int

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``function`` on every tile of ``x (B, C, height, width)``; one call a tile serves the whole batch.

        The weights of all tiles at a pixel sum to one, so tiling the identity gives ``x`` back.
        """
        total = torch.zeros_like(x)
        weight = x.new_zeros(self.height, self.width)
        high, wide = min(self.tile, self.height), min(self.tile, self.width)
        window = torch.outer(self._ramp(high, x), self._ramp(wide, x))
        for top in tile_starts(self.height, self.tile, self.overlap):
            for left in tile_starts(self.width, self.tile, self.overlap):
                rows, columns = slice(top, top + high), slice(left, left + wide)
                total[..., rows, columns] += window * function(x[..., rows, columns])
                weight[rows, columns] += window
        return total / weight

    def _ramp(self, length: int, like: Tensor) -> Tensor:
        """Rises over ``overlap`` pixels at both ends; never zero, so that the image's own border keeps a weight."""
        position = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
        return torch.minimum(position, position.flip(0)).clamp(max=self.overlap + 1) / (self.overlap + 1)
