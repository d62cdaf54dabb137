"""Search of a few dimensions by trying directions all around: for settings, whose workflow need not have a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from certimed.attacks.ascent import Ball, Loss

MOST_AXES = 3
_LEVELS = (1.0, 0.5)
_DIRECTIONS = {2: 24, 3: 64}


def directions(axes: int) -> Tensor:
    """Unit vectors all around, float64 ``(N, axes)``: both ends of a line, a circle in equal steps, a Fibonacci sphere.

    Args:
        axes: 1 to :data:`MOST_AXES`.
    """
    if axes == 1:
        return torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    count = _DIRECTIONS[axes]
    steps = torch.arange(count, dtype=torch.float64)
    if axes == 2:
        angles = steps * (2 * math.pi / count)
        return torch.stack([angles.cos(), angles.sin()], dim=1)
    height = 1 - 2 * (steps + 0.5) / count
    turn = steps * (math.pi * (3 - math.sqrt(5)))
    around = (1 - height**2).sqrt()
    return torch.stack([around * turn.cos(), around * turn.sin(), height], dim=1)


@torch.no_grad()
def survey(loss: Loss, ball: Ball, radius: float, known: Tensor | None = None) -> Tensor:
    """The perturbation of the largest loss among directions all around, at this radius and at half of it.

    Args:
        loss: what is to be high.
        ball: around settings ``(k, 1)``, k at most :data:`MOST_AXES`.
        radius: of the ball.
        known: a perturbation that is tried too, at this radius.
    """
    around = directions(len(ball.image)).to(ball.image.device)
    tried: list[Tensor] = [level * radius * one.float().view_as(ball.image) for level in _LEVELS for one in around]
    if known is not None and float(known.norm()) > 0:
        tried.append(known * (radius / known.norm()))
    heights = [float(loss(ball.image + delta)) for delta in tried]
    best: Tensor = tried[heights.index(max(heights))]
    return best
