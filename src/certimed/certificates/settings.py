"""The settings of a workflow that were varied, as a certificate in the space "settings" records them.

The noise law draws standard normal numbers g, one for each setting, and the coordinates u of a setting say how many of
its noise units it lies from the image's own: theta = at + scale u where changes add, theta = at exp(scale u) where they
multiply. A certificate of radius R (the part of it that holds off the law's grid as well,
:meth:`certimed.noise.Placement.real_radius`) covers every u with |u|_2 < R: an ellipsoid of settings, whose half axes
are what one setting may change by while the others stay, its ``reach``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from certimed.certificates.fields import Fields
from certimed.errors import InputError

ADDED, MULTIPLIED = "added", "multiplied"


@dataclass(frozen=True)
class VariedSetting:
    """One setting.

    Attributes:
        name: e.g. ``"window-center"``.
        unit: of changes that add, e.g. ``"HU"``; ``""`` where there is none.
        how: ``"added"``, or ``"multiplied"``: the noise is on the logarithm.
        scale: standard deviation of the noise, in the unit, or of the logarithm.
        at: the image's own value, around which the noise is drawn.
    """

    name: str
    unit: str
    how: str
    scale: float
    at: float

    def reach(self, radius: float) -> float:
        """By how much (a number in the unit, or a factor) this setting alone may differ, rounded down."""
        change = _down(radius * self.scale)
        if self.how == ADDED:
            return max(0.0, change)
        # exp is within one unit of its last place.
        return max(1.0, _down(_down(math.exp(max(0.0, change)))))


@dataclass(frozen=True)
class VariedSettings:
    """All settings that were varied together.

    Attributes:
        axes: in the order of the coordinates.
        image: ``(C, *space)`` of the image that the settings were applied to, to which masks belong.
    """

    axes: tuple[VariedSetting, ...]
    image: tuple[int, ...]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless they belong to an input of this shape, ``(number of settings, 1)``."""
        if shape != (len(self.axes), 1) or not self.axes or len(self.image) < 2:
            raise InputError(f"{len(self.axes)} settings of an image {self.image} do not make an input {shape}")
        for one in self.axes:
            if one.how not in (ADDED, MULTIPLIED) or not 0 < one.scale < math.inf or not math.isfinite(one.at):
                raise InputError(f"the setting {one.name!r:.60} is {asdict(one)}, which no noise can vary")
            if one.how == MULTIPLIED and not one.at > 0:
                raise InputError(f"the setting {one.name!r:.60} is {one.at!r}, which no factor can change")

    def to_dict(self, radius: float) -> dict[str, Any]:
        """Plain JSON types, the reach of each setting at this radius among them."""
        axes = [{**asdict(one), "reach": one.reach(radius)} for one in self.axes]
        return {"axes": axes, "image": list(self.image)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VariedSettings:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        fields = Fields(data, "settings of the certificate")
        axes = fields.get("axes")
        if not isinstance(axes, list):
            raise InputError("field 'axes' of the settings of the certificate must be a list")
        found = []
        for axis in axes:
            own = Fields(axis, "setting of the certificate")
            words = {name: own.string(name) for name in ("name", "unit", "how")}
            found.append(VariedSetting(**words, scale=own.number("scale"), at=own.number("at")))
        return cls(tuple(found), fields.integers("image"))


def _down(value: float) -> float:
    return math.nextafter(value, -math.inf) if value else 0.0
