"""The viewport: which part of the raw image is shown, and where the answer's pixels lie in the raw image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

Changes = Mapping[str, Tensor]
"""By the name of a setting: float64 ``(B,)``, the change that is added or the factor."""


def shown(raw: Tensor, changes: Changes) -> Tensor:
    """The part of raw images ``(B, C, H, W)`` that lies in each viewport, bilinear; NaN outside and at padding.

    A viewport has as many pixels as the image. Its pixel at offset p from its middle shows the raw image at
    ``R p scale + crop``, R rotating by the angle.
    """
    p = _offsets(raw)
    angle, scale = _turn(changes, raw), changes.get("crop-scale", _ones(raw)).view(-1, 1, 1)
    x = (angle.cos() * p[0] - angle.sin() * p[1]) * scale + _crop(changes, "crop-x", raw)
    y = (angle.sin() * p[0] + angle.cos() * p[1]) * scale + _crop(changes, "crop-y", raw)
    grid = _grid(x, y, raw)
    missing = raw.isnan()
    values = functional.grid_sample(
        torch.where(missing, 0.0, raw), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    hidden = functional.grid_sample(missing.to(raw.dtype), grid, mode="nearest", align_corners=False) > 0.5
    outside = (grid.abs() > 1).any(dim=-1).unsqueeze(1)
    return torch.where(hidden | outside, torch.nan, values)


def brought_back(scores: Tensor, changes: Changes) -> Tensor:
    """Scores ``(B, K, H, W)`` of viewports at the pixels of the raw image: each takes its nearest one's.

    What no viewport shows has class 0: its score is 1 there, and that of every other class 0.
    """
    q = _offsets(scores)
    angle, scale = _turn(changes, scores), changes.get("crop-scale", _ones(scores)).view(-1, 1, 1)
    x, y = q[0] - _crop(changes, "crop-x", scores), q[1] - _crop(changes, "crop-y", scores)
    back_x, back_y = (angle.cos() * x + angle.sin() * y) / scale, (angle.cos() * y - angle.sin() * x) / scale
    grid = _grid(back_x, back_y, scores)
    found = functional.grid_sample(scores, grid, mode="nearest", padding_mode="border", align_corners=False)
    outside = (grid.abs() > 1).any(dim=-1).unsqueeze(1)
    nothing = torch.zeros_like(found[:1, :, :1, :1])
    nothing[:, 0] = 1
    return torch.where(outside, nothing, found)


def _offsets(x: Tensor) -> Tensor:
    """Float64 ``(2, H, W)``: right and down from the middle, in pixels."""
    height, width = x.shape[2:]
    down, right = (
        torch.arange(side, dtype=torch.float64, device=x.device) - (side - 1) / 2 for side in (height, width)
    )
    return torch.stack(torch.meshgrid(right, down, indexing="xy"))


def _grid(x: Tensor, y: Tensor, of: Tensor) -> Tensor:
    """Offsets from the middle in pixels -> float32 ``(B, H, W, 2)`` as grid_sample wants it; far ones are held."""
    height, width = of.shape[2:]
    found = torch.stack([x * (2 / width), y * (2 / height)], dim=-1)
    return found.clamp(-1e4, 1e4).float()


def _turn(changes: Changes, of: Tensor) -> Tensor:
    degrees = changes.get("rotation", torch.zeros(len(of), dtype=torch.float64, device=of.device))
    return torch.deg2rad(degrees).view(-1, 1, 1)


def _crop(changes: Changes, name: str, of: Tensor) -> Tensor:
    return changes.get(name, torch.zeros(len(of), dtype=torch.float64, device=of.device)).view(-1, 1, 1)


def _ones(of: Tensor) -> Tensor:
    return torch.ones(len(of), dtype=torch.float64, device=of.device)
