"""Projected gradient ascent in an L2 ball, and where its result may lie: on the law's grid, strictly in the ball."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certimed.errors import ModelError
from certimed.noise import NoiseLaw

Loss = Callable[[Tensor], Tensor]
"""Image ``(C, *space)`` that requires a gradient -> a number to raise."""

_STEP = 2.5
_SHRINK = 1 - 1e-7


@dataclass(frozen=True)
class Perturbed:
    """A perturbed image.

    Attributes:
        pixels: float32 ``(C, *space)``, on the law's grid where it has one.
        moved: float64 ``(C, *space)`` on the CPU: the perturbation in the law's own units (grid steps, which are whole
            numbers, or [0, 1] units).
        norm: its L2 norm in [0, 1] units, rounded up.
    """

    pixels: Tensor
    moved: Tensor
    norm: float


class Ball:
    """The perturbed images that an attack may use, around one certified image.

    A certificate of the grid law is about grid images around the grid image that was certified, so attacks move between
    those: each value's perturbation is rounded *towards zero* to whole grid steps, by which its norm can only fall, and
    the norm is computed from the whole numbers and rounded up. Under the float32 law the perturbation is what remains
    after ``image + perturbation`` was rounded to float32, and is shrunk until it lies inside.

    Args:
        law: the noise law.
        image: float32 ``(C, *space)``, the certified image.
        clip: keep the values in [0, 1] (values of the image outside may stay where they are).
    """

    def __init__(self, law: NoiseLaw, image: Tensor, *, clip: bool = False) -> None:
        self.law, self.clip = law, clip
        self.origin = law.origin(image)
        self.image = law.clean(self.origin)
        self._start = self.origin.to("cpu", torch.float64)
        self._unit = law.levels or 1

    def project(self, delta: Tensor, radius: float) -> Tensor:
        """The nearest perturbation of norm at most ``radius``; clipped after that, which only shortens it."""
        delta = delta * min(1.0, radius / max(float(delta.norm()), 1e-30))
        if not self.clip:
            return delta
        low, high = self.image.clamp(max=0), self.image.clamp(min=1)
        return torch.minimum(torch.maximum(self.image + delta, low), high) - self.image

    def put(self, delta: Tensor, radius: float) -> Perturbed:
        """The perturbed image: representable, and at most ``radius`` from the certified one."""
        wanted = self.project(delta, radius).to("cpu", torch.float64) * self._unit
        while True:
            steps = wanted.trunc() if self.law.levels else wanted
            pixels = self.law.clean((self._start + steps).to(self.image.device, torch.float32))
            found = self.at(pixels)
            if found.norm <= radius:
                return found
            wanted = wanted * (radius / found.norm) * _SHRINK

    def at(self, pixels: Tensor) -> Perturbed:
        """How far an image is from the certified one."""
        moved = self.law.origin(pixels).to("cpu", torch.float64) - self._start
        return Perturbed(pixels, moved, moved_norm(moved, self._unit))

    def moved(self, moved: Tensor) -> Perturbed:
        """The perturbed image, from its perturbation as it was stored."""
        return self.at(self.law.clean((self._start + moved.double()).to(self.image.device, torch.float32)))


def moved_norm(moved: Tensor, unit: int) -> float:
    """L2 norm of a perturbation in units of 1 / ``unit``, rounded up; float64 ``moved``."""
    length = float(torch.linalg.vector_norm(moved)) / unit
    # The norm's own rounding is below d + 4 units of 2^-52.
    return math.nextafter(length * (1 + (moved.numel() + 4) * 2.0**-52), math.inf) if length else 0.0


def ascend(loss: Loss, ball: Ball, start: Tensor, radius: float, steps: int) -> tuple[Tensor, float]:
    """Raise a loss by normalised gradient steps, each projected onto the ball (PGD, Madry et al., ICLR 2018).

    Args:
        loss: what is raised; the same function in every step, the noise of its copies included.
        ball: where to stay.
        start: first perturbation ``(C, *space)``.
        radius: of the ball.
        steps: each of ``min(1, 2.5 / steps)`` radii.

    Returns:
        the best perturbation seen, and its loss. Where a gradient is zero or not finite the ascent ends.

    Raises:
        ModelError: the model passes no gradient to its input.
    """
    delta = ball.project(start, radius)
    best, highest = delta, -math.inf
    length = radius * min(1.0, _STEP / steps)
    for step in range(steps + 1):
        x = (ball.image + delta).requires_grad_()
        with torch.enable_grad():
            value = loss(x)
            if not value.requires_grad:
                raise ModelError(
                    "the model passes no gradient on to its input, so that nothing is learnt by attacking it with "
                    "gradients; take torch.no_grad() and integer steps out of its forward pass"
                )
            gradient = torch.autograd.grad(value, x)[0] if step < steps else None
        if (reached := float(value.detach())) > highest:
            best, highest = delta, reached
        size = 0.0 if gradient is None else float(gradient.norm())
        if gradient is None or not 0 < size < math.inf:
            break
        delta = ball.project(delta + gradient * (length / size), radius)
    return best, highest
