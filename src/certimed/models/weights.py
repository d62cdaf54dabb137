"""Files of weights, read: tensors only, nothing unpickled, and files that are no weights say what they are."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from certimed.errors import InputError, ModelError
from certimed.models.sources import brief, read_json

INDEX = ".index.json"
"""Ending of the file that says which shard holds which tensor."""

# Numbers of NumPy, as training loops log them: values, whatever module of NumPy's they are pickled from.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_NESTED = ("state_dict", "model_state_dict", "model", "network", "net", "params", "weights")
_LISTED = 3
_LONGEST_HEADER = 100_000_000  # bytes, as the format has it


@dataclass(frozen=True)
class Weights:
    """Tensors of a file by name.

    Attributes:
        tensors: by name.
        source: the file, for messages.
        notes: what had to be decided about the file, in sentences to show.
    """

    tensors: dict[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()


def find_weights(folder: Path, names: Sequence[str], remedy: str) -> Path:
    """The first of the files that a folder holds, whole or in shards (``NAME.index.json``).

    Raises:
        InputError: none of them; the message ends with ``remedy``.
    """
    for name in names:
        for candidate in (folder / name, folder / f"{name}{INDEX}"):
            if candidate.is_file():
                return candidate
    raise InputError(f"the model folder {folder} holds no weights ({' or '.join(names)}); {remedy}")


def read_weights(path: str | Path, part: str | None = None, *, mapped: bool = False) -> Weights:
    """Tensors by name from safetensors, a PyTorch file as training loops write them, or the index of shards of these.

    The format is told by the file's content. Weights nested under ``state_dict``, ``model`` or a similar name are
    found; weights averaged over training that lie beside them (``ema``) are named in the notes and not used.

    Args:
        path: the file, or a ``*.index.json`` beside its shards.
        part: name of the nested weights to take instead, such as ``"ema_state_dict"``; a common beginning of names
            (``"ema_model"``) counts as a nesting.
        mapped: leave the tensors in the file until they are copied, so that a look at names and shapes costs nothing.

    Raises:
        InputError: there is no such file, or no such part. ModelError: it is no file of weights, cut off, or holds more
            than tensors and plain values.
    """
    path = Path(path).expanduser()
    if path.name.endswith(INDEX):
        return _chosen(_shards(path), path, part)
    return _chosen(read_content(path, mapped=mapped), path, part)


def read_content(path: Path, *, mapped: bool = False) -> Any:
    """What a weights file holds: tensors by name (safetensors), or nested plain values and tensors (PyTorch).

    Raises:
        InputError: there is no such file. ModelError: as :func:`read_weights`.
    """
    kind = look_at(path)
    try:
        if kind == "safetensors":
            with safe_open(path, framework="pt") as tensors:
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        # Training loops (timm's, torchvision's) keep their arguments beside the weights: a bag of values, no code.
        with torch.serialization.safe_globals([argparse.Namespace, *_NUMBERS]):
            if mapped and kind == "zip":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:  # by its name PyTorch would take a file for another format
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors{_foreign(path, kind)} and was not opened, because such a file can run "
            "code; where you made it yourself, save the network's state_dict() alone"
        ) from error
    # safetensors raises an error of its own; torch RuntimeError, EOFError, OSError or zip errors for damaged files.
    except (Exception, zipfile.BadZipFile) as error:
        reason = str(error) if isinstance(error, SafetensorError) else brief(error)
        raise ModelError(
            f"the weights {path} cannot be read ({type(error).__name__}: {reason}): the file is damaged or cut off; "
            "copy or download it again"
        ) from error


def look_at(path: Path) -> str:
    """What a weights file is by its first bytes: ``"safetensors"``, ``"zip"`` or ``"pickle"`` (PyTorch's two formats).

    Raises:
        InputError: there is no such file. ModelError: it is something else; the sentence says what.
    """
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; check the path")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    fault = None
    if not head.strip(b"\0"):
        fault = "is empty, or zeros only; copy or download it again"
    elif head.startswith(b"version https://git-lfs.github.com/spec/"):
        fault = "is a Git LFS pointer, the name of the weights and not the weights; run git lfs pull in its repository"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        fault = (
            "is a web page (HTML) and no weights; open its address in a browser, log in if asked, and download again"
        )
    elif head.startswith(b"\x89HDF"):
        fault = "is an HDF5 file (Keras); convert the network to PyTorch and save its state_dict()"
    elif head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh")) or head[257:262] == b"ustar":
        fault = "is a packed archive; unpack it and give the weights file in it"
    elif head.startswith(b"PK"):
        fault = _zip_fault(path)
    elif head[8:9] == b"{" and (header := int.from_bytes(head[:8], "little")) <= _LONGEST_HEADER:
        if header + 8 <= size:
            return "safetensors"
        fault = f"is a safetensors file cut off after {size} bytes; copy or download it again"
    elif head.startswith(b"\x80"):
        return "pickle"
    elif text.startswith((b"{", b"[")):
        fault = "is a text file (JSON) and no weights; if it is a server's answer, log in and download again"
    else:
        fault = "is no weights file (neither safetensors nor PyTorch's); check the path"
    if fault is not None:
        raise ModelError(f"{path} {fault}")
    return "zip"


def _zip_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"is a PyTorch file cut off after {path.stat().st_size} bytes; copy or download it again"
    if any("/code/" in name for name in names) and any(name.endswith("constants.pkl") for name in names):
        return (
            "is a TorchScript archive, a program with its weights; save the network's state_dict(), or load the file "
            "in code of your own (python:MODULE:FACTORY)"
        )
    if not any(name.endswith("data.pkl") for name in names):
        return "is a zip archive without PyTorch weights; unpack it and give the weights file in it"
    return None


def _foreign(path: Path, kind: str) -> str:
    """The classes a PyTorch file asks for, where this PyTorch can list them without running anything."""
    listing = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if kind != "zip" or listing is None:
        return ", or is damaged,"
    try:
        with path.open("rb") as file:
            return f" (it asks for {some(sorted(listing(file)))})"
    except Exception:  # a pickle that cannot be parsed is damaged
        return ", or is damaged,"


def _shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index, "which shard holds which tensor").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ModelError(f"{index} has no weight_map of tensors to files; download it again")
    files = sorted(set(places.values()))
    odd = [name for name in files if Path(name).name != name or not (index.parent / name).is_file()]
    if odd:
        raise ModelError(f"{index} names {len(files)} shards and {len(odd)} are not beside it ({some(odd)}); add them")
    tensors: dict[str, Tensor] = {}
    for name in files:
        content = read_content(index.parent / name)
        twice = [key for key in content if key in tensors]
        if not _is_state(content) or twice:
            raise ModelError(f"the shard {index.parent / name} is no part of {index} ({some(twice)}); download again")
        tensors |= content
    absent = sorted(set(places) - set(tensors))
    if absent:
        raise ModelError(f"the shards of {index} lack {len(absent)} tensors it lists ({some(absent)}); download again")
    return tensors


def _is_state(content: object) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def _chosen(content: Any, path: Path, part: str | None) -> Weights:
    """The network's weights out of what a file holds."""
    states: dict[str, dict[str, Tensor]] = {}
    notes: list[str] = []

    def collect(name: str, value: Any, depth: int) -> None:
        if _is_state(value):
            states[name] = dict(value)
        elif isinstance(value, Mapping) and depth < 2:
            for key, item in value.items():
                collect(f"{name}.{key}" if name and depth else str(key), item, depth + 1)

    collect("", content, 0)
    if part is not None:
        named = states.get(part)
        if named is None:
            inside = {k: v for state in states.values() for k, v in state.items() if k.startswith(f"{part}.")}
            named = {name[len(part) + 1 :]: value for name, value in inside.items()}
        if not named:
            inner = {name.partition(".")[0] for state in states.values() for name in state if is_average(name)}
            held = sorted(set(states) | inner)
            raise InputError(f"{path} holds no part {part!r}; it holds {some(held)}")
        return Weights(named, str(path), (f"{path.name}: the weights {part!r} are used, as asked",))
    plain = [name for name in states if not is_average(name)]
    best = next((name for name in plain if set(name.split(".")) <= {"", *_NESTED}), None)
    if best is None and len(plain) == 1:
        best = plain[0]
    if best is None:
        remedy = f" but {some(sorted(states))}; say which with part" if states else "; save the network's state_dict()"
        raise ModelError(f"{path} does not hold one dictionary of tensors{remedy}")
    averages = [name for name in states if name != best and is_average(name)]
    if averages:
        notes.append(
            f"{path.name} also holds averaged weights ({some(averages)}), which are not used; ask for them with "
            f"part={averages[0]!r}"
        )
    return Weights(states[best], str(path), tuple(notes))


def is_average(name: str) -> bool:
    """Whether a dotted name contains a word for an average of weights over training."""
    return any({"ema", "averaged", "swa"} & set(re.split(r"[_\W]+", piece.lower())) for piece in name.split("."))


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown}, ... {len(names)} in all"
