"""The radius carried over to the image at its native resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from certimed.certificates.fields import Fields
from certimed.certificates.scope import NATIVE
from certimed.certificates.units import RadiusUnits, radius_units
from certimed.errors import InputError
from certimed.operators import Geometry
from certimed.operators.geometry import native_radius


@dataclass(frozen=True)
class NativeRadius:
    """What a radius at the model's input means for the image before it was resized.

    Guarantee: ``||d|| < radius`` at native resolution implies ``||A d|| < the certificate's radius``, A being the
    linear map of ``geometry``, since ``||A d|| <= norm * ||d||``. The statement of the certificate then holds for the
    pipeline "prepare, then answer". Nothing is estimated: ``norm`` is an upper bound with a proof, see
    :mod:`certimed.operators.norm`. To certify at native resolution directly, add the noise there (space "native").

    Attributes:
        radius: L2 in [0, 1] units of the native image, rounded down; 0 where the certificate's is 0.
        norm: upper bound on ``||A||_2``.
        geometry: the map A.
    """

    radius: float
    norm: float
    geometry: Geometry

    @classmethod
    def of(cls, radius: float, geometry: Geometry) -> NativeRadius:
        """Carry a radius at the model's input over to native resolution."""
        from certimed.operators.norm import norm_bound

        norm = norm_bound(geometry)
        return cls(native_radius(radius, norm), norm, geometry)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *space)`` of the native image."""
        return self.geometry.shape

    @property
    def size(self) -> str:
        """The shape as people write it, e.g. ``"3x512x512"``."""
        return "x".join(map(str, self.shape))

    def units(self) -> RadiusUnits:
        """The native radius in grey levels, RMS per native value and L-infinity."""
        return radius_units(self.radius, self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"radius": self.radius, "norm": self.norm, "geometry": self.geometry.to_dict()}

    @classmethod
    def from_fields(cls, fields: Fields) -> NativeRadius:
        """The native radius of a certificate's JSON; InputError names a wrong field."""
        return cls(fields.number("radius"), fields.number("norm"), Geometry.from_dict(fields.mapping("geometry")))

    def check(self, radius: float, shape: tuple[int, ...], space: str) -> None:
        """Raise InputError unless this belongs to a certificate of that radius, input shape and space."""
        if space == NATIVE:
            raise InputError("a certificate whose space is native states its native radius already")
        if self.geometry.input_shape != tuple(shape):
            raise InputError(f"the native geometry makes images of {self.geometry.input_shape}, not of {tuple(shape)}")
        if self.norm <= 0 or self.radius != native_radius(radius, self.norm):
            raise InputError(f"native radius {self.radius!r} is not {radius!r} divided by the norm {self.norm!r}")
