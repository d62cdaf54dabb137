"""PNG, JPEG, TIFF, BMP, GIF and WebP through Pillow."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, apply_window, check_finite, check_size

# A closed list: Pillow's other plug-ins include some that start programs (EPS) or that read other files.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")

_COLOUR_NOTES = {
    "P": "palette colours looked up",
    "PA": "palette colours looked up, alpha dropped",
    "RGB": "",
    "RGBA": "alpha dropped (colours kept as stored, not blended)",
    "RGBX": "",
    "RGBa": "alpha divided out and dropped",
    "CMYK": "CMYK converted to RGB by Pillow's plain formula, no colour profile",
    "YCbCr": "YCbCr converted to RGB",
}
_WHITE_IS_ZERO = 0
_QUARTER_TURNS = (5, 6, 7, 8)
_TAG_BITS, _TAG_PHOTOMETRIC, _TAG_ORIENTATION = 258, 262, 274


def open_frame(path: Path, options: ReadOptions, *, still_is_every_frame: bool = False) -> tuple[Image.Image, str]:
    """Decode one frame, upright by its EXIF orientation.

    Args:
        path: the file.
        options: the frame and ``max_pixels``.
        still_is_every_frame: a file of one frame is that frame whatever ``options.frame`` says (for masks).

    Returns:
        The decoded image in the mode Pillow gives it, and a note on the frame and orientation ("" if plain).

    Raises:
        UnreadableError: too large, or no such frame. Pillow's own errors on broken data pass through.
    """
    with Image.open(path, formats=FORMATS) as check:
        check_size(check.height, check.width, options)
        if check.format == "PNG":
            check.verify()  # decoding alone skips the checksums of the pixel data
    notes = []
    with Image.open(path, formats=FORMATS) as image:
        frames = int(getattr(image, "n_frames", 1))
        frame = 0 if frames == 1 and still_is_every_frame else options.frame
        if frame >= frames:
            raise UnreadableError(f"frame {frame} was asked for and it has {frames} (counted from 0)")
        if frames > 1:
            image.seek(frame)
            check_size(image.height, image.width, options)
            notes.append(f"frame {frame} of {frames}")
        stored = {"certimed_raw": _raw_modes(image), "certimed_tiff": _tiff_tags(image)}
        orientation = _orientation(image)
        if image.format == "TIFF" and orientation in _QUARTER_TURNS and _codec(image) == "raw":
            # Pillow (13.0 at least) swaps the sides before it fills in the rows: the pixels come out shuffled.
            raise UnreadableError(
                "it is an uncompressed TIFF turned by its orientation tag, which Pillow decodes wrongly; save it "
                "upright or compressed"
            )
        image.load()
        upright = image
        if orientation is None:
            notes.append("unreadable EXIF block ignored")
        elif orientation != 1:
            # Pillow turns some formats while decoding; the tag is then gone and this is a plain copy.
            upright = ImageOps.exif_transpose(image)
            notes.append("turned upright by its EXIF orientation")
        upright.info.update(stored)
    return upright, "; ".join(notes)


def read_pillow(path: Path, options: ReadOptions) -> tuple[NDArray[np.float32], str]:
    """Read one image file.

    8-bit values are divided by 255, 16-bit grey by 65535 (12-bit TIFF by 4095), 1-bit is 0 and 1, palettes are looked
    up, CMYK and YCbCr become RGB, alpha is dropped without blending. Colour of 16 bits a channel reaches us in 8 bits
    (Pillow keeps the high byte), and the sentence says so. 32-bit integers need a window, floats a window or [0, 1].

    Returns:
        float32 ``(C, H, W)`` in [0, 1] with C 1 or 3, and the sentence on intensities.

    Raises:
        UnreadableError: the content has no defined place in [0, 1], is too large, or has no such frame.
    """
    image, frame_note = open_frame(path, options)
    mode = image.mode
    if mode in {"1", "L", "LA", "La"}:
        pixels, sentence = _grey8(image)
    elif mode in _COLOUR_NOTES:
        pixels, sentence = _colour(image)
    elif mode.startswith("I") or mode == "F":
        pixels, sentence = _deep_grey(image, options)
    else:
        raise UnreadableError(f"its pixel format {mode!r} is not supported; save it as grey or RGB")
    return np.ascontiguousarray(pixels), "; ".join(part for part in (sentence, frame_note) if part)


def _grey8(image: Image.Image) -> tuple[NDArray[np.float32], str]:
    if image.mode == "1":
        return np.asarray(image, dtype=np.float32)[None], "1-bit values 0 and 1"
    notes = ["8-bit grey divided by 255"]
    if image.mode != "L":
        notes.append("alpha dropped (grey kept as stored, not blended)")
        if image.mode == "La":
            image = image.convert("LA")
        image = image.getchannel("L")
    notes += _reduced(image)
    return np.asarray(image, dtype=np.float32)[None] / np.float32(255), "; ".join(notes)


def _colour(image: Image.Image) -> tuple[NDArray[np.float32], str]:
    notes = ["8-bit colour divided by 255", _COLOUR_NOTES[image.mode]]
    if "transparency" in image.info and image.mode in {"P", "RGB"}:
        notes.append("transparency dropped")
    notes += _reduced(image)
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    array = np.asarray(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.float32)
    return array.transpose(2, 0, 1) / np.float32(255), "; ".join(note for note in notes if note)


def _deep_grey(image: Image.Image, options: ReadOptions) -> tuple[NDArray[np.float32], str]:
    """Grey of more than 8 bits: modes I;16*, I and F."""
    values = np.asarray(image)[None]
    if options.window is not None:
        return apply_window(values, options.window)
    if image.mode.startswith("I;16") or (image.mode == "I" and _raw_is_unsigned_16(image)):
        tags = image.info["certimed_tiff"]
        bits = tags.get(_TAG_BITS, 16)
        top = 2**bits - 1
        pixels = values.astype(np.float32) / np.float32(top)
        sentence = f"{bits}-bit grey divided by {top}"
        if tags.get(_TAG_PHOTOMETRIC) == _WHITE_IS_ZERO:
            return np.float32(1) - pixels, sentence + "; inverted because zero is white"
        return pixels, sentence
    check_finite(values)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        return values.astype(np.float32), "floating-point values in [0, 1] taken as they are"
    kind = "floating-point values" if image.mode == "F" else "integers of more than 16 bits or with a sign"
    raise UnreadableError(
        f"it holds {kind} from {low:g} to {high:g} without a stated range; give window=(centre, width) to place them"
    )


def _raw_modes(image: Image.Image) -> str:
    """How the file stores its samples, in Pillow's words; gone after decoding."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", [])[:1])


def _codec(image: Image.Image) -> str:
    return " ".join(str(tile[0]) for tile in getattr(image, "tile", [])[:1])


def _reduced(image: Image.Image) -> list[str]:
    return ["reduced from 16 to 8 bits a channel on reading"] if ";16" in image.info.get("certimed_raw", "") else []


def _raw_is_unsigned_16(image: Image.Image) -> bool:
    """Older Pillow opens 16-bit grey PNG in mode I."""
    return "I;16" in image.info["certimed_raw"] and "I;16S" not in image.info["certimed_raw"] and image.mode == "I"


def _tiff_tags(image: Image.Image) -> dict[int, int]:
    tags: Any = getattr(image, "tag_v2", None)
    found: dict[int, int] = {}
    for tag in (_TAG_BITS, _TAG_PHOTOMETRIC) if tags is not None else ():
        value = tags.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int):
            found[tag] = value
    return found


def _orientation(image: Image.Image) -> int | None:
    """EXIF orientation from 1 to 8 (1 is upright, also when absent or out of range); None when EXIF is broken.

    A broken EXIF block says nothing about the pixels; viewers show such images as stored, and so do we.
    """
    try:
        value = image.getexif().get(_TAG_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
