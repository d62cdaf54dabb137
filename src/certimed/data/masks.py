"""Segmentation masks from image files: class ids, or 0 and 255."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.files import file_kind, printable
from certimed.data.geometry import NIFTI, Geometry, on_grid
from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError
from certimed.data.pillow import open_frame
from certimed.data.reading import reading

_JPEG_ON = 224
_JPEG_THRESHOLD = 128


def read_mask(
    path: Path,
    options: ReadOptions,
    *,
    name: str,
    num_classes: int | None = None,
    geometry: Geometry | None = None,
) -> tuple[NDArray[np.int64], str]:
    """Read one mask file (PNG, TIFF, BMP, GIF, JPEG, NIfTI or DICOM segmentation).

    Values are class ids; a mask of nothing but 0 and 255 is read as classes 0 and 1. A palette's indices are class
    ids. A JPEG is lossy, so only a binary one is accepted, cut at 128. A NIfTI mask of a NIfTI slice is sliced as its
    image is; of a volume, and of a slice of a DICOM series, each pixel takes the voxel that lies where it does, however
    the two files order and direct their axes. A mask of one frame serves every frame of its image.

    Args:
        path: the mask's file.
        options: frame, axis and slice, as for the image.
        name: id of the image, for messages.
        num_classes: ids must be below it; unchecked when None.
        geometry: of the image.

    Returns:
        int64 ``space`` of class ids, and how they were read, in words.

    Raises:
        ImageError: unreadable, a colour mask, values that are no class ids, an id of no class, voxels that are not
            those of the image.
    """
    with reading(f"the mask {printable(Path(path.name))} of {name}"):
        kind = file_kind(path)
        if kind == "nifti":
            from certimed.data.nifti import load_nifti, read_nifti_values

            if not options.volume and (geometry is None or geometry.source == NIFTI):
                return class_ids(read_nifti_values(path, options), num_classes)
            found = load_nifti(path, options, still_is_every_frame=True)
            return class_ids(_where(found.values, found.affine, geometry), num_classes)
        if kind == "dicom":
            from certimed.data.series import read_segmentation

            return class_ids(_where(*read_segmentation(path), geometry, partial=True), num_classes)
        values, lossy = _tiff_values(path, options) if kind == "tiff" else _stored_values(path, options)
        if lossy:
            return _cut_jpeg(values)
        return class_ids(values, num_classes)


def _where(
    values: NDArray[Any], affine: NDArray[np.float64], geometry: Geometry | None, *, partial: bool = False
) -> NDArray[Any]:
    """The values at the pixels of the image."""
    if geometry is None:
        raise UnreadableError("it is a volume, and its image does not say where in the patient it lies")
    found = on_grid(values, affine, geometry, partial=partial)
    if found is None:
        raise UnreadableError(
            f"its voxels ({'x'.join(map(str, values.shape))}) are not those of the image "
            f"({'x'.join(map(str, geometry.shape))}): they lie elsewhere in the patient, or are of another size; "
            "resample the mask to the image"
        )
    return found


def class_ids(values: NDArray[np.generic], num_classes: int | None) -> tuple[NDArray[np.int64], str]:
    """Stored mask values as int64 class ids, and how they were read.

    Raises:
        UnreadableError: fractions, negative or non-finite values, 255 among other ids, an id of no class.
    """
    if not np.isfinite(values).all():  # no meaning of NaN is asked for here: it is no class
        raise UnreadableError("it holds values that are not finite (NaN or infinity)")
    ids = values.astype(np.int64)
    if (ids != values).any() or ids.min() < 0:
        raise UnreadableError("its values are not whole numbers from 0 up, so they are no class ids")
    found = np.unique(ids)
    if found[-1] == 255 and set(found.tolist()) <= {0, 255} and (num_classes is None or num_classes < 256):
        return (ids == 255).astype(np.int64), "mask value 255 read as class 1"
    if found[-1] == 255 and (num_classes is None or num_classes < 256):
        raise UnreadableError("it holds 255 beside other class ids; a void label is not supported")
    if num_classes is not None and found[-1] >= num_classes:
        raise UnreadableError(f"it holds class id {found[-1]} and there are {num_classes} classes (ids from 0)")
    return ids, "mask values are class ids"


def _stored_values(path: Path, options: ReadOptions) -> tuple[NDArray[np.generic], bool]:
    """The mask's numbers as stored, and whether the file is lossy."""
    image, _ = open_frame(path, options, still_is_every_frame=True)
    with path.open("rb") as stream:
        lossy = stream.read(3) == b"\xff\xd8\xff"
    if image.mode not in {"1", "L", "P", "I", "LA", "PA", "RGB", "RGBA"} and not image.mode.startswith("I;16"):
        raise UnreadableError("it is a colour mask; save class ids as one grey channel")
    return _one_channel(np.asarray(image)), lossy


def _tiff_values(path: Path, options: ReadOptions) -> tuple[NDArray[np.generic], bool]:
    from certimed.data.tiff import read_tiff_values

    values, lossy = read_tiff_values(path, options)
    return _one_channel(values), lossy


def _one_channel(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Grey, grey and alpha, or colours that are all grey."""
    if values.ndim == 2:
        return values
    colours = values[..., :3] if values.shape[-1] > 2 else values[..., :1]
    if not (colours == colours[..., :1]).all():
        raise UnreadableError("it is a colour mask; save class ids as one grey channel")
    return colours[..., 0]


def _cut_jpeg(values: NDArray[np.generic]) -> tuple[NDArray[np.int64], str]:
    numbers = values.astype(np.int64)
    if 0 < numbers.max() < _JPEG_ON:
        raise UnreadableError(
            f"it is a JPEG with values up to {numbers.max()}: JPEG changes class ids, only black-and-white ones can "
            "be read; save it as PNG"
        )
    return (numbers >= _JPEG_THRESHOLD).astype(np.int64), f"JPEG mask cut at {_JPEG_THRESHOLD}: class 1 from there up"
