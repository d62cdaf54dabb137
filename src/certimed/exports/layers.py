"""Formats that a layer of a mask certificate can be written in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from certimed.certificates import MaskCertificate
from certimed.exports.nifti import write_nifti
from certimed.exports.png import write_png

LAYER_FORMATS: dict[str, Callable[[str | Path, MaskCertificate, str], Any]] = {
    ".png": write_png,
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
}
"""Writers by the ending of the file's name."""
