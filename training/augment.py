"""Random changes of geometry and intensity for training images, on whole batches; deliberately without any noise.

The models trained here stand for vision-language models that never saw noise, so nothing in this file adds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Strength:
    """Largest random change of each kind (angles in degrees, lengths as a share of the image side).

    ``blur_floor`` is the least blur in pixels; the ``_centre`` fields move the middle of a random change (on the log
    scale, except for zoom: positive shows more of the scene).
    """

    rotation: float = 15.0
    zoom: float = 0.18
    shear: float = 0.1
    shift: float = 0.08
    warp: float = 0.02
    gamma: float = 0.5
    contrast: float = 0.35
    offset: float = 0.1
    shading: float = 0.25
    blur: float = 2.0
    cutouts: int = 2
    cutout_side: float = 0.25
    blur_floor: float = 0.0
    gamma_centre: float = 0.0
    contrast_centre: float = 0.0
    zoom_centre: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return torch.rand(shape, generator=generator) * 2 - 1


def _smooth_field(batch: int, channels: int, size: int, generator: Generator) -> Tensor:
    """A smooth random field ``(batch, channels, size, size)`` with values in about [-1, 1]."""
    coarse = _uniform((batch, channels, 4, 4), generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def _geometry(images: Tensor, strength: Strength, generator: Generator) -> Tensor:
    batch, _, size, _ = images.shape
    angle = _uniform((batch,), generator) * strength.rotation * torch.pi / 180
    uneven = _uniform((batch, 2), generator) * strength.zoom * 0.35
    scale = 1 + strength.zoom_centre + uneven + _uniform((batch, 1), generator) * strength.zoom
    shear = _uniform((batch,), generator) * strength.shear
    shift = _uniform((batch, 2), generator) * strength.shift * 2
    mirror = torch.ones(batch, 2)
    for axis, wanted in enumerate((strength.flip_horizontal, strength.flip_vertical)):
        if wanted:
            mirror[:, axis] = torch.sign(_uniform((batch,), generator) + 1e-9)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = torch.stack(
        [
            torch.stack([cos * scale[:, 0] * mirror[:, 0], (shear - sin) * scale[:, 1], shift[:, 0]], dim=1),
            torch.stack([sin * scale[:, 0], cos * scale[:, 1] * mirror[:, 1], shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(rows, [batch, 1, size, size], align_corners=False)
    grid = grid + _smooth_field(batch, 2, size, generator).permute(0, 2, 3, 1) * strength.warp * 2
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _blur(images: Tensor, strength: Strength, generator: Generator) -> Tensor:
    """Gaussian blur, one random width per image, as two depthwise convolutions; half of the images stay sharp."""
    batch, channels, height, width = images.shape
    span = strength.blur - strength.blur_floor
    sigma = (strength.blur_floor + _uniform((batch,), generator).clamp_min(0) * span).clamp_min(0.05)
    reach = max(1, int(2.5 * strength.blur))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = images.reshape(1, batch * channels, height, width)
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=len(kernel))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[:, None, :, None], groups=len(kernel))
    return flat.reshape(images.shape)


def _intensity(images: Tensor, strength: Strength, generator: Generator) -> Tensor:
    batch, channels, size, _ = images.shape
    gamma = torch.exp(strength.gamma_centre + _uniform((batch, 1, 1, 1), generator) * strength.gamma)
    contrast = torch.exp(strength.contrast_centre + _uniform((batch, 1, 1, 1), generator) * strength.contrast)
    tint = _uniform((batch, channels, 1, 1), generator) * strength.offset * 0.4 if channels == 3 else 0.0
    offset = _uniform((batch, 1, 1, 1), generator) * strength.offset + tint
    shading = 1 + _smooth_field(batch, 1, size, generator) * strength.shading
    changed = images.clamp(0, 1) ** gamma
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    return (((changed - mean) * contrast + mean) * shading + offset).clamp(0, 1)


def _cut_out(images: Tensor, strength: Strength, generator: Generator) -> Tensor:
    """Grey out rectangles at random places."""
    batch, _, size, _ = images.shape
    axis = torch.arange(size) / size
    for _ in range(strength.cutouts):
        corner = torch.rand((batch, 2), generator=generator)
        side = torch.rand((batch, 2), generator=generator) * strength.cutout_side
        inside_y = (axis >= corner[:, :1]) & (axis < corner[:, :1] + side[:, :1])
        inside_x = (axis >= corner[:, 1:]) & (axis < corner[:, 1:] + side[:, 1:])
        hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
        grey = torch.rand((batch, 1, 1, 1), generator=generator)
        images = torch.where(hole, grey, images)
    return images


def augment(images: Tensor, strength: Strength, generator: Generator) -> Tensor:
    """Randomly changed copies of float images ``(B, C, S, S)`` in [0, 1]; same shape and range."""
    changed = _geometry(images, strength, generator)
    changed = _intensity(changed, strength, generator)
    if strength.blur > 0:
        changed = _blur(changed, strength, generator)
    return _cut_out(changed, strength, generator)
