"""What every reader returns: one image in [0, 1] at its native resolution, and how its intensities got there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.geometry import Geometry, orientation_codes
from certimed.data.records import Intensity, Step
from certimed.errors import ImageError, InputError

AXES = ("sagittal", "coronal", "axial")
"""Names of the anatomical axes 0, 1, 2 of a volume in RAS orientation."""

NAN_POLICIES = ("refuse", "zero", "min")
"""What can become of values that are no number."""


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """One image, ready for a model's preprocessing.

    Attributes:
        id: name of the image inside its data set: a relative path with forward slashes, stable between machines.
            Noise is keyed by it.
        pixels: float32 ``(C, H, W)``, or ``(C, i, j, k)`` of a volume, in [0, 1] at native resolution; C is 1 (grey)
            or 3 (red, green, blue) from every reader of this package.
        label: index of the class, or None.
        steps: how stored values became [0, 1], as data.
        source: where it came from: a path, or ``"file.npz[row]"``.
        mask: int64 ``space`` of class ids, or None.
        group: patient, sequence or other unit that must not be split between training and test, or None.
        mask_reading: how stored mask values became class ids, in words; None without a mask.
        decoders: versions of the libraries that turned the file into numbers, by name.
        spacing: millimetres from pixel to pixel along each space axis, where the file says; else None.
        geometry: where the pixels lie in the patient, where the file says; else None.
        raw, raw_unit: float32 ``(C, *space)`` before a window was applied, NaN at padding, where the reader kept it;
            see :func:`certimed.data.raw_image`.

    Raises:
        ImageError: pixels are not finite float32 ``(C, *space)`` in [0, 1], or the mask has another size.
    """

    id: str
    pixels: NDArray[np.float32]
    label: int | None
    steps: tuple[Step, ...]
    source: str
    mask: NDArray[np.int64] | None = None
    group: str | None = None
    mask_reading: str | None = None
    decoders: Mapping[str, str] = field(default_factory=dict)
    spacing: tuple[float, ...] | None = None
    geometry: Geometry | None = None
    raw: NDArray[np.float32] | None = None
    raw_unit: str = ""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.float32 or pixels.ndim not in (3, 4) or 0 in pixels.shape:
            raise ImageError(
                f"{self.id} cannot be used: its pixels are {pixels.dtype} of shape {pixels.shape} where float32 "
                "(C, H, W), or (C, i, j, k) of a volume, with no empty side is needed"
            )
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails
            raise ImageError(
                f"{self.id} cannot be used: its intensities span {low:g} to {high:g} where finite values in [0, 1] "
                "are needed"
            )
        if self.mask is not None and self.mask.shape != pixels.shape[1:]:
            raise ImageError(
                f"{self.id} cannot be used: its mask is {_size(self.mask.shape)} (height x width) and the image "
                f"{_size(pixels.shape[1:])}; resample the mask to the image"
            )

    @property
    def intensity(self) -> str:
        """How stored values became [0, 1], in words; certificates record it."""
        return "; ".join(map(str, self.steps))

    @cached_property
    def intensity_record(self) -> Intensity:
        """How stored values became [0, 1] and what of it they use, as data."""
        return Intensity.of(self.pixels, self.steps)

    @cached_property
    def pixels_sha256(self) -> str:
        """Hex SHA-256 of shape and float32 values: equal for the same picture in two files or formats, whatever the id.

        A redraw whose digest differs from the recorded one has decoded the file differently.
        """
        digest = hashlib.sha256(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels, dtype="<f4").tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"MedicalImage({self.id!r}, {_size(self.pixels.shape)}, label={self.label}, {self.intensity!r})"


@dataclass(frozen=True)
class ReadOptions:
    """How files become pixels, where the file leaves a choice.

    Attributes:
        window: ``(centre, width)`` in the image's own units (Hounsfield units for CT): the values from
            centre - width/2 to centre + width/2 become 0 to 1, others are clipped. It replaces the window of a
            DICOM header and the percentiles of a NIfTI volume, and applies to grey Pillow images of more than 8
            bits; 8-bit and colour images never use it.
        frame: which frame of a multi-frame file (DICOM, TIFF, GIF, animated PNG or WebP, 4-D NIfTI), from 0.
        axis: anatomical axis a NIfTI slice is taken across: 0/"sagittal", 1/"coronal", 2/"axial".
        slice: index along that axis in RAS orientation (from left, posterior, inferior); None is the middle,
            ``size // 2``.
        percentiles: the two percentiles of the whole NIfTI volume that become 0 and 1.
        nan: what becomes of values that are no number, as registration and resampling write outside the field of view:
            "refuse" the image, or read them as 0 ("zero") or as the smallest number of the image or volume ("min"),
            both in the image's own units. Infinity is always refused.
        volume: whether volumes (NIfTI, DICOM series) are read whole and not by a slice, for networks of volumes.
        orientation: three letters, e.g. "RAS": where the axes of a volume are turned to point, without interpolation;
            None leaves them as stored.
        series: number or UID of the DICOM series that is read, where a folder holds several.
        level: which level of a whole-slide image or pyramid, from 0, the largest.
        max_pixels: an image of more pixels (height x width) is refused before it is decoded; a volume may hold
            ten times as many voxels. Pillow itself refuses more than 178 956 970.

    Raises:
        InputError: an option has a value that cannot be meant.
    """

    window: tuple[float, float] | None = None
    frame: int = 0
    axis: int | str = "axial"
    slice: int | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    nan: str = "refuse"
    level: int = 0
    volume: bool = False
    orientation: str | None = None
    series: str | None = None
    max_pixels: int = 100_000_000

    def __post_init__(self) -> None:
        if self.window is not None:
            window = _pair("window", self.window)
            if not (np.isfinite(window).all() and window[1] > 0):
                raise InputError(f"window={self.window} is not usable: give (centre, width) with a width above 0")
        if self.frame < 0:
            raise InputError(f"frame={self.frame} is not usable: frames count from 0")
        if self.axis not in AXES and self.axis not in (0, 1, 2):
            raise InputError(f"axis={self.axis!r} is not usable: give one of {', '.join(AXES)}, or 0, 1, 2")
        if self.slice is not None and self.slice < 0:
            raise InputError(f"slice={self.slice} is not usable: slices count from 0")
        low, high = _pair("percentiles", self.percentiles)
        if not 0 <= low < high <= 100:
            raise InputError(f"percentiles={self.percentiles} is not usable: give two rising numbers from 0 to 100")
        if self.nan not in NAN_POLICIES:
            raise InputError(f"nan={self.nan!r} is not usable: give one of {', '.join(NAN_POLICIES)}")
        if self.level < 0:
            raise InputError(f"level={self.level} is not usable: levels count from 0")
        if self.orientation is not None:
            object.__setattr__(self, "orientation", orientation_codes(self.orientation))
        if self.max_pixels < 1:
            raise InputError(f"max_pixels={self.max_pixels} is not usable: give at least 1")

    @property
    def axis_index(self) -> int:
        """The axis as 0, 1 or 2."""
        return AXES.index(self.axis) if isinstance(self.axis, str) else self.axis


def _pair(name: str, value: Sequence[Any]) -> tuple[float, float]:
    try:
        first, second = value
        return float(first), float(second)
    except (TypeError, ValueError):
        raise InputError(f"{name}={value!r} is not usable: give two numbers") from None


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


DEFAULT_READ = ReadOptions()
"""How files are read when nothing is said."""
