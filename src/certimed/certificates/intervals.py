"""The claim about measurements: for each of them the values on all noisy copies, and the intervals they prove."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from certimed.certificates.fields import Fields
from certimed.errors import InputError


@dataclass(frozen=True)
class MeasuredInterval:
    """One measurement of one image.

    Attributes:
        name: of the measurement.
        unit: of its values; empty for numbers without one.
        values: its defined values on the estimation samples, rising: all that the ends depend on.
        undefined: on how many samples it was not defined; they count as -infinity for lower and as +infinity for upper
            ends.
        lower, upper: ends for each radius of the claim; infinite where nothing is proved.
        threshold: number whose place was asked for, or None.
        width: width that was asked for, or None.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    undefined: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    threshold: float | None = None
    width: float | None = None

    @property
    def n(self) -> int:
        """Estimation samples."""
        return len(self.values) + self.undefined

    @property
    def median(self) -> float | None:
        """Median of the samples, an undefined value counting as the largest; None where it is undefined itself."""
        middle = (self.n + 1) // 2
        return self.values[middle - 1] if middle <= len(self.values) else None

    @cached_property
    def ordered(self) -> NDArray[np.float64]:
        """The values as an array."""
        return np.asarray(self.values, dtype=np.float64)

    def place(self, index: int) -> str | None:
        """Where the interval at a radius lies to the threshold: ``"below"``, ``"above"``, or None: not proved."""
        if self.threshold is None:
            return None
        if self.upper[index] < self.threshold:
            return "below"
        return "above" if self.lower[index] > self.threshold else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; an infinite end is null."""
        return {
            "name": self.name,
            "unit": self.unit,
            "values": list(self.values),
            "undefined": self.undefined,
            "lower": [None if math.isinf(end) else end for end in self.lower],
            "upper": [None if math.isinf(end) else end for end in self.upper],
            "median": self.median,
            "threshold": self.threshold,
            "width": self.width,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> MeasuredInterval:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        found = cls(
            name=fields.string("name"),
            unit=fields.string("unit"),
            values=fields.numbers("values"),
            undefined=fields.integer("undefined"),
            lower=tuple(-math.inf if end is None else end for end in fields.optional_numbers("lower")),
            upper=tuple(math.inf if end is None else end for end in fields.optional_numbers("upper")),
            threshold=fields.optional_number("threshold"),
            width=fields.optional_number("width"),
        )
        if fields.optional_number("median") != found.median:
            raise InputError(f"median {fields.get('median')!r} of {found.name!r:.60} is not that of its values")
        return found

    def check(self, n: int, radii: int) -> None:
        """Raise InputError unless it can be of so many samples and radii."""
        if self.undefined < 0 or self.n != n:
            raise InputError(
                f"{self.name!r:.60} has {len(self.values)} values and {self.undefined} undefined, not n={n}"
            )
        if any(a > b for a, b in pairwise(self.values)) or not all(map(math.isfinite, self.values)):
            raise InputError(f"the values of {self.name!r:.60} must be finite and must not fall")
        if len(self.lower) != radii or len(self.upper) != radii:
            raise InputError(f"{self.name!r:.60} must have a lower and an upper end for each of {radii} radii")
        known = {*self.values, -math.inf, math.inf}
        if not known.issuperset(self.lower + self.upper) or any(a > b for a, b in zip(self.lower, self.upper)):
            raise InputError(f"the ends of {self.name!r:.60} must be values of samples, the lower below the upper one")


@dataclass(frozen=True)
class IntervalClaim:
    """Where the medians under noise of all measurements stay, at all radii.

    Attributes:
        intervals: one for each measurement.
        radii: L2 in [0, 1] units of the certified space, rising.
    """

    intervals: tuple[MeasuredInterval, ...]
    radii: tuple[float, ...]
    kind: ClassVar[str] = "interval"
    array_names: ClassVar[tuple[str, ...]] = ()

    @property
    def radius(self) -> float:
        """The largest radius at which any end is finite; 0 where none is."""
        finite = [
            radius
            for index, radius in enumerate(self.radii)
            if any(math.isfinite(one.lower[index]) or math.isfinite(one.upper[index]) for one in self.intervals)
        ]
        return finite[-1] if finite else 0.0

    @property
    def abstained(self) -> bool:
        """Whether every end is infinite."""
        return self.radius == 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`certimed.certificates.Claim`."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """See :class:`certimed.certificates.Claim`."""
        return {
            "radius": self.radius,
            "radii": list(self.radii),
            "intervals": [one.to_dict() for one in self.intervals],
        }

    @classmethod
    def from_fields(cls, fields: Fields, arrays: Mapping[str, NDArray[Any]]) -> IntervalClaim:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        listed = fields.get("intervals")
        if not isinstance(listed, list) or not listed:
            raise InputError("field 'intervals' of the claim must be a list of one or more measurements")
        read = tuple(MeasuredInterval.from_fields(Fields(one, "measurement")) for one in listed)
        claim = cls(read, fields.numbers("radii"))
        if claim.radius != fields.number("radius"):
            raise InputError(f"radius {fields.number('radius')!r} is not the largest with a finite end")
        return claim

    def check(self, n0: int, n: int, shape: tuple[int, ...]) -> None:
        """See :class:`certimed.certificates.Claim`."""
        if n0 != 0:
            raise InputError(f"n0={n0}: measurements have no selection samples")
        rising = all(a < b for a, b in pairwise(self.radii))
        if not self.radii or not rising or not all(0 < radius < math.inf for radius in self.radii):
            raise InputError(f"radii {self.radii} must be above 0 and rise")
        names = [one.name for one in self.intervals]
        if len(set(names)) < len(names):
            raise InputError(f"measurements {', '.join(names)}: each must be named once")
        for one in self.intervals:
            one.check(n, len(self.radii))
