"""The radius carried over to the image at its native resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from certimed.certificates.fields import Fields
from certimed.certificates.units import GREY_LEVELS, RadiusUnits, radius_units
from certimed.errors import InputError
from certimed.operators import Geometry
from certimed.operators.geometry import native_radius

if TYPE_CHECKING:
    from certimed.certificates.classification import ClassCertificate
    from certimed.certificates.mask import MaskCertificate

NATIVE_FIELD = "native"


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

    @property
    def words(self) -> str:
        """For a certificate's repr."""
        return f"{self.radius:.4f} at native {self.size}"

    def units(self) -> RadiusUnits:
        """The native radius in grey levels, RMS per native value and L-infinity."""
        return radius_units(self.radius, self.shape)

    def statement(self) -> str:
        """One sentence for the certificate's."""
        return (
            f"At native resolution ({self.size}) the same holds for perturbations with L2 norm below "
            f"{self.radius:.6g}, as preparing the image ({self.geometry.describe()}; linear) multiplies no norm by "
            f"more than {self.norm:.6g}."
        )

    def rows(self) -> dict[str, str]:
        """For tables: heading to value."""
        units = self.units()
        return {
            f"native radius (L2, {self.size})": f"{self.radius:.4f} = {self.radius * GREY_LEVELS:.1f} grey levels",
            "native per-value RMS (grey levels)": f"{units.rms_grey_levels:.3g}",
            "preparation": f"{self.geometry.describe()}; norm at most {self.norm:.6g}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"radius": self.radius, "norm": self.norm, "geometry": self.geometry.to_dict()}

    @classmethod
    def from_fields(cls, fields: Fields, what: str) -> NativeRadius | None:
        """The native radius of a certificate's JSON, or None where it has none; InputError names a wrong field."""
        if not fields.has(NATIVE_FIELD):
            return None
        own = Fields(fields.mapping(NATIVE_FIELD), f"native radius of the {what}")
        return cls(own.number("radius"), own.number("norm"), Geometry.from_dict(own.mapping("geometry")))

    def check(self, radius: float, shape: tuple[int, ...], space: str) -> None:
        """Raise InputError unless this belongs to a certificate of that radius, input shape and space."""
        if space == NATIVE_FIELD:
            raise InputError("a certificate whose space is native states its native radius already")
        if self.geometry.input_shape != tuple(shape):
            raise InputError(f"the native geometry makes images of {self.geometry.input_shape}, not of {tuple(shape)}")
        if self.norm <= 0 or self.radius != native_radius(radius, self.norm):
            raise InputError(f"native radius {self.radius!r} is not {radius!r} divided by the norm {self.norm!r}")


def native_fields(native: NativeRadius | None) -> dict[str, Any]:
    """``native`` in a certificate's JSON; stands there only where the geometry is known."""
    return {} if native is None else {NATIVE_FIELD: native.to_dict()}


def radius_at_native(certificate: ClassCertificate | MaskCertificate) -> float | None:
    """L2 radius at native resolution, or None where the native geometry is not known."""
    if certificate.space == NATIVE_FIELD:
        return certificate.radius
    return None if certificate.native is None else certificate.native.radius
