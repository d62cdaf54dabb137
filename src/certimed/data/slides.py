"""Patches of whole-slide images through tifffile and zarr: a level, a grid or a table of places, one item a patch."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, check_size
from certimed.data.records import Reading, step
from certimed.data.tiff import reader_versions, to_pixels
from certimed.errors import InputError, require

GRID = "grid:"
_OPEN_SLIDES = 4


@dataclass(frozen=True)
class Region:
    """A rectangle of a slide: its upper left corner in pixels of level 0, its sides in pixels of the level read."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"x{self.x}y{self.y}w{self.width}h{self.height}"


@dataclass(frozen=True)
class Place:
    """One row of a table of patches: the slide it names (None: every slide), the rectangle, and its line."""

    slide: str | None
    region: Region
    line: int


def parse_patches(text: str) -> int | list[Place]:
    """``"grid:SIZE"`` as the side, or the path of a CSV as its places.

    The CSV has a header with columns ``x`` and ``y`` (upper left corner, pixels of level 0) and ``width`` and
    ``height``, or ``size`` (pixels of the level that is read), and ``slide`` (relative path or name without ending)
    unless every slide has the same places.

    Raises:
        InputError: neither, or a row that is no place (its line is named).
    """
    if text.startswith(GRID):
        side = text[len(GRID) :]
        if not side.isdecimal() or int(side) < 1:
            raise InputError(f"patches={text!r} is not usable: write grid:SIZE with a side in pixels, e.g. grid:256")
        return int(side)
    try:
        reader = csv.DictReader(Path(text).read_text(encoding="utf-8-sig").splitlines())
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"patches={text!r} is neither grid:SIZE nor a CSV that can be read: {error}") from None
    columns = {(name or "").strip().casefold() for name in reader.fieldnames or []}
    if not {"x", "y"} <= columns or not ("size" in columns or {"width", "height"} <= columns):
        raise InputError(
            f"the table of patches {text} has the columns {', '.join(sorted(columns)) or 'none'}; x, y and size (or "
            "width and height) are needed, and slide where there are several"
        )
    places = []
    for line, row in enumerate(rows, start=2):
        cells = {(name or "").strip().casefold(): (value or "") for name, value in row.items() if isinstance(name, str)}
        try:
            size = cells.get("size", "")
            sides = (int(cells.get("width") or size), int(cells.get("height") or size))
            region = Region(int(cells["x"]), int(cells["y"]), *sides)
        except ValueError:
            raise InputError(
                f"line {line} of the table of patches {text} is no place: whole numbers are needed"
            ) from None
        if min(region.x, region.y, *sides) < 0 or 0 in sides:
            raise InputError(f"line {line} of the table of patches {text} has a negative corner or an empty side")
        places.append(Place(cells.get("slide", "").strip().replace("\\", "/") or None, region, line))
    if not places:
        raise InputError(f"the table of patches {text} has no row")
    return places


def grid(path: Path, side: int, level: int) -> list[Region]:
    """The whole squares of ``side`` pixels that fit on one level of a slide, row by row; a margin is left out.

    Raises:
        UnreadableError: no slide, no such level, or a level smaller than one square.
    """
    width, height, scale_x, scale_y = _scale(_levels(path, path.stat().st_mtime_ns), level)
    found = [
        Region(round(column * side * scale_x), round(row * side * scale_y), side, side)
        for row in range(height // side)
        for column in range(width // side)
    ]
    if not found:
        raise UnreadableError(f"its level {level} is {width} x {height} pixels, less than one patch of {side} x {side}")
    return found


def read_patch(path: Path, region: Region, options: ReadOptions) -> Reading:
    """Read one rectangle of a slide at ``options.level``.

    Raises:
        UnreadableError: no slide, no such level, a rectangle that reaches outside it, or as in ``read_tiff``.
        MissingExtraError: tifffile, imagecodecs or zarr is not installed.
    """
    check_size(region.height, region.width, options)
    levels = _levels(path, path.stat().st_mtime_ns)
    width, height, scale_x, scale_y = _scale(levels, options.level)
    left, top = round(region.x / scale_x), round(region.y / scale_y)
    right, bottom = left + region.width, top + region.height
    if right > width or bottom > height:
        raise UnreadableError(f"the patch {region} reaches outside level {options.level} of {width} x {height} pixels")
    tiles, axes, page = levels[options.level]
    if "C" in axes:
        raise UnreadableError("its channels are planes; patches are cut from slides whose pixels hold red, green, blue")
    window = {"X": slice(left, right), "Y": slice(top, bottom), "S": slice(None)}
    values = np.asarray(tiles[tuple(window.get(axis, 0) for axis in axes)])
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    pixels, steps = to_pixels(values, page, options)
    steps.append(step("region", **vars(region)))
    if not all(page.databytecounts) and page.is_tiled:
        tall, wide = page.tilelength, page.tilewidth
        across = -(-page.imagewidth // wide)
        rows, columns = range(top // tall, -(-bottom // tall)), range(left // wide, -(-right // wide))
        empty = sum(not page.databytecounts[row * across + column] for row in rows for column in columns)
        if empty:
            steps.append(step("empty_tiles", count=empty))
    if len(levels) > 1:
        steps.append(step("level", index=options.level, count=len(levels)))
    return Reading(pixels, tuple(steps), {**reader_versions(page), "zarr": require("zarr", "medical").__version__})


def places_of(names: Collection[str], path: Path, patches: int | list[Place], level: int) -> list[Region]:
    """The patches of one slide, by the names a table may call it; raises as :func:`grid`."""
    if isinstance(patches, int):
        return grid(path, patches, level)
    return [place.region for place in patches if place.slide is None or place.slide in names]


@lru_cache(maxsize=_OPEN_SLIDES)
def _levels(path: Path, _changed: int) -> list[tuple[Any, str, Any]]:
    """Tiles (a zarr array), axes and page of every level; kept, because finding a slide's tiles takes a while."""
    tifffile, zarr = require("tifffile", "medical"), require("zarr", "medical")
    require("imagecodecs", "medical")
    try:
        file = tifffile.TiffFile(path, _multifile=False)
    except tifffile.TiffFileError as error:
        raise UnreadableError(f"patches are cut from TIFF-like slides only, and it is none ({error})") from None
    levels = file.series[0].levels if file.series else []
    return [(zarr.open(level.aszarr(level=0, maxworkers=1), mode="r"), level.axes, level.keyframe) for level in levels]


def _scale(levels: list[tuple[Any, str, Any]], level: int) -> tuple[int, int, float, float]:
    """Width and height of a level, and the pixels of level 0 that one of its pixels spans, across and down."""
    if level >= len(levels):
        raise UnreadableError(f"level {level} was asked for and it has {len(levels)} (counted from 0)")
    page, full = levels[level][2], levels[0][2]
    width, height = page.imagewidth, page.imagelength
    return width, height, full.imagewidth / width, full.imagelength / height
