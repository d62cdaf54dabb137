"""An image before its intensities were placed in [0, 1], for workflows in which the placing itself may vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.records import Step
from certimed.errors import ImageError

if TYPE_CHECKING:
    from certimed.data.images import MedicalImage

GREY = "grey"
"""Unit of stored values that are grey levels."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Values in the image's own units, and the ramp that makes pixels of them.

    ``pixels = clip((values - low) / (high - low), 0, 1)``, then ``1 - pixels`` where it is inverted, then 0 at padding.

    Attributes:
        values: float32 ``(C, H, W)``; NaN where the file has padding.
        low, high: the values that become 0 and 1.
        unit: ``"HU"``, ``"grey"`` (levels), or ``""`` where the file does not say.
        inverted: whether bright means low.
    """

    values: NDArray[np.float32]
    low: float
    high: float
    unit: str
    inverted: bool = False

    @property
    def centre(self) -> float:
        """Middle of the ramp."""
        return (self.low + self.high) / 2

    @property
    def width(self) -> float:
        """Length of the ramp; DICOM's LINEAR function makes it one less than the width in the header."""
        return self.high - self.low


def raw_image(image: MedicalImage) -> Raw:
    """The image before windowing, as its reader kept it, or undone from its pixels where no value was clipped.

    Raises:
        ImageError: intensities that no linear ramp made, or that were clipped and not kept.
    """
    inverted = any(step.kind == "inverted" for step in image.steps)
    ends = _ramp(image.steps)
    if ends is None:
        raise ImageError(
            f"{image.id} has no linear window that could be set otherwise ({image.intensity}); give one, e.g. "
            "--window 40,400"
        )
    low, high = ends
    if image.raw is not None:
        return Raw(image.raw, low, high, image.raw_unit, inverted)
    if any(step.kind in ("window", "header_window", "percentiles") for step in image.steps):
        raise ImageError(
            f"{image.id} was clipped to its window as it was read ({image.intensity}); settings are for DICOM, NIfTI "
            "and images without a window"
        )
    pixels = 1 - image.pixels if inverted else image.pixels
    return Raw((pixels * np.float32(high - low) + np.float32(low)), low, high, GREY if high > 1 else "", inverted)


def _ramp(steps: Sequence[Step]) -> tuple[float, float] | None:
    """The values that become 0 and 1; None where the placing is no linear ramp."""
    for step in steps:
        known: Any = step.values
        if step.kind == "divided":
            return 0.0, float(known["top"])
        if step.kind in ("unit", "bits"):
            return 0.0, 1.0
        if step.kind in ("full_range", "percentiles"):
            return float(known["low"]), float(known["high"])
        if step.kind == "window" or (step.kind == "header_window" and known["function"] == "LINEAR_EXACT"):
            return known["centre"] - known["width"] / 2, known["centre"] + known["width"] / 2
        if step.kind == "header_window" and known["function"] == "LINEAR" and known["width"] > 1:
            middle, half = known["centre"] - 0.5, (known["width"] - 1) / 2
            return middle - half, middle + half
    return None
