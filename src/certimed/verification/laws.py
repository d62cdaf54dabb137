"""Noise laws as recorded, and how far what is drawn may be from the law that the theorem speaks of.

The law ``"gaussian-float32"`` takes float32 arithmetic for real arithmetic: nothing is charged, and that is assumed.
The law ``"gaussian-grid"`` is drawn by a sampler whose total variation distance from the exact law is charged to every
bound. Its proof (:mod:`certimed.noise`) bounds *twice* the distance of one value by a sum: a Taylor remainder of at
most ``(h/2)^6 / 180`` with h = step / sigma, rounding of at most 72 units of 2^-53, and further terms (the tail beyond
8.6 sigma below 1e-17, what the weights lack) that are together below the rounding. Hence the distance itself is at most
``(h/2)^6 / 180 + 72 / 2^53`` a value, and at most d times that for d values, as their law is a product: this is what is
demanded here. An honest record was charged between one and two times as much, which is what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

FLOAT32, GRID = "gaussian-float32", "gaussian-grid"
NAMED = {"float32": FLOAT32, "grid": GRID}
"""What a request calls the laws."""

GRID_STEPS = 257  # of 1/255, the only grid that a request can name
_FINEST, _WIDEST = 64, 1 << 19
_ROUNDING = 72 * 2.0**-53


@dataclass(frozen=True)
class Law:
    """A noise law.

    Attributes:
        sigma: standard deviation in [0, 1] units.
        levels: 1 / step of the grid, or None where there is none.
    """

    sigma: float
    levels: int | None

    def drift(self, shape: list[int], views: list[float] | None = None) -> Fraction:
        """By how much probabilities under the noise drawn may differ from those under the exact law, rounded up.

        Args:
            shape: of the image.
            views: noise of the two independent draws that are one sample, if it is two: their distances add up.
        """
        if self.levels is None:
            return Fraction(0)
        if views is not None:
            return sum((Law(sigma, self.levels).drift(shape) for sigma in views), Fraction(0))
        half = 0.5 / (self.sigma * self.levels)
        return math.prod(shape) * Fraction((half**6 / 180 + _ROUNDING) * (1 - 1e-9))

    def placement_fault(self, placement: Mapping[str, Any], shape: list[int]) -> str | None:
        """What is false about where an image lies; how far it was from the grid only the image itself can show.

        A real image may miss the grid of d values by sqrt(d) / 2 steps; radii for real perturbations lose that much
        (``slack``), and the image's own distance (``rounding``).
        """
        if self.levels is None:
            true = placement == {"on_grid": True, "rounding": 0, "slack": 0}
            return None if true else f"placement {dict(placement)!r:.120} belongs to no law without a grid"
        slack = Fraction(math.prod(shape), 4 * self.levels**2)  # squared
        if not slack <= Fraction(placement["slack"]) ** 2 <= slack * (1 + Fraction(1, 10**9)):
            return f"slack={placement['slack']!r} is not the {float(slack) ** 0.5:.9g} an image may miss the grid by"
        if placement["rounding"] > placement["slack"]:
            return f"rounding={placement['rounding']!r} is more than an image can miss the grid by"
        return None


def read_law(data: Mapping[str, Any]) -> Law | str:
    """The law of a certificate's JSON, or what is wrong with it."""
    sigma, k = data.get("sigma"), data.get("k")
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < 1e9:
        return f"the noise law has sigma={sigma!r:.40}"
    if data.get("name") == FLOAT32 and set(data) == {"name", "sigma"}:
        return Law(float(sigma), None)
    if data.get("name") != GRID or set(data) != {"name", "sigma", "k"}:
        return f"the noise law {data!r:.120} is none this version knows"
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= 1 << 20:
        return f"the noise law has k={k!r:.40} grid steps in 1/255"
    if not _FINEST <= sigma * 255 * k <= _WIDEST:
        return f"sigma={sigma!r} is {sigma * 255 * k:.6g} steps of the grid, outside {_FINEST} to {_WIDEST}"
    return Law(float(sigma), 255 * k)
