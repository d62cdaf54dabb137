"""NIfTI through nibabel: one slice of a volume, in a stated orientation, over a robust intensity range."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.images import AXES, ReadOptions
from certimed.data.intensity import UnreadableError, apply_window, check_expansion, check_size, replace_nan, to_unit
from certimed.data.records import Reading, Step, step
from certimed.errors import require

_FROM = ("left", "posterior", "inferior")
_SAMPLE = 1 << 24
_VOXELS_PER_PIXEL = 10
_PIECE = 1 << 20


@dataclass(frozen=True)
class _Volume:
    """An opened volume. ``shape`` has three sides; ``axes`` and ``flips`` say where each stored axis points in RAS.

    ``steps`` are the millimetres from voxel to voxel along each stored axis.
    """

    data: Any
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    frame: int | None
    frames: int
    steps: tuple[float, ...]

    def slab(self, k: int) -> NDArray[Any]:
        """Scaled values at index k of the third stored axis, ``shape[:2]``; the file is read a slab at a time."""
        if len(self.data.shape) == 2:
            return np.asarray(self.data[...])
        index: tuple[Any, ...] = (slice(None), slice(None), k)
        rest = len(self.data.shape) - 3
        if rest:
            index += (self.frame or 0,) + (0,) * (rest - 1)
        return np.asarray(self.data[index]).reshape(self.shape[:2])


def read_nifti(path: Path, options: ReadOptions) -> Reading:
    """Read one slice of a NIfTI-1 or NIfTI-2 file (``.nii``, gzipped, or the ``.hdr`` of a pair).

    The slice lies across ``options.axis`` in RAS orientation (whatever the storage order) at ``options.slice``, the
    middle by default. It is shown with patient left at the left; anterior (axial) or superior (coronal, sagittal)
    at the top; a sagittal slice has posterior at the left. A file that is one slice thick is that slice. The
    percentiles ``options.percentiles`` of the whole volume become 0 and 1; of a volume of more than 2^24 voxels
    every n-th voxel counts for them, and voxels that are no number never do. ``options.window`` replaces the
    percentiles. Of a 4-D file ``options.frame`` is used. A gzipped file is read to its end, where its checksum is.

    Raises:
        UnreadableError: too large, no such slice or frame, colour or complex voxels, values that are not finite
            (NaN unless ``options.nan`` says what it means), percentiles that coincide, a wrong checksum.
        MissingExtraError: nibabel is not installed.
    """
    with _open(path, options) as volume:
        plane, steps, sample, lowest, spacing = _slice(
            volume, options, whole=options.window is None or options.nan == "min"
        )
    plane, notes = replace_nan(plane, options, lowest)
    if options.window is not None:
        pixels, placed = apply_window(plane, options.window)
    else:
        if not sample.size:
            raise UnreadableError("it holds nothing but NaN")
        low, high = (float(value) for value in np.percentile(sample, options.percentiles))
        first, last = options.percentiles
        if not low < high:
            raise UnreadableError(
                f"its percentiles {first:g} and {last:g} are both {low:g}: nearly all of the volume is one value; give "
                "a window (centre, width)"
            )
        pixels = to_unit(plane, low, high)
        placed = step("percentiles", first=first, last=last, low=low, high=high)
    versions = {"nibabel": require("nibabel", "medical").__version__}
    raw = np.ascontiguousarray(plane[None], dtype=np.float32)
    return Reading(np.ascontiguousarray(pixels[None]), (*steps, *notes, placed), versions, spacing, raw)


def read_nifti_values(path: Path, options: ReadOptions) -> NDArray[Any]:
    """The same slice with its values as stored: ``(H, W)``, for masks; a 3-D file serves every frame.

    Raises as :func:`read_nifti`.
    """
    with _open(path, options, still_is_every_frame=True) as volume:
        return _slice(volume, options, whole=False)[0]


@contextmanager
def _open(path: Path, options: ReadOptions, *, still_is_every_frame: bool = False) -> Iterator[_Volume]:
    nibabel = require("nibabel", "medical")
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as stream:
        head = stream.read(348)
        version = 2 if head[4:8] in {b"n+2\x00", b"ni2\x00"} else 1
        stream.seek(0)
        if head[344:347] == b"ni1" or head[4:7] == b"ni2":
            partner = path.with_suffix(".img")
            if not partner.is_file():
                raise UnreadableError(
                    f"it is the header of a pair, and {partner.name} with the voxels is not beside it"
                )
            with partner.open("rb") as voxels:
                files = {"header": nibabel.FileHolder(fileobj=stream), "image": nibabel.FileHolder(fileobj=voxels)}
                image = getattr(nibabel, f"Nifti{version}Pair").from_file_map(files, mmap=False)
                yield _describe(nibabel, image, options, still_is_every_frame)
            return
        image = getattr(nibabel, f"Nifti{version}Image").from_file_map(
            {"image": nibabel.FileHolder(fileobj=stream)}, mmap=False
        )
        size = math.prod(int(side) for side in image.shape) * image.get_data_dtype().itemsize
        if zipped:
            check_expansion(path.stat().st_size, size)
        yield _describe(nibabel, image, options, still_is_every_frame)
        if zipped:  # the checksum is at the end of the stream, and only reading up to it checks it
            beyond = 0
            while piece := stream.read(_PIECE):
                beyond += len(piece)
                if beyond > size + _PIECE:
                    raise UnreadableError("its gzip stream holds more than twice the data its header says")


def _describe(nibabel: Any, image: Any, options: ReadOptions, still_is_every_frame: bool) -> _Volume:
    if image.get_data_dtype().kind not in "iuf":
        raise UnreadableError("it holds colour or complex voxels; only plain numbers are supported")
    shape = tuple(int(side) for side in image.shape)
    if len(shape) < 2 or min(shape) < 1:
        raise UnreadableError(f"its header says a volume of shape {shape}")
    if any(side > 1 for side in shape[4:]):
        raise UnreadableError(f"its shape {shape} has more than four dimensions")
    frames = shape[3] if len(shape) > 3 else 1
    if options.frame >= frames and not (frames == 1 and still_is_every_frame):
        raise UnreadableError(f"frame {options.frame} was asked for and it has {frames} (counted from 0)")
    sides = (*shape[:3], 1)[:3]
    if sides[0] * sides[1] * sides[2] > _VOXELS_PER_PIXEL * options.max_pixels:
        raise UnreadableError(
            f"its header says a volume of shape {shape}, more than the {_VOXELS_PER_PIXEL * options.max_pixels} voxels "
            "that are read at once; store it smaller"
        )
    turns = nibabel.io_orientation(image.affine)
    if not np.isfinite(turns).all():
        raise UnreadableError("its affine matrix is singular, so it has no orientation")
    axes = tuple(int(axis) for axis in turns[:, 0])
    flips = tuple(bool(sign < 0) for sign in turns[:, 1])
    # Files that do not name their unit are in millimetres, by every reader's convention.
    unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
    steps = tuple(float(size) * unit for size in nibabel.affines.voxel_sizes(image.affine))
    return _Volume(image.dataobj, sides, axes, flips, options.frame if frames > 1 else None, frames, steps)  # type: ignore[arg-type]


def _slice(
    volume: _Volume, options: ReadOptions, *, whole: bool
) -> tuple[NDArray[Any], list[Step], NDArray[np.float32], float | None, tuple[float, float]]:
    """The oriented plane, where it lies, of the ``whole`` volume its values for percentiles and the smallest; spacing.

    Its rows lie along the higher of the two anatomical axes that are left, its columns along the lower.
    """
    thin = [stored for stored, side in enumerate(volume.shape) if side == 1]
    across = thin[0] if len(thin) == 1 else volume.axes.index(options.axis_index)
    axis, size = volume.axes[across], volume.shape[across]
    index = (0 if size == 1 else options.slice) if options.slice is not None else size // 2
    if index is None or index >= size:
        raise UnreadableError(f"slice {index} was asked for and there are {size} {AXES[axis]} ones (counted from 0)")
    kept = [stored for stored in range(3) if stored != across]
    check_size(volume.shape[kept[0]], volume.shape[kept[1]], options)
    at = size - 1 - index if volume.flips[across] else index
    every = -(-(volume.shape[0] * volume.shape[1] * volume.shape[2]) // _SAMPLE)
    parts: list[NDArray[Any]] = []
    values: list[NDArray[np.float32]] = []
    lowest: float | None = None
    for k in range(volume.shape[2]) if whole or across != 2 else (at,):
        slab = volume.slab(k)
        if whole:
            replace_nan(slab, options, 0.0)  # refuses infinity, and NaN unless it has a meaning
            numbers = slab[~np.isnan(slab)]
            if numbers.size:
                lowest = float(numbers.min()) if lowest is None else min(lowest, float(numbers.min()))
            sampled = slab.reshape(-1)[::every]
            values.append(sampled[~np.isnan(sampled)].astype(np.float32))
        if across != 2:
            parts.append(slab[at] if across == 0 else slab[:, at])
        elif k == at:
            parts.append(slab)
    plane = parts[0] if across == 2 else np.stack(parts, axis=-1)
    for position, stored in enumerate(kept):
        if volume.flips[stored]:
            plane = np.flip(plane, position)
    if volume.axes[kept[0]] > volume.axes[kept[1]]:
        plane = plane.T
    side = "posterior" if axis == 0 else "patient left"
    steps = [step("slice", axis=AXES[axis], index=index, count=size, start=_FROM[axis], side=side)]
    if volume.frames > 1:
        steps.append(step("frame", index=volume.frame, count=volume.frames))
    across_steps, down_steps = (volume.steps[stored] for stored in sorted(kept, key=lambda stored: volume.axes[stored]))
    sample = np.concatenate(values) if values else np.empty(0, np.float32)
    return np.rot90(plane), steps, sample, lowest, (down_steps, across_steps)
