"""A layer of a mask certificate as NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import LAYERS, MaskCertificate
from certimed.errors import InputError, require
from certimed.exports.each import Subject
from certimed.exports.narrowing import radii_as_float32


def write_nifti(
    path: str | Path,
    certificate: MaskCertificate,
    layer: str = "mask",
    affine: NDArray[np.floating[Any]] | None = None,
) -> None:
    """Write one layer as NIfTI, axes ordered as in ``mask``; a 2-D mask gets a third axis of length 1.

    Args:
        path: of the file, ``.nii`` or ``.nii.gz``.
        layer: ``"mask"``, ``"certified"``, ``"abstained"`` or ``"radius"`` (float32, rounded down).
        affine: ``(4, 4)`` voxel-to-world matrix of the certified grid, to RAS+; without one the file says that its
            position is not known (``sform_code`` and ``qform_code`` 0).

    Raises:
        InputError: an unknown layer, or an affine of another shape. MissingExtraError: nibabel is not installed.
    """
    nibabel = require("nibabel", "medical")
    values = certificate.layer(layer)
    if values.dtype == np.float64:
        values = radii_as_float32(values)
    if affine is not None and np.shape(affine) != (4, 4):
        raise InputError(f"affine has shape {np.shape(affine)}; pass the (4, 4) matrix of the source image")
    volume = values.reshape(*values.shape, *([1] * (3 - values.ndim)))
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm" if affine is not None else "unknown")
    image.header["descrip"] = f"certimed: {layer}"
    image.to_filename(str(path))


def write_layers(subject: Subject, base: Path) -> list[Path]:
    """All layers of one certificate, ``BASE.LAYER.nii.gz``, where the source lies."""
    files = []
    for layer in LAYERS:
        path = base.with_name(f"{base.name}.{layer}.nii.gz")
        write_nifti(path, subject.certificate, layer, subject.affine)
        files.append(path)
    return files
