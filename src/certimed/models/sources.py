"""Where models come from: a local folder, or a hub name made into one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certimed.errors import InputError, require

_CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")


def looks_like_path(reference: str) -> bool:
    """Whether a reference is written as a folder and not as a hub name ``ORG/NAME``."""
    return reference.startswith(("/", ".", "~")) or "\\" in reference or reference.count("/") > 1


def resolve_folder(reference: str, weights: Sequence[str]) -> Path:
    """The local folder of a model, downloaded from the Hugging Face hub first if the reference is a hub name.

    Args:
        reference: an existing folder, or ``ORG/NAME`` on the hub.
        weights: file patterns of the weights, best first; only the first that exists is downloaded.

    Raises:
        InputError: no such folder, or the hub cannot be reached or has no such model.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{reference} is a file, but a model is a folder; give the folder that holds its config.json")
    if looks_like_path(reference):
        raise InputError(f"there is no folder {reference}; check the path of the model")
    hub = require("huggingface_hub", "vlm")
    try:
        path = Path(hub.snapshot_download(reference, allow_patterns=list(_CONFIG_PATTERNS)))
        for pattern in weights:
            path = Path(hub.snapshot_download(reference, allow_patterns=[*_CONFIG_PATTERNS, pattern]))
            if any(path.glob(pattern)):
                break
    # The hub client raises OSError, ValueError and its HTTP library's own errors, which differ between versions.
    except Exception as error:
        raise InputError(
            f"{reference} is neither a local folder nor could it be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {brief(error)}); check the name and the connection, or download the "
            "model on a connected machine and give its folder"
        ) from error
    return path


def read_json(path: Path, purpose: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: the file is missing or does not hold a JSON object.
    """
    if not path.is_file():
        raise InputError(f"the model folder {path.parent} has no {path.name}, which holds {purpose}; add that file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}, not an object; restore the file")
    return content


def brief(error: BaseException) -> str:
    """The first sentence of another library's error, to quote inside one of ours."""
    text = re.split(r"(?<=[.!?])\s|\n", str(error).strip())[0] or "no further message"
    return text if len(text) <= 160 else text[:160] + "..."
