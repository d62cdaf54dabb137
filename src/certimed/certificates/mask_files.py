"""Arrays of a mask certificate in files: npz without pickles, PNG and NIfTI."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from certimed.errors import InputError, require
from certimed.integrity import BROKEN_ARCHIVE

_PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))
_PNG_STEPS = 255
_SECTION_AXES = 2


def smallest_unsigned(largest: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds ``largest``: one byte for 256 classes, two for 65 535 samples."""
    if largest <= np.iinfo(np.uint8).max:
        return np.uint8
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hex SHA-256 of named integer arrays: names, shapes and values, whatever their type or file format."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], dtype="<u4")
        digest.update(json.dumps([name, list(values.shape)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed npz under exactly this name; the same arrays give the same bytes."""
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays by name from an npz; pickled content is refused.

    Raises:
        InputError: the file is missing, damaged, lacks an array, or holds pickled content.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except KeyError as error:
        raise InputError(f"{path} lacks an array of a mask certificate ({error}); restore the file") from error
    except BROKEN_ARCHIVE as error:
        raise InputError(f"the arrays {path} cannot be read ({error}); restore the file") from error


def write_png(path: Path, layer: str, values: NDArray[Any]) -> float:
    """Write a 2-D layer; returns what one step of the file's values stands for (see ``MaskCertificate.save_png``)."""
    image, info, step = _png(layer, values)
    image.save(path, format="PNG", pnginfo=info)
    return step


def png_data_uri(layer: str, values: NDArray[Any]) -> str:
    """The PNG of a layer as a ``data:`` address for HTML."""
    image, info, _ = _png(layer, values)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _png(layer: str, values: NDArray[Any]) -> tuple[Image.Image, PngInfo, float]:
    if values.ndim != _SECTION_AXES:
        raise InputError(f"a PNG holds a 2-D image, but {layer} has shape {values.shape}; write NIfTI or one slice")
    step = 1.0
    if layer == "radius":
        highest = float(values.max())
        step = highest / _PNG_STEPS if highest > 0 else 1.0
        # The quotient may be rounded up to the next whole step; a step too far is taken back.
        steps = np.floor(values / step)
        steps -= steps * step > values
        image, unit = (
            Image.fromarray(steps.astype(np.uint8)),
            f"L2 radius in [0, 1] units per step, rounded down: {step!r}",
        )
    elif layer == "certified":
        image, unit = Image.fromarray((values != 0).astype(np.uint8) * _PNG_STEPS), "255 = certified, 0 = abstained"
        step = 1 / _PNG_STEPS
    elif values.dtype == np.uint8:
        image, unit = Image.fromarray(values), "class id"
        image.putpalette([channel for index in range(256) for channel in _PALETTE[index % len(_PALETTE)]])
    else:
        image, unit = Image.fromarray(values.astype(np.uint16)), "class id"
    info = PngInfo()
    info.add_text("certimed:unit", unit)
    return image, info, step


def write_nifti(path: Path, values: NDArray[Any], affine: NDArray[np.floating[Any]] | None) -> None:
    """Write an array as NIfTI in its own axis order; floats become float32 rounded down."""
    nibabel = require("nibabel", "medical")
    if values.dtype == np.float64:
        narrow = values.astype(np.float32)
        values = np.where(narrow > values, np.nextafter(narrow, np.float32(-np.inf)), narrow)
    volume = values.reshape(*values.shape, *([1] * (3 - values.ndim)))
    matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"affine has shape {matrix.shape}; pass the (4, 4) matrix of the source image")
    nibabel.Nifti1Image(volume, matrix).to_filename(str(path))
