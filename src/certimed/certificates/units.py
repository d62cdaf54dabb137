"""One radius, said in the units different readers think in."""

from __future__ import annotations

import math
from dataclasses import dataclass

GREY_LEVELS = 255.0


@dataclass(frozen=True)
class RadiusUnits:
    """The same L2 radius in other units (all describe the certified space).

    Attributes:
        l2: L2 norm in [0, 1] units, summed over all values of the image.
        l2_grey_levels: ``l2 * 255``.
        rms_grey_levels: root mean square change per value, ``l2 / sqrt(d) * 255``.
        linf: largest change of every value at once that stays inside the ball, ``l2 / sqrt(d)``.
        linf_grey_levels: ``linf * 255``.
        values: d, the number of values of the image (channels times pixels).
    """

    l2: float
    l2_grey_levels: float
    rms_grey_levels: float
    linf: float
    linf_grey_levels: float
    values: int


def radius_units(radius: float, shape: tuple[int, ...]) -> RadiusUnits:
    """Convert an L2 radius in [0, 1] units for an image of this shape ``(C, *space)``.

    An L-infinity ball of radius r lies inside the L2 ball of radius ``r * sqrt(d)``, so ``l2 / sqrt(d)`` is implied by
    the certificate; it is the largest such value, not the largest L-infinity radius the classifier may have.
    """
    values = math.prod(shape)
    per_value = radius / math.sqrt(values)
    return RadiusUnits(
        l2=radius,
        l2_grey_levels=radius * GREY_LEVELS,
        rms_grey_levels=per_value * GREY_LEVELS,
        linf=per_value,
        linf_grey_levels=per_value * GREY_LEVELS,
        values=values,
    )
