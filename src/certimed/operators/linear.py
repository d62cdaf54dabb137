"""The map itself, on tensors: what runs is what is described, and what is described is what the norm is of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError
from certimed.operators.geometry import LUMA, MEAN, REPEAT, Geometry

# ITU-R 601 luma weights, the ones Pillow's "L" conversion uses; a fixed linear map.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
_PLANE = 2


def apply(geometry: Geometry, x: Tensor) -> Tensor:
    """Map native images to the model's input: float ``(..., C, *space)``, in the precision of ``x``.

    Exactly linear: nothing is clipped and nothing goes through 8 bits. A later clamp to [0, 1] inside a model would
    not hurt a radius, since it moves no two images further apart.

    Raises:
        InputError: ``x`` does not have the geometry's native shape.
    """
    if tuple(x.shape[-len(geometry.shape) :]) != geometry.shape:
        raise InputError(f"an image of shape {tuple(x.shape)} was given to a map for {geometry.shape}")
    x = mix_channels(geometry, x)
    x = _margins(x, [axis.before for axis in geometry.axes])
    if geometry.resizes:
        x = _interpolated(x, tuple(axis.resized for axis in geometry.axes), geometry.kernel)
    return _margins(x, [axis.after for axis in geometry.axes]).contiguous()


class Prepare(nn.Module):
    """:func:`apply` as a module, to put in front of a network: native ``(B, C, *space)`` -> its input.

    Args:
        geometry: for one native shape.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Prepared images."""
        return apply(self.geometry, x)

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return self.geometry.describe()


def mix_channels(geometry: Geometry, x: Tensor) -> Tensor:
    """The first step of :func:`apply`: float ``(..., C, *space)`` -> ``(..., channels, *space)``."""
    axis = -1 - len(geometry.axes)
    if geometry.channels == REPEAT:
        return x.expand(*x.shape[:axis], 3, *x.shape[axis + 1 :])
    if geometry.channels == LUMA:
        with torch.autocast(x.device.type, enabled=False):  # a model in low precision still resizes in float32
            return torch.einsum("c,...chw->...hw", x.new_tensor(LUMA_WEIGHTS), x).unsqueeze(axis)
    return x.mean(dim=axis, keepdim=True) if geometry.channels == MEAN else x


def _margins(x: Tensor, margins: list[tuple[int, int]]) -> Tensor:
    """Zeros around the spatial axes, or pixels cut off where negative."""
    if not any(map(any, margins)):
        return x
    return functional.pad(x, [margin for pair in reversed(margins) for margin in pair])


def _interpolated(x: Tensor, size: tuple[int, ...], kernel: str) -> Tensor:
    if len(size) > _PLANE:  # PyTorch has antialiased kernels of planes: one axis after the other
        for axis, side in zip(range(-len(size), 0), size):
            if x.shape[axis] != side:
                lines = x.movedim(axis, -1)
                flat = _interpolated(lines.reshape(1, -1, lines.shape[-1]), (lines[..., 0].numel(), side), kernel)
                x = flat.reshape(*lines.shape[:-1], side).movedim(-1, axis)
        return x
    if size[1] == 1 and x.shape[-2] != size[0]:
        # To one column PyTorch's CPU kernel resizes rows wrongly: each gets the weights of the first. So width first,
        # and then the rows lying down, where it does not.
        column = _interpolated(x, (x.shape[-2], 1), kernel)
        return _interpolated(column.transpose(-1, -2), (1, size[0]), kernel).transpose(-1, -2)
    images = x.reshape(-1, *x.shape[-1 - _PLANE :])
    resized: Tensor = functional.interpolate(images, size=size, mode=kernel, antialias=True, align_corners=False)
    return resized.reshape(*x.shape[:-_PLANE], *size)
