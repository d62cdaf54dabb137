"""Small files of what was learnt: tensors, and everything known about them as JSON in the header of safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from certimed.errors import InputError, ModelError
from certimed.models.weights import look_at

_METADATA_KEY = "certimed"
_MAX_BYTES = 1 << 28  # what is learnt here is kilobytes; a file beyond 256 MiB is something else


def write_learnt(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], what: str
) -> Path:
    """Write a file, whole or not at all.

    Args:
        path: where.
        tensors: by name.
        metadata: plain JSON types.
        what: the word for messages, e.g. ``"a prompt"``.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    header = {_METADATA_KEY: json.dumps(metadata, allow_nan=False)}
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=header)
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{what} cannot be written to {target} ({error}); choose another path") from error
    return target


def read_learnt(source: Path, what: str) -> tuple[dict[str, Tensor], str]:
    """Tensors and metadata (as JSON text) of a file that :func:`write_learnt` has written.

    Raises:
        InputError: no such file, one of another kind, or a damaged one.
    """
    if not source.is_file():
        raise InputError(f"there is no file {source} of {what}; check the path")
    if source.stat().st_size > _MAX_BYTES:
        raise InputError(f"{source} has {source.stat().st_size} bytes, far too many for {what}; check the path")
    try:
        look_at(source)
        with safe_open(source, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            if text is None:
                raise InputError(f"{source} is a safetensors file but not {what} saved by certimed; check the path")
            return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 - no mapping
    except ModelError as error:
        raise InputError(f"{source} cannot be read as {what}: {error}") from error
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read as {what} ({error}); save or copy it again") from error


def learnt_schema(source: Path) -> str | None:
    """Which kind of learnt file it is, by its header; None where it is none, or is damaged."""
    try:
        with safe_open(source, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return None
    schema = found.get("schema") if isinstance(found, dict) else None
    return schema if isinstance(schema, str) else None
