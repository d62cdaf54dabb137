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
from certimed.data.intensity import UnreadableError, apply_window, check_expansion, check_finite, check_size, to_unit
from certimed.errors import require

_FROM = ("left", "posterior", "inferior")
_SAMPLE = 1 << 24
_VOXELS_PER_PIXEL = 10


@dataclass(frozen=True)
class _Volume:
    """An opened volume. ``shape`` has three sides; ``axes`` and ``flips`` say where each stored axis points in RAS."""

    data: Any
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    frame: int | None
    frames: int

    def slab(self, k: int) -> NDArray[Any]:
        """Scaled values at index k of the third stored axis, ``shape[:2]``; the file is read a slab at a time."""
        if len(self.data.shape) == 2:
            return np.asarray(self.data[...])
        index: tuple[Any, ...] = (slice(None), slice(None), k)
        rest = len(self.data.shape) - 3
        if rest:
            index += (self.frame or 0,) + (0,) * (rest - 1)
        return np.asarray(self.data[index]).reshape(self.shape[:2])


def read_nifti(path: Path, options: ReadOptions) -> tuple[NDArray[np.float32], str]:
    """Read one slice of a NIfTI-1 or NIfTI-2 file (``.nii`` or gzipped).

    The slice lies across ``options.axis`` in RAS orientation (whatever the storage order) at ``options.slice``, the
    middle by default. It is shown with patient left at the left; anterior (axial) or superior (coronal, sagittal)
    at the top; a sagittal slice has posterior at the left. A file that is one slice thick is that slice. The
    percentiles ``options.percentiles`` of the whole volume become 0 and 1; of a volume of more than 2^24 voxels
    every n-th voxel counts for them. ``options.window`` replaces the percentiles. Of a 4-D file ``options.frame`` is
    used.

    Returns:
        float32 ``(1, H, W)`` in [0, 1], and the sentence on intensities, slice and orientation.

    Raises:
        UnreadableError: too large, no such slice or frame, colour or complex voxels, values that are not finite,
            percentiles that coincide.
        MissingExtraError: nibabel is not installed.
    """
    with _open(path, options) as volume:
        plane, where, sample = _slice(volume, options, sample=options.window is None)
    if options.window is not None:
        pixels, note = apply_window(plane, options.window)
    else:
        low, high = (float(value) for value in np.percentile(sample, options.percentiles))
        first, last = options.percentiles
        if not low < high:
            raise UnreadableError(
                f"its percentiles {first:g} and {last:g} are both {low:g}; give wider percentiles or "
                "window=(centre, width)"
            )
        pixels = to_unit(plane, low, high)
        note = f"percentiles {first:g} and {last:g} of the volume ({low:g} to {high:g}) became 0 and 1, clipped"
    return np.ascontiguousarray(pixels[None]), f"{where}; {note}"


def read_nifti_values(path: Path, options: ReadOptions) -> NDArray[Any]:
    """The same slice with its values as stored: ``(H, W)``, for masks; a 3-D file serves every frame.

    Raises as :func:`read_nifti`.
    """
    with _open(path, options, still_is_every_frame=True) as volume:
        return _slice(volume, options, sample=False)[0]


@contextmanager
def _open(path: Path, options: ReadOptions, *, still_is_every_frame: bool = False) -> Iterator[_Volume]:
    nibabel = require("nibabel", "medical")
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as stream:
        kind = nibabel.Nifti2Image if stream.read(8)[4:8] == b"n+2\x00" else nibabel.Nifti1Image
        stream.seek(0)
        image = kind.from_file_map({"image": nibabel.FileHolder(fileobj=stream)}, mmap=False)
        if image.get_data_dtype().kind not in "iuf":
            raise UnreadableError("it holds colour or complex voxels; only plain numbers are supported")
        if zipped:
            unpacked = math.prod(int(side) for side in image.shape) * image.get_data_dtype().itemsize
            check_expansion(path.stat().st_size, unpacked)
        yield _describe(nibabel, image, options, still_is_every_frame)


def _describe(nibabel: Any, image: Any, options: ReadOptions, still_is_every_frame: bool) -> _Volume:
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
            f"its header says a volume of shape {shape}, more than {_VOXELS_PER_PIXEL} x max_pixels="
            f"{options.max_pixels} voxels"
        )
    turns = nibabel.io_orientation(image.affine)
    if not np.isfinite(turns).all():
        raise UnreadableError("its affine matrix is singular, so it has no orientation")
    axes = tuple(int(axis) for axis in turns[:, 0])
    flips = tuple(bool(sign < 0) for sign in turns[:, 1])
    return _Volume(image.dataobj, sides, axes, flips, options.frame if frames > 1 else None, frames)  # type: ignore[arg-type]


def _slice(volume: _Volume, options: ReadOptions, *, sample: bool) -> tuple[NDArray[Any], str, NDArray[np.float32]]:
    """The oriented plane, where it lies in words, and the volume's values for percentiles (empty unless asked)."""
    thin = [stored for stored, side in enumerate(volume.shape) if side == 1]
    across = thin[0] if len(thin) == 1 else volume.axes.index(options.axis_index)
    axis, size = volume.axes[across], volume.shape[across]
    index = (0 if size == 1 else options.slice) if options.slice is not None else size // 2
    if index is None or index >= size:
        raise UnreadableError(f"slice {index} was asked for and there are {size} {AXES[axis]} ones (counted from 0)")
    kept = [stored for stored in range(3) if stored != across]
    check_size(volume.shape[kept[0]], volume.shape[kept[1]], options)
    at = size - 1 - index if volume.flips[across] else index
    step = -(-(volume.shape[0] * volume.shape[1] * volume.shape[2]) // _SAMPLE)
    parts: list[NDArray[Any]] = []
    values: list[NDArray[np.float32]] = []
    for k in range(volume.shape[2]) if sample or across != 2 else (at,):
        slab = volume.slab(k)
        if sample:
            check_finite(slab)
            values.append(slab.reshape(-1)[::step].astype(np.float32))
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
    where = f"{AXES[axis]} slice {index} of {size} (RAS, counted from {_FROM[axis]}; "
    where += "posterior at the left)" if axis == 0 else "patient left at the left)"
    if volume.frames > 1:
        where += f"; frame {volume.frame} of {volume.frames}"
    return np.rot90(plane), where, np.concatenate(values) if values else np.empty(0, np.float32)
