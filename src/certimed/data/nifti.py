"""NIfTI through nibabel: a volume, or one slice of it in a stated orientation, over a robust intensity range."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.files import stored_files
from certimed.data.geometry import NIFTI, Geometry, turned
from certimed.data.images import AXES, ReadOptions
from certimed.data.intensity import UnreadableError, check_expansion, check_size
from certimed.data.records import Reading, Step, step
from certimed.data.volumes import Volume, check_voxels
from certimed.errors import require

_FROM = ("left", "posterior", "inferior")
_PIECE = 1 << 20


def read_nifti(path: Path, options: ReadOptions) -> Reading:
    """Read a NIfTI-1 or NIfTI-2 file (``.nii``, gzipped, or the ``.hdr`` of a pair): one slice, or the whole volume.

    The slice lies across ``options.axis`` in RAS orientation (whatever the storage order) at ``options.slice``, the
    middle by default. It is shown with patient left at the left; anterior (axial) or superior (coronal, sagittal)
    at the top; a sagittal slice has posterior at the left. A file that is one slice thick is that slice.

    With ``options.volume`` all of it is read: axes as stored, or turned as ``options.orientation`` says.

    The percentiles ``options.percentiles`` of the whole volume become 0 and 1; of a volume of more than 2^24 voxels
    every n-th voxel counts for them, and voxels that are no number never do. ``options.window`` replaces the
    percentiles. Of a 4-D file ``options.frame`` is used. A gzipped file is read to its end, where its checksum is.

    Raises:
        UnreadableError: too large, no such slice or frame, colour or complex voxels, values that are not finite
            (NaN unless ``options.nan`` says what it means), percentiles that coincide, a wrong checksum.
        MissingExtraError: nibabel is not installed.
    """
    if options.volume:
        return load_nifti(path, options).whole(options)
    volume = _kept(path, options)
    plane, steps, geometry = _slice(volume, options)
    pixels, placing = volume.placed(plane, options)
    steps = (*steps, *volume.steps, *placing)
    filled = next((one.values["value"] for one in placing if one.kind == "nan"), 0.0)
    raw = np.nan_to_num(np.ascontiguousarray(plane[None], dtype=np.float32), nan=filled)
    return Reading(np.ascontiguousarray(pixels[None]), steps, volume.decoders, geometry.spacing, geometry, raw)


def read_nifti_values(path: Path, options: ReadOptions) -> NDArray[Any]:
    """The same slice with its values as stored: ``(H, W)``, for masks; a 3-D file serves every frame.

    Raises as :func:`read_nifti`.
    """
    return _slice(_kept(path, options, still_is_every_frame=True), options)[0]


def nifti_slices(path: Path, options: ReadOptions) -> int:
    """How many slices lie across ``options.axis``; of a file one slice thick, 1. Raises as :func:`read_nifti`."""
    with _opened(path) as image:
        shape = _checked(image, options, True)
        turns = _turns(image.affine)
    return 1 if shape.count(1) == 1 else shape[turns.index(options.axis_index)]


def load_nifti(path: Path, options: ReadOptions, *, still_is_every_frame: bool = False) -> Volume:
    """The volume (of a 4-D file, the frame) with its values as stored; raises as :func:`read_nifti`."""
    with _opened(path) as image:
        shape = _checked(image, options, still_is_every_frame)
        _turns(image.affine)
        frames = image.shape[3] if len(image.shape) > 3 else 1
        index: tuple[Any, ...] = (slice(None),) * min(3, len(image.shape))
        if len(image.shape) > 3:
            index += (options.frame if frames > 1 else 0,) + (0,) * (len(image.shape) - 4)
        values = np.asarray(image.dataobj[index]).reshape(shape)
        # Files that do not name their unit are in millimetres, by every reader's convention.
        unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
        affine = np.diag([unit, unit, unit, 1.0]) @ image.affine
    steps = (step("frame", index=options.frame, count=frames),) if frames > 1 else ()
    version = require("nibabel", "medical").__version__
    return Volume(values, affine, NIFTI, (path.as_posix(),), steps, {"nibabel": version})


@lru_cache(maxsize=2)  # an image and its mask, whose slices are read one after the other
def _remembered(path: Path, _changed: object, options: ReadOptions, still_is_every_frame: bool) -> Volume:
    return load_nifti(path, options, still_is_every_frame=still_is_every_frame)


def _kept(path: Path, options: ReadOptions, *, still_is_every_frame: bool = False) -> Volume:
    """The volume of a slice: read once for all slices of a file."""
    only = ReadOptions(frame=options.frame, max_pixels=options.max_pixels)
    changed = tuple((one.stat().st_mtime_ns, one.stat().st_size) for one in stored_files(path))
    return _remembered(path, changed, only, still_is_every_frame)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The nibabel image of a file, whose gzip stream is read to its end afterwards."""
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
                yield getattr(nibabel, f"Nifti{version}Pair").from_file_map(files, mmap=False)
            return
        image = getattr(nibabel, f"Nifti{version}Image").from_file_map(
            {"image": nibabel.FileHolder(fileobj=stream)}, mmap=False
        )
        size = math.prod(int(side) for side in image.shape) * image.get_data_dtype().itemsize
        if zipped:
            check_expansion(path.stat().st_size, size)
        yield image
        if zipped:  # the checksum is at the end of the stream, and only reading up to it checks it
            beyond = 0
            while piece := stream.read(_PIECE):
                beyond += len(piece)
                if beyond > size + _PIECE:
                    raise UnreadableError("its gzip stream holds more than twice the data its header says")


def _checked(image: Any, options: ReadOptions, still_is_every_frame: bool) -> tuple[int, int, int]:
    """Three sides, once the header says a volume that can be read."""
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
    check_voxels(shape[:3], options)
    first, second, third = (*shape[:3], 1)[:3]
    return first, second, third


def _turns(affine: NDArray[np.float64]) -> list[int]:
    """The anatomical axis along which each stored axis lies."""
    turns = require("nibabel", "medical").io_orientation(affine)
    if not np.isfinite(turns).all():
        raise UnreadableError("its affine matrix is singular, so it has no orientation")
    return [int(axis) for axis in turns[:, 0]]


def _slice(volume: Volume, options: ReadOptions) -> tuple[NDArray[Any], tuple[Step, ...], Geometry]:
    """The oriented plane, where it lies, and its geometry.

    Its rows lie along the higher of the two anatomical axes that are left, its columns along the lower.
    """
    values, affine = turned(volume.values, volume.affine, "RAS")
    thin = [axis for axis, side in enumerate(values.shape) if side == 1]
    axis = thin[0] if len(thin) == 1 else options.axis_index
    size = values.shape[axis]
    index = (0 if size == 1 else options.slice) if options.slice is not None else size // 2
    if index is None or index >= size:
        raise UnreadableError(f"slice {index} was asked for and there are {size} {AXES[axis]} ones (counted from 0)")
    columns, rows = (kept for kept in range(3) if kept != axis)
    check_size(values.shape[columns], values.shape[rows], options)
    plane = np.rot90(values.take(index, axis))
    place = np.zeros((4, 4))
    place[rows, 0], place[rows, 3], place[columns, 1] = -1, values.shape[rows] - 1, 1
    place[axis, 2], place[axis, 3], place[3, 3] = 1, index, 1
    geometry = Geometry.of(affine @ place, plane.shape, NIFTI, volume.files)
    side = "posterior" if axis == 0 else "patient left"
    return plane, (step("slice", axis=AXES[axis], index=index, count=size, start=_FROM[axis], side=side),), geometry
