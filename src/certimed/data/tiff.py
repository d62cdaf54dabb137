"""TIFF in all its layouts through tifffile and imagecodecs: strips, tiles, planes, pyramids, OME, JPEG 2000."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, check_size, to_float
from certimed.data.records import Reading, Step, step
from certimed.errors import require

_APERIO_YCBCR = 33003
_LOSSY = (6, 7, 33003, 33005, 33007, 34712, 34892, 50001, 50002, 52546)  # JPEG and its kin
_JPEG = (6, 7, 33007, 34892)
_ASSOCIATED_ALPHA = 1
_TAG_PHOTOMETRIC, _TAG_ORIENTATION, _TAG_INKS = 262, 274, 332
_VALUES_PER_PIXEL = 10
# By what tag 274 says of the first stored row and column.
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
# Channel names and colours (OME's signed RGBA) under which three planes are red, green and blue.
_PRIMARIES = (
    ({"", "r", "red"}, {None, -16776961}),
    ({"", "g", "green"}, {None, 16711935}),
    ({"", "b", "blue"}, {None, 65535}),
)
_WHITE = -1
_ELSEWHERE = "its OME header speaks of planes that are not in it; save the set as one file"


def read_tiff(path: Path, options: ReadOptions) -> Reading:
    """Read one frame of a TIFF file, at ``options.level`` of a pyramid.

    Unsigned integers of up to 16 bits, grey or colour, are divided by the largest storable value; other integers and
    floats outside [0, 1] need a window. Three planes of a C axis (OME, ImageJ) are red, green and blue unless the
    file names or colours them otherwise; other numbers of planes are refused. Palettes are looked up, CMYK and YCbCr
    become RGB, alpha is dropped without blending (alpha that was multiplied in is divided out), and the image is
    turned upright. Of a whole-slide image the thumbnail, label and macro are left out.

    Raises:
        UnreadableError: too large, no such frame or level, samples that are no grey or colour image, cut off.
        MissingExtraError: tifffile or imagecodecs is not installed.
    """
    with _open(path) as file:
        values, page, steps = _plane(file, options)
        pixels, more = to_pixels(values, page, options)
        return Reading(pixels, (*more, *steps), reader_versions(page))


def read_tiff_values(path: Path, options: ReadOptions) -> tuple[NDArray[Any], bool]:
    """One frame as stored, for masks: ``(H, W)`` or ``(H, W, S)``, and whether its compression is lossy.

    A palette's indices are the values, zero-is-white is turned round, and a still serves every frame. Raises as
    :func:`read_tiff`.
    """
    with _open(path) as file:
        values, page, _ = _plane(file, options, still_is_every_frame=True)
        if page.photometric == 0 and values.dtype.kind in "bu":
            values = (2**page.bitspersample - 1 - values.astype(np.int64)).astype(np.uint16)
        return values, page.compression in _LOSSY


def to_pixels(values: NDArray[Any], page: Any, options: ReadOptions) -> tuple[NDArray[np.float32], list[Step]]:
    """Stored samples ``(H, W)`` or ``(H, W, S)`` of a tifffile page as float32 ``(C, H, W)`` in [0, 1], and the steps.

    Raises:
        UnreadableError: samples that are no grey or colour image, or have no defined place in [0, 1].
    """
    if _TAG_PHOTOMETRIC not in page.tags:
        raise UnreadableError("its header does not say whether zero is black or white; save it anew as grey or RGB")
    kind = getattr(page.photometric, "name", str(page.photometric))
    if not isinstance(page.bitspersample, int):
        raise UnreadableError(f"its samples have {page.bitspersample} bits each; save it with 8 or 16 bits a sample")
    samples = 1 if values.ndim == 2 else values.shape[-1]
    colours = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}.get(kind)
    if kind == "MINISBLACK" and samples == 3 and page.axes == "YX":
        colours, kind = 3, "RGB"  # planes of a C axis
    extra = [int(alpha) for alpha in page.extrasamples]
    if colours is None or samples < colours or (colours == 1 and (samples - len(extra) > 1 or 0 in extra)):
        raise UnreadableError(
            f"its photometric interpretation {kind} with {samples} samples a pixel is no grey or colour image; save it "
            "as grey or RGB"
        )
    if kind == "PALETTE":
        return _palette(values, page)
    values = values.reshape(*values.shape[:2], samples).transpose(2, 0, 1)
    if kind == "SEPARATED" and int(page.tags.valueof(_TAG_INKS, 1)) != 1:
        raise UnreadableError("its inks are not cyan, magenta, yellow and black; save it as RGB")
    ycbcr = page.compression == _APERIO_YCBCR or (kind == "YCBCR" and page.compression not in _JPEG)
    bits = min(page.bitspersample, values.itemsize * 8)
    # Inverted before it is divided, the image holds the very values of one stored the other way round.
    stored = kind == "MINISWHITE" and values.dtype.kind in "bu" and (bits <= 8 or options.window is None)
    if stored:
        values = (2**bits - 1 - values.astype(np.int64)).astype(np.uint16 if bits <= 16 else np.uint64)
    pixels, steps = to_float(values, options, colour=colours > 1, bits=bits)
    if samples > colours and _ASSOCIATED_ALPHA in extra[:1]:
        alpha = pixels[colours : colours + 1]
        pixels = np.divide(pixels, alpha, out=np.zeros_like(pixels), where=alpha > 0).clip(0, 1)
        steps.append(step("alpha_divided"))
    elif samples > colours:
        what = "grey" if colours == 1 else "colours"
        alpha_like = samples == colours + 1
        steps.append(
            step("alpha_dropped", kind=what) if alpha_like else step("samples_dropped", count=samples - colours)
        )
    pixels = pixels[:colours]
    if kind == "MINISWHITE":
        pixels, steps = pixels if stored else np.float32(1) - pixels, [*steps, step("inverted", why="zero is white:")]
    elif kind == "SEPARATED":
        pixels = (1 - pixels[:3]) * (1 - pixels[3:])
        steps.append(step("converted", source="CMYK", how=" by the plain formula, no colour profile"))
    elif ycbcr:
        y, (b, r) = pixels[0], pixels[1:] - np.float32(128 / 255)
        pixels = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b]).clip(0, 1)
        steps.append(step("converted", source="YCbCr", how=""))
    elif kind == "YCBCR":
        steps.append(step("converted", source="YCbCr", how=" by the JPEG decoder"))
    return np.ascontiguousarray(pixels, dtype=np.float32), steps


def reader_versions(page: Any) -> Mapping[str, str]:
    """Versions of tifffile and, where the page is compressed or packed, imagecodecs."""
    versions = {"tifffile": require("tifffile", "medical").__version__}
    if page.compression != 1 or page.bitspersample not in (8, 16, 32, 64):
        versions["imagecodecs"] = require("imagecodecs", "medical").__version__
    return versions


def is_slide(file: Any) -> bool:
    """Whether an opened TIFF is a whole-slide image: a scanner's format, or more than one level."""
    flags = ("svs", "ndpi", "scn", "bif", "philips", "qpi")
    return any(getattr(file, f"is_{flag}", False) for flag in flags) or len(file.series[0].levels) > 1


def _open(path: Path) -> Any:
    """The file, to be kept open while its pages are used: some tags are read when they are asked for."""
    require("imagecodecs", "medical")
    return require("tifffile", "medical").TiffFile(path, _multifile=False)


def _plane(
    file: Any, options: ReadOptions, *, still_is_every_frame: bool = False
) -> tuple[NDArray[Any], Any, list[Step]]:
    """One frame's samples as stored, its page, and the steps of choosing it."""
    if not file.series:
        raise UnreadableError("it holds no image")
    if file.is_ome and file.series[0].kind != "ome":  # tifffile then takes the pages one by one
        raise UnreadableError(_ELSEWHERE)
    steps: list[Step] = []
    slide = is_slide(file)
    every = file.series[:1] if slide else file.series
    counts = [prod(size for axis, size in zip(one.axes, one.shape) if axis not in "CSYX") for one in every]
    frame = 0 if sum(counts) == 1 and still_is_every_frame else options.frame
    if frame >= sum(counts):
        raise UnreadableError(f"frame {frame} was asked for and it has {sum(counts)} (counted from 0)")
    if sum(counts) > 1:
        steps.append(step("frame", index=frame, count=sum(counts)))
    if slide and len(file.series) > 1:
        steps.append(step("series", count=len(file.series) - 1))
    which = 0
    while frame >= counts[which]:
        frame, which = frame - counts[which], which + 1
    levels = every[which].levels
    if options.level >= len(levels):
        raise UnreadableError(f"level {options.level} was asked for and it has {len(levels)} (counted from 0)")
    if len(levels) > 1:
        steps.append(step("level", index=options.level, count=len(levels)))
    series = levels[options.level]
    page = series.keyframe
    if slide and (empty := page.databytecounts.count(0)):
        steps.append(step("empty_tiles", count=empty))
    if slide and page.imagelength * page.imagewidth > options.max_pixels:
        sides = ", ".join(f"{one.keyframe.imagewidth} x {one.keyframe.imagelength}" for one in levels)
        raise UnreadableError(
            f"it is a whole-slide image, too large to read at once at level {options.level} (levels: {sides} "
            "pixels); choose a smaller level (--level) or patches (--patches grid:SIZE)"
        )
    check_size(page.imagelength, page.imagewidth, options)
    values, axes = _samples(series, frame, counts[which], slide, options)
    if "C" in axes:
        values, note = _colour_planes(values, axes, file)
        steps.append(note)
    elif axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    orientation = page.tags.valueof(_TAG_ORIENTATION, 1)
    if not slide and orientation in UPRIGHT:
        values = UPRIGHT[orientation](values)
        steps.append(step("turned"))
    return values, page, steps


def _samples(series: Any, frame: int, frames: int, slide: bool, options: ReadOptions) -> tuple[NDArray[Any], str]:
    """The samples of one frame, and their axes: of the letters C, S, Y and X."""
    page, size = series.keyframe, series.keyframe.parent.filehandle.size
    if page.size > _VALUES_PER_PIXEL * options.max_pixels:  # of all samples, and of all frames stored as one page
        raise UnreadableError(f"its header says {page.size} values on one page, more than are read at once; split it")
    if set(page.axes) <= set("SYX") and series.axes.endswith(page.axes):
        lead = series.axes[: len(series.axes) - len(page.axes)]
        if len(series.pages) == prod(series.shape[: len(lead)]):
            order = np.arange(len(series.pages)).reshape(series.shape[: len(lead)])
            channels = lead.find("C")
            order = np.moveaxis(order, channels, -1) if channels >= 0 else order
            chosen = order.reshape(frames, -1)[frame]
            parts = []
            for index in chosen:
                part = series.pages[int(index)]
                if part is None:
                    raise UnreadableError(_ELSEWHERE)
                spans = list(zip(part.dataoffsets, part.databytecounts))
                if any(start + length > size for start, length in spans):
                    raise UnreadableError("it is cut off: its pixels lie beyond its end")
                if not slide and not all(length for _, length in spans):
                    raise UnreadableError("it lacks pixels: some of its strips or tiles are empty")
                parts.append(part.asarray(maxworkers=1))
            return (np.stack(parts), "C" + page.axes) if channels >= 0 else (parts[0], page.axes)
    if series.size > _VALUES_PER_PIXEL * options.max_pixels:
        raise UnreadableError(f"its frames cannot be read singly and together hold {series.size} values; split it")
    values, axes = series.asarray(maxworkers=1), series.axes
    kept = [axis for axis in axes if axis in "CSYX"]
    rest = [axis for axis in axes if axis not in "CSYX"]
    values = np.transpose(values, [axes.index(axis) for axis in rest + kept])
    return values.reshape(frames, *values.shape[len(rest) :])[frame], "".join(kept)


def _colour_planes(values: NDArray[Any], axes: str, file: Any) -> tuple[NDArray[Any], Step]:
    """Three planes of a C axis that nothing calls otherwise, as red, green and blue."""
    count = values.shape[axes.index("C")]
    names: list[str] = []
    primaries = True
    if file.is_ome:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        for position, channel in enumerate([] if pixels is None else pixels.findall("{*}Channel")):
            names.append(channel.get("Name") or str(position))
            known, colours = _PRIMARIES[position % 3]
            colour = int(channel.get("Color") or _WHITE)
            primaries &= (channel.get("Name") or "").strip().lower() in known and colour in colours | {_WHITE}
    if count != 3 or not primaries or set(axes) != set("CYX"):
        called = f" ({', '.join(names[:6])})" if names else ""
        raise UnreadableError(
            f"it has {count} channels{called}, which are not red, green and blue; save the channel wanted as grey, or "
            "three as RGB"
        )
    return np.moveaxis(values, axes.index("C"), -1), step("planes", axis="C")


def _palette(indices: NDArray[Any], page: Any) -> tuple[NDArray[np.float32], list[Step]]:
    table, steps = np.asarray(page.colormap), [step("palette")]
    if indices.ndim == 3:
        indices, steps = indices[..., 0], [*steps, step("alpha_dropped", kind="colours")]
    # Entries are 16 bits by the standard; writers scale 8 bits by 256 or 257, so the high byte is what they meant.
    table = table >> 8 if table.max() > 255 else table
    if indices.max() >= table.shape[1]:
        raise UnreadableError(f"its palette has {table.shape[1]} colours and its pixels name colour {indices.max()}")
    pixels = table[:, indices.astype(np.intp)].astype(np.float32) / np.float32(255)
    return pixels, [step("divided", what="8-bit colour", top=255), *steps]
