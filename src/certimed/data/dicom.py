"""DICOM through pydicom: rescale, window, MONOCHROME1, colour, multi-frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, apply_window, check_finite, check_size, to_unit
from certimed.errors import require

_PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_dicom(path: Path, options: ReadOptions) -> tuple[NDArray[np.float32], str]:
    """Read one frame of a DICOM file.

    Grey: stored values -> modality rescale (slope and intercept, or its table) -> the first that exists of
    ``options.window``, the header's first window (its function LINEAR, LINEAR_EXACT or SIGMOID, DICOM PS3.3
    C.11.2.1), the header's VOI table, the full range of the stored bits -> [0, 1], inverted for MONOCHROME1.
    Colour (RGB, YBR, palette) is divided by the largest storable value and never windowed.

    Returns:
        float32 ``(C, H, W)`` in [0, 1] with C 1 or 3, and the sentence on intensities.

    Raises:
        UnreadableError: no pixel data, too large, no such frame, floating-point pixels without a window.
        MissingExtraError: pydicom is not installed.
    """
    pydicom = require("pydicom", "medical")
    header = pydicom.dcmread(path, force=True)
    if not any(element in header for element in _PIXEL_ELEMENTS):
        raise UnreadableError("it is a DICOM file without pixel data, or cut off before it")
    for element in ("Rows", "Columns", "PhotometricInterpretation"):
        if header.get(element) is None:
            raise UnreadableError(f"its header has no {element}")
    check_size(int(header.Rows), int(header.Columns), options)
    frames = int(header.get("NumberOfFrames") or 1)
    if options.frame >= frames:
        raise UnreadableError(f"frame {options.frame} was asked for and it has {frames} (counted from 0)")
    if header.file_meta.get("TransferSyntaxUID") is None:
        header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored = pydicom.pixels.pixel_array(header, index=options.frame)
    if str(header.PhotometricInterpretation).startswith("MONOCHROME"):
        pixels, notes = _grey(header, stored, options)
    else:
        pixels, notes = _colour(header, stored)
    if frames > 1:
        notes.append(f"frame {options.frame} of {frames}")
    return np.ascontiguousarray(pixels), "; ".join(notes)


def _colour(header: Any, stored: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    photometric = str(header.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        stored = require("pydicom.pixels", "medical").apply_color_lut(stored, header)
        top = int(np.iinfo(stored.dtype).max)
        notes = [f"palette colours looked up and divided by {top}"]
    else:
        top = 2 ** int(header.get("BitsStored", 8)) - 1
        notes = [f"{photometric} colour divided by {top}"]
    if stored.ndim != 3 or stored.shape[-1] < 3:
        raise UnreadableError(f"its {photometric} pixels have shape {stored.shape}, which is no colour image")
    if stored.shape[-1] > 3:
        notes.append("alpha dropped (colours kept as stored, not blended)")
    return to_unit(stored[..., :3].transpose(2, 0, 1), 0, top), notes


def _grey(header: Any, stored: NDArray[Any], options: ReadOptions) -> tuple[NDArray[np.float32], list[str]]:
    if stored.ndim != 2:
        raise UnreadableError(f"its grey pixels have shape {stored.shape}")
    values, limits, notes = _modality(header, stored, options.frame)
    check_finite(values)
    if options.window is not None:
        pixels, note = apply_window(values, options.window)
    else:
        pixels, note = _header_window(header, values, limits, options.frame)
    notes.append(note)
    if header.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.float32(1) - pixels
        notes.append("MONOCHROME1 inverted")
    return pixels[None], notes


def _modality(
    header: Any, stored: NDArray[Any], frame: int
) -> tuple[NDArray[Any], tuple[float, float] | None, list[str]]:
    """Stored values in the modality's units, the range the stored bits span in them, and notes."""
    limits: tuple[float, float] | None = None
    if stored.dtype.kind in "iu":
        bits = int(header.BitsStored)
        if not 1 <= bits <= stored.dtype.itemsize * 8:
            raise UnreadableError(f"its header says {bits} stored bits in {stored.dtype} values")
        # Old files keep overlays in the bits above the stored ones; shifting drops them and keeps the sign.
        spare = stored.dtype.itemsize * 8 - bits
        stored = np.right_shift(np.left_shift(stored, spare), spare)
        limits = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0.0, 2.0**bits - 1)
    if header.get("ModalityLUTSequence"):
        looked_up = require("pydicom.pixels", "medical").apply_modality_lut(stored, header)
        top = 2.0 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        return looked_up, (0.0, top), ["modality table applied"]
    slope = _number(_find(header, frame, "PixelValueTransformationSequence", "RescaleSlope"), 1.0)
    intercept = _number(_find(header, frame, "PixelValueTransformationSequence", "RescaleIntercept"), 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise UnreadableError(f"its header has rescale slope {slope:g} and intercept {intercept:g}")
    if (slope, intercept) == (1.0, 0.0):
        return stored, limits, []
    if limits is not None:
        ends = sorted((slope * limits[0] + intercept, slope * limits[1] + intercept))
        limits = (ends[0], ends[1])
    return stored.astype(np.float64) * slope + intercept, limits, [f"rescaled by {slope:g} and {intercept:g}"]


def _header_window(
    header: Any, values: NDArray[Any], limits: tuple[float, float] | None, frame: int
) -> tuple[NDArray[np.float32], str]:
    centre = _number(_find(header, frame, "FrameVOILUTSequence", "WindowCenter"), None)
    width = _number(_find(header, frame, "FrameVOILUTSequence", "WindowWidth"), None)
    if centre is not None and width is not None and width > 0 and np.isfinite([centre, width]).all():
        function = str(_find(header, frame, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR").upper()
        pixels = window_function(values, centre, width, function)
        return pixels, f"window centre {centre:g}, width {width:g} from the header ({function}), clipped"
    if header.get("VOILUTSequence") and (values == np.rint(values)).all():
        top = 2.0 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
        looked_up = require("pydicom.pixels", "medical").apply_voi(np.rint(values).astype(np.int64), header)
        return to_unit(looked_up, 0, top), "VOI table of the header applied"
    if limits is None:
        raise UnreadableError(
            "it holds floating-point pixels without a window in its header; give window=(centre, width) to place them"
        )
    low, high = limits
    return to_unit(values, low, high), f"no window in the header: full range of the stored bits, {low:g} to {high:g}"


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
