"""A layer of a mask certificate as NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import MaskCertificate
from certimed.errors import InputError, require


def write_nifti(
    path: str | Path,
    certificate: MaskCertificate,
    layer: str = "mask",
    affine: NDArray[np.floating[Any]] | None = None,
) -> None:
    """Write one layer as NIfTI, axes ordered as in ``mask``; a 2-D mask gets a third axis of length 1.

    Args:
        path: of the file, ``.nii`` or ``.nii.gz``.
        layer: ``"mask"``, ``"certified"`` or ``"radius"`` (float32, rounded down).
        affine: ``(4, 4)`` voxel-to-world matrix of the source image; identity if unknown.

    Raises:
        InputError: an unknown layer, or an affine of another shape. MissingExtraError: nibabel is not installed.
    """
    nibabel = require("nibabel", "medical")
    values = certificate.layer(layer)
    if values.dtype == np.float64:
        narrow = values.astype(np.float32)
        values = np.where(narrow > values, np.nextafter(narrow, np.float32(-np.inf)), narrow)
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"affine has shape {matrix.shape}; pass the (4, 4) matrix of the source image")
    volume = values.reshape(*values.shape, *([1] * (3 - values.ndim)))
    nibabel.Nifti1Image(volume, matrix).to_filename(str(path))
