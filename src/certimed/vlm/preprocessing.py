"""From an image at native resolution to the certified space: resize, pad and crop in float, and nothing else.

The published transforms resize 8-bit images, which rounds (and for bicubic clips) every pixel: up to sqrt(d)/255 in L2,
1.5 at 3x224x224, larger than most certified radii. Here every step is a linear map of float pixels, so a radius in the
certified space carries over to the native image through the map's operator norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from certimed.errors import ImageError, InputError, ModelError
from certimed.operators import LUMA, REPEAT, SAME, Axis, Geometry, apply

# 256 MB of float32: an image that grows beyond it is a strip one pixel high, not something to look at.
_MAX_RESIZED_VALUES = 64_000_000


@dataclass(frozen=True)
class Preprocess:
    """Resize, pad and centre-crop one float image, exactly linearly; normalisation is a step of its own.

    Bicubic interpolation overshoots at sharp edges, so a result may lie a little outside [0, 1]. It is *not* clipped:
    clipping is not linear, the model was never told that its input is bounded, and the noise added next leaves [0, 1]
    anyway. The certificate then speaks about exactly the tensor that :meth:`__call__` returns.

    Attributes:
        size: ``(H, W)`` of the certified space.
        mean, std: per channel, in [0, 1] units; applied by :meth:`normalise` only, after the noise.
        resize: ``"shortest"`` scales the shorter edge to ``edge``, ``"longest"`` the longer one, ``"exact"`` both
            edges to ``edge``, or to ``size`` where that is 0, whatever the aspect ratio, ``"none"`` leaves the image
            as it is.
        edge: target of the resize; 0 means ``min(size)`` for ``"shortest"`` and ``max(size)`` for ``"longest"``.
        interpolation: ``"bicubic"`` (a = -1/2, as Pillow) or ``"bilinear"``, both with antialiasing.
        channels: 3 (one-channel images are repeated) or 1 (colour images become luma).
        square: 0, or pad to a centred black square of at least this edge before the resize (MedCLIP).
        crop_offset: where an odd margin goes: ``"floor"`` (transformers) or ``"round"`` (torchvision, open_clip).
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["shortest", "longest", "exact", "none"] = "shortest"
    edge: int = 0
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    channels: int = 3
    square: int = 0
    crop_offset: Literal["floor", "round"] = "floor"

    def __post_init__(self) -> None:
        """Refuse settings no image can be prepared with."""
        if min(self.size) < 1 or self.edge < 0 or self.square < 0:
            raise InputError(f"preprocessing sizes must be positive; got size={self.size}, edge={self.edge}")
        if self.channels not in (1, 3):
            raise InputError(f"preprocessing makes images of 1 or 3 channels, not {self.channels}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise InputError(
                f"mean {self.mean} and std {self.std} must have one value for each of the {self.channels} channels"
            )
        if min(self.std) <= 0:
            raise InputError(f"every std must be positive; got {self.std}")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise InputError(f"interpolation must be 'bicubic' or 'bilinear', not {self.interpolation!r}")
        if self.resize not in ("shortest", "longest", "exact", "none"):
            raise InputError(f"resize must be 'shortest', 'longest', 'exact' or 'none', not {self.resize!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the certified space."""
        return (self.channels, *self.size)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Prepare one image: a linear map, in float32.

        Args:
            pixels: float ``(C, H, W)``, C 1 or 3, in [0, 1] at native resolution.

        Returns:
            float32 :attr:`shape`, nominally in [0, 1] (bicubic may overshoot a little, see the class).

        Raises:
            ImageError: the pixels are not such an image.
        """
        _check_pixels(pixels)
        return apply(self.geometry(tuple(pixels.shape)), pixels.to(torch.float32))

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """The linear map for images of one native shape ``(C, H, W)``; it is what :meth:`__call__` applies.

        Raises:
            ImageError: an image of this shape would become too large on the way.
        """
        depth, *sizes = shape
        edge = max(self.square, *sizes) if self.square else 0
        before = [_centred(max(0, edge - size)) for size in sizes]
        padded = [size + sum(pair) for size, pair in zip(sizes, before)]
        resized = self._target(*padded)
        if resized != tuple(padded):
            _check_resized(self.channels, padded, resized)
        axes = tuple(
            Axis(size, pair, between, self._margins(target - between))
            for size, pair, between, target in zip(sizes, before, resized, self.size)
        )
        channels = SAME if depth == self.channels else REPEAT if self.channels == 3 else LUMA
        return Geometry(channels, depth, axes, self.interpolation)

    def normalise(self, x: Tensor) -> Tensor:
        """Subtract the mean and divide by the std: float ``(B, C, H, W)`` -> the same shape.

        Raises:
            ModelError: ``x`` does not have the size of the certified space.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ModelError(
                f"this model takes images of shape (batch, {', '.join(map(str, self.shape))}) but got "
                f"{tuple(x.shape)}; prepare images with its preprocess method first"
            )
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        return (x - mean) / std

    def describe(self) -> str:
        """One line in words, as recorded with a certificate."""
        height, width = self.size
        steps = [f"{'grey' if self.channels == 1 else 'colour'} float"]
        if self.square:
            steps.append(f"pad to a black square of at least {self.square}")
        if self.resize == "exact":
            exact = self._target(height, width)
            steps.append(f"resize to {exact[0]}x{exact[1]} ({self.interpolation}, antialiased)")
        elif self.resize != "none":
            steps.append(f"resize {self.resize} edge to {self._edge()} ({self.interpolation}, antialiased)")
        if self.resize != "exact" or self.edge:
            steps.append(f"centre crop {height}x{width}")
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"{'; '.join(steps)}; no clipping; after the noise: mean [{mean}], std [{std}]"

    def _edge(self) -> int:
        return self.edge or (min(self.size) if self.resize == "shortest" else max(self.size))

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """Size after the resize; the longer edge is truncated and not rounded, as in both source libraries."""
        if self.resize == "exact":
            return (self.edge, self.edge) if self.edge else self.size
        if self.resize == "none":
            return height, width
        edge = self._edge()
        if self.resize == "shortest":
            short, long = min(height, width), max(height, width)
            other = int(edge * long / short)
            return (edge, other) if height <= width else (other, edge)
        scale = edge / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _margins(self, missing: int) -> tuple[int, int]:
        """Zeros to add at both ends, or (negative) pixels to cut off, to gain ``missing`` pixels."""
        if missing >= 0:
            return _centred(missing)
        start = -missing // 2 if self.crop_offset == "floor" else round(-missing / 2)
        return -start, missing + start


def _check_pixels(pixels: Tensor) -> None:
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or min(pixels.shape) < 1:
        raise ImageError(
            f"an image must have shape (channels, height, width) with 1 or 3 channels and at least one pixel; got "
            f"{tuple(pixels.shape)}"
        )
    if not pixels.is_floating_point():
        raise ImageError(f"an image must hold floats in [0, 1]; got {pixels.dtype}; divide by its largest value first")


def _check_resized(channels: int, size: list[int], target: tuple[int, int]) -> None:
    if channels * max(target[0], size[0]) * max(target[1], size[1]) > _MAX_RESIZED_VALUES:
        raise ImageError(
            f"an image of {size[0]}x{size[1]} pixels would become {target[0]}x{target[1]} after the resize, which is "
            "too large to handle; crop it to a less elongated region first"
        )


def _centred(missing: int) -> tuple[int, int]:
    return missing // 2, missing - missing // 2
