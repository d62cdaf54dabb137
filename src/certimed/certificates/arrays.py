"""The arrays of a claim: their smallest type, their digest, and their file beside the JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.errors import InputError
from certimed.integrity import BROKEN_ARCHIVE


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
