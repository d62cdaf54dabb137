"""PNG, JPEG, BMP, GIF and WebP through Pillow; PNG colour of 16 bits through imagecodecs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, check_size, to_float
from certimed.data.records import Reading, Step, step
from certimed.errors import require

# A closed list: Pillow's other plug-ins include some that start programs (EPS) or that read other files.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")

_CODECS = {"JPEG": "libjpeg_turbo", "PNG": "zlib", "WEBP": "webp"}
_DEEP_COLOUR = (2, 4, 6)  # PNG's colour types with more than one sample, of which Pillow keeps 8 of 16 bits
_TAG_ORIENTATION = 274


def open_frame(
    path: Path, options: ReadOptions, *, still_is_every_frame: bool = False
) -> tuple[Image.Image, tuple[Step, ...]]:
    """Decode one frame, upright by its EXIF orientation.

    Args:
        path: the file.
        options: the frame and ``max_pixels``.
        still_is_every_frame: a file of one frame is that frame whatever ``options.frame`` says (for masks).

    Returns:
        The decoded image in the mode Pillow gives it, and the steps of frame and orientation.

    Raises:
        UnreadableError: too large, or no such frame. Pillow's own errors on broken data pass through.
    """
    with Image.open(path, formats=FORMATS) as check:
        check_size(check.height, check.width, options)
        if check.format == "PNG":
            check.verify()  # decoding alone skips the checksums of the pixel data
    steps = []
    with Image.open(path, formats=FORMATS) as image:
        frames = int(getattr(image, "n_frames", 1))
        frame = 0 if frames == 1 and still_is_every_frame else options.frame
        if frame >= frames:
            raise UnreadableError(f"frame {frame} was asked for and it has {frames} (counted from 0)")
        if frames > 1:
            image.seek(frame)
            check_size(image.height, image.width, options)
            steps.append(step("frame", index=frame, count=frames))
        orientation, kind = _orientation(image), image.format
        deep = kind == "PNG" and _is_deep_colour(path)
        if deep and frames > 1:
            raise UnreadableError("it is an animated PNG of 16 bits a channel; save the frame wanted as a still")
        upright: Image.Image = image
        image.load()
        if orientation is None:
            steps.append(step("broken_exif"))
        elif orientation != 1:
            # Pillow turns some formats while decoding; the tag is then gone and this is a plain copy.
            upright = ImageOps.exif_transpose(image)
            steps.append(step("turned"))
        upright.info.update({"certimed_deep": orientation or 1 if deep else 0, "certimed_format": kind})
    return upright, tuple(steps)


def read_pillow(path: Path, options: ReadOptions) -> Reading:
    """Read one image file.

    8-bit values are divided by 255, 16-bit values, grey or colour, by 65535, 1-bit is 0 and 1, palettes are looked
    up, CMYK becomes RGB, alpha is dropped without blending.

    Raises:
        UnreadableError: the content has no defined place in [0, 1], is too large, or has no such frame.
        MissingExtraError: a PNG of 16 bits a channel in colour, without imagecodecs.
    """
    image, steps = open_frame(path, options)
    versions = {"Pillow": PIL.__version__, **_codec_version(str(image.info["certimed_format"]))}
    if image.info["certimed_deep"]:
        pixels, notes = _deep_colour(path, int(image.info["certimed_deep"]), options)
        versions = {"Pillow": PIL.__version__, "imagecodecs": require("imagecodecs", "medical").__version__}
    else:
        pixels, notes = _shallow(image, options)
    return Reading(np.ascontiguousarray(pixels), (*notes, *steps), versions)


def _shallow(image: Image.Image, options: ReadOptions) -> tuple[NDArray[np.float32], list[Step]]:
    mode = image.mode
    if mode in {"1", "L"} or mode.startswith("I"):
        values = np.asarray(image)
        if mode == "I":  # what older Pillow makes of 16-bit grey PNG, the only such form among these formats
            values = values.astype(np.uint16)
        return to_float(values[None], options, colour=False)
    if mode == "LA":
        pixels, notes = to_float(np.asarray(image.getchannel("L"))[None], options, colour=False)
        return pixels, [*notes, step("alpha_dropped", kind="grey")]
    notes = []
    if mode in {"P", "PA"}:
        notes.append(step("palette"))
    if mode in {"RGBA", "PA"}:
        notes.append(step("alpha_dropped", kind="colours"))
    elif mode == "CMYK":
        notes.append(step("converted", source="CMYK", how=" by Pillow's plain formula, no colour profile"))
    elif mode not in {"P", "RGB"}:
        raise UnreadableError(f"its pixel format {mode!r} is not supported; save it as grey or RGB")
    if "transparency" in image.info and mode in {"P", "RGB"}:
        notes.append(step("transparency_dropped"))
    colours = np.asarray(image if mode == "RGB" else image.convert("RGB"))
    pixels, placed = to_float(colours.transpose(2, 0, 1), options, colour=True)
    return pixels, [*placed, *notes]


def _deep_colour(path: Path, orientation: int, options: ReadOptions) -> tuple[NDArray[np.float32], list[Step]]:
    """A PNG of 16 bits a sample and two to four samples a pixel, upright."""
    from certimed.data.tiff import UPRIGHT

    values = require("imagecodecs", "medical").png_decode(path.read_bytes())
    values = UPRIGHT[orientation](values) if orientation in UPRIGHT else values
    colours = 1 if values.shape[-1] == 2 else 3
    pixels, notes = to_float(values[..., :colours].transpose(2, 0, 1), options, colour=colours == 3)
    if values.shape[-1] > colours:
        notes.append(step("alpha_dropped", kind="grey" if colours == 1 else "colours"))
    return pixels, notes


def _is_deep_colour(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.read(26)
    return header[24:26] in {bytes((16, kind)) for kind in _DEEP_COLOUR}


def _codec_version(kind: str) -> Mapping[str, str]:
    """The version of the library that Pillow is built with for this format, where it has one."""
    codec = _CODECS.get(kind)
    if codec == "libjpeg_turbo" and not features.check(codec):
        codec = "jpg"
    found = features.version(codec) if codec else None
    return {codec: found} if codec and found else {}


def _orientation(image: Image.Image) -> int | None:
    """EXIF orientation from 1 to 8 (1 is upright, also when absent or out of range); None when EXIF is broken.

    A broken EXIF block says nothing about the pixels; viewers show such images as stored, and so do we.
    """
    try:
        value = image.getexif().get(_TAG_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
