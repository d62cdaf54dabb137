"""DICOM through pydicom: rescale, window, padding, MONOCHROME1, colour, multi-frame; one decoder a transfer syntax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.geometry import DICOM_FRAMES, Geometry
from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, apply_window, check_size, replace_nan, to_unit
from certimed.data.records import Reading, Step, step
from certimed.errors import MissingExtraError, require

_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
# pydicom would take whichever plug-in is installed, and lossy JPEG decodes differently in each.
_JPEG = ("pylibjpeg", ("pylibjpeg", "pylibjpeg-libjpeg"))
_JPEG_2000 = ("pylibjpeg", ("pylibjpeg", "pylibjpeg-openjpeg"))
_DECODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(_NATIVE, ("", ())),
    "1.2.840.10008.1.2.5": ("pydicom", ()),
    **{f"1.2.840.10008.1.2.4.{number}": _JPEG for number in (50, 51, 57, 70, 80, 81)},
    **{f"1.2.840.10008.1.2.4.{number}": _JPEG_2000 for number in (90, 91, 201, 202, 203)},
}


def read_dicom(path: Path, options: ReadOptions) -> Reading:
    """Read one frame of a DICOM file.

    Grey: stored values -> modality rescale (slope and intercept, or its table) -> the first that exists of
    ``options.window``, the header's first window (its function LINEAR, LINEAR_EXACT or SIGMOID, DICOM PS3.3
    C.11.2.1), the header's VOI table, the full range of the stored bits -> [0, 1], inverted for MONOCHROME1. Padding
    (Pixel Padding Value and Range Limit, PS3.3 C.7.5.1.1.2) becomes 0, the background, whatever the window.
    Colour (RGB, YBR, palette) is divided by the largest storable value and never windowed. A table without data
    counts as none. Every compressed transfer syntax has one decoder, whatever else is installed.

    Raises:
        UnreadableError: no pixel data, too large, no such frame, floating-point pixels without a window, a
            photometric interpretation or transfer syntax that is not supported.
        MissingExtraError: pydicom, or the decoder of the file's transfer syntax, is not installed.
    """
    pydicom = require("pydicom", "medical")
    header = pydicom.dcmread(path, force=True)
    frames = _checked(header, options)
    stored, versions = _stored(header, options.frame)
    raw: NDArray[np.float32] | None = None
    if header.PhotometricInterpretation in _GREY:
        pixels, steps, raw = _grey(header, stored, options)
    else:
        pixels, steps = _colour(header, stored)
    if frames > 1:
        steps.append(step("frame", index=options.frame, count=frames))
    versions = {"pydicom": pydicom.__version__, **versions}
    geometry = None
    if _find(header, options.frame, "PlanePositionSequence", "ImagePositionPatient") is not None:
        try:
            place = plane_affine(header, options.frame)[:, [1, 0, 2, 3]]  # a picture's first axis goes down
            geometry = Geometry.of(place, pixels.shape[1:], DICOM_FRAMES, (path.as_posix(),))
        except UnreadableError:  # a picture is one whether or not its place in the patient is known
            geometry = None
    hounsfield = str(header.get("RescaleType") or header.get("Modality") or "").upper() in ("HU", "CT")
    spacing, unit = _spacing(header, options.frame), "HU" if hounsfield else ""
    return Reading(np.ascontiguousarray(pixels), tuple(steps), versions, spacing, geometry, raw, unit)


def frame_count(path: Path) -> int:
    """How many frames a DICOM file holds."""
    header = require("pydicom", "medical").dcmread(path, stop_before_pixels=True, force=True)
    return int(header.get("NumberOfFrames") or 1)


@dataclass(frozen=True, eq=False)
class GreyValues:
    """A grey plane in the modality's units.

    Attributes:
        values: ``(H, W)``.
        padding: boolean ``(H, W)``: where there is nothing.
        rescale: slope and intercept that were applied.
        decoders: versions of the libraries that read it, by name.
    """

    values: NDArray[Any]
    padding: NDArray[np.bool_]
    rescale: tuple[float, float]
    decoders: dict[str, str]


def grey_values(header: Any, options: ReadOptions) -> GreyValues:
    """A grey single-frame image before any window; raises as :func:`read_dicom`."""
    _checked(header, options)
    if header.PhotometricInterpretation not in _GREY:
        raise UnreadableError("it is a colour image, and volumes of grey values are read")
    stored, versions = _stored(header, 0)
    values, _, steps = _modality(header, stored, 0)
    found = next((one.values for one in steps if one.kind == "rescaled"), {"slope": 1.0, "intercept": 0.0})
    versions = {"pydicom": require("pydicom", "medical").__version__, **versions}
    return GreyValues(values, _padding(header, stored), (found["slope"], found["intercept"]), dict(versions))


def has_pixels(header: Any) -> bool:
    """Whether a header, read without pixels, is of an image."""
    return header.get("Rows") is not None and header.get("PhotometricInterpretation") is not None


def plane_affine(header: Any, frame: int) -> NDArray[np.float64]:
    """``(4, 4)``: column, row and slice of a frame to millimetres in RAS+; the step between slices as the header says.

    DICOM PS3.3 C.7.6.2.1.1, whose patient axes point to the left and posterior where RAS+ points to the right and
    anterior.

    Raises:
        UnreadableError: no position or pixel spacing, or directions that are not perpendicular unit vectors.
    """
    lines = _find(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    position = _find(header, frame, "PlanePositionSequence", "ImagePositionPatient")
    steps = _spacing(header, frame)
    if lines is None or position is None or steps is None:
        raise UnreadableError("its header does not say its place in the patient and its pixel spacing")
    along = np.array(lines, np.float64).reshape(2, 3)
    if not np.allclose(along @ along.T, np.eye(2), atol=1e-3):
        raise UnreadableError("the directions of its rows and columns are not perpendicular unit vectors")
    between = [
        _number(_find(header, frame, "PixelMeasuresSequence", name), None)
        for name in ("SpacingBetweenSlices", "SliceThickness")
    ]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along[0] * steps[1], along[1] * steps[0]
    affine[:3, 2] = np.cross(*along) * next((one for one in between if one and one > 0), 1.0)
    affine[:3, 3] = np.array(position, np.float64)
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _checked(header: Any, options: ReadOptions) -> int:
    """The number of frames, once the header says an image that can be read."""
    if not any(element in header for element in _PIXEL_ELEMENTS):
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        named = f" ({kind.name!s:.80})" if kind else ""
        raise UnreadableError(f"it is a DICOM file without pixel data{named}, or cut off before it")
    for element in ("Rows", "Columns", "PhotometricInterpretation"):
        if header.get(element) is None:
            raise UnreadableError(f"its header has no {element}")
    photometric = str(header.PhotometricInterpretation)
    if photometric not in _GREY + _COLOURS:
        raise UnreadableError(
            f"its photometric interpretation {photometric} is not supported; convert it to RGB or MONOCHROME2"
        )
    check_size(int(header.Rows), int(header.Columns), options)
    frames = int(header.get("NumberOfFrames") or 1)
    if options.frame >= frames:
        raise UnreadableError(f"frame {options.frame} was asked for and it has {frames} (counted from 0)")
    return frames


def _stored(header: Any, frame: int) -> tuple[NDArray[Any], Mapping[str, str]]:
    """The stored values of a frame, and what decoded them."""
    if header.file_meta.get("TransferSyntaxUID") is None:
        implicit, little = header.original_encoding
        header.file_meta.TransferSyntaxUID = _NATIVE[0 if implicit else 1 if little else 3]
    plugin, versions = _decoder(header.file_meta.TransferSyntaxUID)
    try:
        # Of grey values all bits are kept for now: padding may lie outside the stored ones.
        colour = str(header.PhotometricInterpretation) not in _GREY
        pixels = require("pydicom", "medical").pixels
        stored = pixels.pixel_array(header, index=frame, decoding_plugin=plugin, correct_unused_bits=colour)
    except RuntimeError as error:  # pydicom speaks of all plug-ins, and only this one was asked
        reason = " ".join(str(error).rpartition(f"{plugin}: ")[2].split())
        raise UnreadableError(f"{' '.join(versions) or 'pydicom'} cannot decode its pixels ({reason})") from error
    return stored, versions


def _spacing(header: Any, frame: int) -> tuple[float, float] | None:
    """Pixel Spacing, down and across, in mm: in the patient, not at the detector of a projection."""
    found = _find(header, frame, "PixelMeasuresSequence", "PixelSpacing")
    try:
        down, across = (float(step) for step in found)
    except (TypeError, ValueError):
        return None
    return (down, across) if 0 < down < np.inf and 0 < across < np.inf else None


def _decoder(syntax: Any) -> tuple[str, Mapping[str, str]]:
    """The plug-in of pydicom that decodes this transfer syntax, and the versions of its libraries."""
    if syntax not in _DECODERS:
        raise UnreadableError(
            f"its transfer syntax {syntax.name} is not supported; decompress it to Explicit VR Little Endian"
        )
    plugin, packages = _DECODERS[syntax]
    try:
        return plugin, {package: version(package) for package in packages}
    except PackageNotFoundError:
        raise MissingExtraError(
            f"pixels of the transfer syntax {syntax.name} are decoded by {' and '.join(packages)}, not all of which "
            f"are installed; install them with: pip install {' '.join(packages)}"
        ) from None


def _colour(header: Any, stored: NDArray[Any]) -> tuple[NDArray[np.float32], list[Step]]:
    photometric = str(header.PhotometricInterpretation)
    steps = []
    if photometric == "PALETTE COLOR":
        stored = require("pydicom.pixels", "medical").apply_color_lut(stored, header)
        top = int(np.iinfo(stored.dtype).max)
        steps = [step("palette")]
    else:
        top = 2 ** int(header.get("BitsStored", 8)) - 1
    if stored.ndim != 3 or stored.shape[-1] < 3:
        raise UnreadableError(f"its {photometric} pixels have shape {stored.shape}, which is no colour image")
    steps.append(step("divided", what=f"{photometric} colour", top=top))
    if stored.shape[-1] > 3:
        steps.append(step("alpha_dropped", kind="colours"))
    return to_unit(stored[..., :3].transpose(2, 0, 1), 0, top), steps


def _grey(
    header: Any, stored: NDArray[Any], options: ReadOptions
) -> tuple[NDArray[np.float32], list[Step], NDArray[np.float32]]:
    if stored.ndim != 2:
        raise UnreadableError(f"its grey pixels have shape {stored.shape}")
    padding = _padding(header, stored)
    values, limits, steps = _modality(header, stored, options.frame)
    if padding.all():
        raise UnreadableError("every pixel of it is padding")
    kept, notes = replace_nan(values[~padding], options)
    steps += notes
    values = np.full(values.shape, kept[0])  # what stands in the padding is never seen
    values[~padding] = kept
    if options.window is not None:
        pixels, placed = apply_window(values, options.window)
    else:
        pixels, placed = _header_window(header, values, limits, options.frame)
    steps.append(placed)
    if header.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.float32(1) - pixels
        steps.append(step("inverted", why="MONOCHROME1"))
    if padding.any():
        pixels[padding] = 0
        steps.append(step("padding", pixels=int(padding.sum())))
    return pixels[None], steps, np.where(padding, np.nan, values).astype(np.float32)[None]


def _padding(header: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the stored values are padding, by the header's padding value, or the range from it to its limit."""
    kind = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    first = _number(header.get(f"{kind}PixelPaddingValue"), None)
    if first is None:
        return np.zeros(stored.shape, bool)
    last = _number(header.get(f"{kind}PixelPaddingRangeLimit"), first)
    found: NDArray[np.bool_]
    if kind:
        found = np.isnan(stored) if np.isnan(first) else (stored >= min(first, last)) & (stored <= max(first, last))
        return found
    # Writers mix up the signed and the unsigned form of the value; the bits are the same.
    bits = stored.dtype.itemsize * 8
    bottom = -(2 ** (bits - 1)) if stored.dtype.kind == "i" else 0
    first, last = ((int(value) - bottom) % 2**bits + bottom for value in (first, last))
    low, high = min(first, last), max(first, last)
    found = np.zeros(stored.shape, bool)
    for values in (stored, _stored_bits(header, stored)):  # the value may lie outside the stored bits
        found |= (values >= low) & (values <= high)
    return found


def _stored_bits(header: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Old files keep overlays in the bits above the stored ones; shifting drops them and keeps the sign."""
    bits = int(header.BitsStored)
    if not 1 <= bits <= stored.dtype.itemsize * 8:
        raise UnreadableError(f"its header says {bits} stored bits in {stored.dtype} values")
    spare = stored.dtype.itemsize * 8 - bits
    shifted: NDArray[Any] = np.right_shift(np.left_shift(stored, spare), spare)
    return shifted


def _modality(
    header: Any, stored: NDArray[Any], frame: int
) -> tuple[NDArray[Any], tuple[float, float] | None, list[Step]]:
    """Stored values in the modality's units, the range the stored bits span in them, and steps."""
    limits: tuple[float, float] | None = None
    if stored.dtype.kind in "iu":
        stored = _stored_bits(header, stored)
        bits = int(header.BitsStored)
        limits = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0.0, 2.0**bits - 1)
    if table := _table(header, "ModalityLUTSequence"):
        looked_up = require("pydicom.pixels", "medical").apply_modality_lut(stored, header)
        return looked_up, (0.0, 2.0 ** int(table.LUTDescriptor[2]) - 1), [step("modality_table")]
    slope = _number(_find(header, frame, "PixelValueTransformationSequence", "RescaleSlope"), 1.0)
    intercept = _number(_find(header, frame, "PixelValueTransformationSequence", "RescaleIntercept"), 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnreadableError(f"its header has rescale slope {slope:g} and intercept {intercept:g}")
    if (slope, intercept) == (1.0, 0.0):
        return stored, limits, []
    if limits is not None:
        ends = sorted((slope * limits[0] + intercept, slope * limits[1] + intercept))
        limits = (ends[0], ends[1])
    return stored.astype(np.float64) * slope + intercept, limits, [step("rescaled", slope=slope, intercept=intercept)]


def _header_window(
    header: Any, values: NDArray[Any], limits: tuple[float, float] | None, frame: int
) -> tuple[NDArray[np.float32], Step]:
    centre = _number(_find(header, frame, "FrameVOILUTSequence", "WindowCenter"), None)
    width = _number(_find(header, frame, "FrameVOILUTSequence", "WindowWidth"), None)
    if centre is not None and width is not None and width > 0 and np.isfinite([centre, width]).all():
        function = str(_find(header, frame, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR").upper()
        pixels = window_function(values, centre, width, function)
        return pixels, step("header_window", centre=centre, width=width, function=function)
    if (table := _table(header, "VOILUTSequence")) and (values == np.rint(values)).all():
        top = 2.0 ** int(table.LUTDescriptor[2]) - 1
        looked_up = require("pydicom.pixels", "medical").apply_voi(np.rint(values).astype(np.int64), header)
        return to_unit(looked_up, 0, top), step("voi_table")
    if limits is None:
        raise UnreadableError(
            "it holds floating-point pixels without a window in its header; give a window (centre, width) to place them"
        )
    low, high = limits
    return to_unit(values, low, high), step("full_range", low=low, high=high)


def _table(header: Any, keyword: str) -> Any:
    """The first item of a sequence of tables; None where it is missing or has no data, as some writers leave it."""
    for item in (header.get(keyword) or [])[:1]:
        if item.get("LUTDescriptor") and item.get("LUTData"):
            return item
    return None


def window_function(values: NDArray[Any], centre: float, width: float, function: str) -> NDArray[np.float32]:
    """The VOI functions of DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, with output range [0, 1].

    Raises:
        UnreadableError: a function DICOM does not define.
    """
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values.astype(np.float64) - centre) / width, -700.0, 700.0)
        return np.clip(1.0 / (1.0 + np.exp(exponent)), 0.0, 1.0).astype(np.float32)
    if function == "LINEAR_EXACT" or (function == "LINEAR" and width < 1):
        return to_unit(values, centre - width / 2, centre + width / 2)
    if function != "LINEAR":
        raise UnreadableError(f"its header asks for the unknown window function {function!r}")
    if width == 1:
        return (values > centre - 0.5).astype(np.float32)
    return to_unit(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _find(header: Any, frame: int, macro: str, keyword: str) -> Any:
    """An attribute of the header itself, or of the frame's or the shared functional groups (enhanced DICOM)."""
    if header.get(keyword) is not None:
        return header.get(keyword)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        for part in groups.get(macro) or []:
            if part.get(keyword) is not None:
                return part.get(keyword)
    return None


def _number(value: Any, default: float | None) -> Any:
    """The first of possibly several numbers."""
    if value is None or value == "":
        return default
    if not isinstance(value, str) and hasattr(value, "__len__"):
        return float(value[0]) if len(value) else default
    return float(value)
