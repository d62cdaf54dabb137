"""Weights into networks: tensors only, every name in its place, nothing unpickled and nothing left as it was born.

Every loader of the project reads with :func:`read_weights` and fills with :func:`fit` (or :func:`load_pretrained`,
where a library has to rename tensors of older versions): a network is certified only if each of its tensors came from
the file and each tensor of the file has its place.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from certimed.errors import InputError, ModelError, require
from certimed.models.sources import brief, read_json

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "timm_model.")
"""What wrappers put before all names: data parallelism, torch.compile, and the usual attributes of training code."""

INDEX = ".index.json"
"""Ending of the file that says which shard holds which tensor."""

_NESTED = ("state_dict", "model_state_dict", "model", "network", "net", "params", "weights")
_COMPILED = "_orig_mod."
# Constants and counters that some writers store and networks make themselves; evaluation does not read them.
_OPTIONAL = ("num_batches_tracked", "position_ids", "relative_position_index", "n_averaged")
_LISTED = 3
_LONGEST_HEADER = 100_000_000  # bytes, as the format has it
_LONGEST = 80  # of prefixes, one behind the other


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


@dataclass(frozen=True)
class Fit:
    """What a file holds for a network, and beside it.

    Attributes:
        tensors: of the network, under its own names.
        notes: what had to be decided, in sentences to show: the file's and the names'.
        mean, std: the normalisation stored beside the network, one value or one a channel, or None.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]
    mean: Tensor | None = None
    std: Tensor | None = None


# --- files ----------------------------------------------------------------------------------------------------------


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
        with torch.serialization.safe_globals([argparse.Namespace]):
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
            return f" (it asks for {_some(sorted(listing(file)))})"
    except Exception:  # a pickle that cannot be parsed is damaged
        return ", or is damaged,"


def _shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index, "which shard holds which tensor").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ModelError(f"{index} has no weight_map of tensors to files; download it again")
    files = sorted(set(places.values()))
    odd = [name for name in files if Path(name).name != name or not (index.parent / name).is_file()]
    if odd:
        raise ModelError(f"{index} names {len(files)} shards and {len(odd)} are not beside it ({_some(odd)}); add them")
    tensors: dict[str, Tensor] = {}
    for name in files:
        content = read_content(index.parent / name)
        twice = [key for key in content if key in tensors]
        if not _is_state(content) or twice:
            raise ModelError(f"the shard {index.parent / name} is no part of {index} ({_some(twice)}); download again")
        tensors |= content
    absent = sorted(set(places) - set(tensors))
    if absent:
        raise ModelError(f"the shards of {index} lack {len(absent)} tensors it lists ({_some(absent)}); download again")
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
            inner = {name.partition(".")[0] for state in states.values() for name in state if _is_average(name)}
            held = sorted(set(states) | inner)
            raise InputError(f"{path} holds no part {part!r}; it holds {_some(held)}")
        return Weights(named, str(path), (f"{path.name}: the weights {part!r} are used, as asked",))
    plain = [name for name in states if not _is_average(name)]
    best = next((name for name in plain if set(name.split(".")) <= {"", *_NESTED}), None)
    if best is None and len(plain) == 1:
        best = plain[0]
    if best is None:
        remedy = f" but {_some(sorted(states))}; say which with part" if states else "; save the network's state_dict()"
        raise ModelError(f"{path} does not hold one dictionary of tensors{remedy}")
    averages = [name for name in states if name != best and _is_average(name)]
    if averages:
        notes.append(
            f"{path.name} also holds averaged weights ({_some(averages)}), which are not used; ask for them with "
            f"part={averages[0]!r}"
        )
    return Weights(states[best], str(path), tuple(notes))


def _is_average(name: str) -> bool:
    """Whether a dotted name contains a word for an average of weights over training."""
    return any({"ema", "averaged", "swa"} & set(re.split(r"[_\W]+", piece.lower())) for piece in name.split("."))


# --- into the network -----------------------------------------------------------------------------------------------


def fit(
    network: nn.Module,
    weights: Weights,
    *,
    advice: str = "check architecture, channels and classes",
    aside: Sequence[str] = (),
    normalisation: bool = False,
) -> Fit:
    """Fill a network; a missing, unexpected or wrongly shaped tensor is an error.

    Wrappers' :data:`PREFIXES` come off, one after the other, where that makes more names fit. Averaged copies beside
    the network (``ema_model.*``) are left alone and named in the notes.

    Args:
        network: on the CPU; its tensors are overwritten.
        weights: of :func:`read_weights`.
        advice: what to do, as the end of the refusal.
        aside: beginnings of names that may be left over: parts of a training whose answer is not asked for.
        normalisation: whether a pair of buffers ``mean`` and ``std`` beside the network may be left over; they are
            returned. Otherwise they are refused: what they did to the input would be lost.

    Raises:
        ModelError: the weights are not, name by name and shape by shape, those of the network.
    """
    filled = compare(network, weights, advice, aside=aside, normalisation=normalisation)
    network.load_state_dict(filled.tensors, strict=False)
    return filled


def compare(
    network: nn.Module, weights: Weights, advice: str, *, aside: Sequence[str] = (), normalisation: bool = False
) -> Fit:
    """What :func:`fit` finds, without filling anything.

    A network on the ``meta`` device will do: only names, shapes and kinds are read. Arguments and errors as there.
    """
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    found, beside, notes = unwrapped(weights, wanted)
    left = {name: value for name, value in found.items() if name not in wanted} | beside
    mean, std, units = _normalisation(left) if normalisation else (None, None, "")
    averaged = [name for name in left if _is_average(name) and not name.endswith(_OPTIONAL)]
    if averaged:
        first = averaged[0].partition(".")[0]
        notes += (
            f"{_file(weights)} also holds averaged weights ({first}.*), which are not used; ask for them with "
            f"part={first!r}",
        )
    dropped = [name for name in left if any(name.startswith(start) for start in aside)]
    if dropped:
        notes += (f"{_file(weights)} also holds {_some(dropped)} of a part whose answer is not used",)
    known = {*averaged, *dropped, *units.split()}
    tied = _storages({name: value for name, value in wanted.items() if name in found})
    missing = [
        name
        for name, value in wanted.items()
        if name not in found and not name.endswith(_OPTIONAL) and not _storages({name: value}) & tied
    ]
    unexpected = [name for name in left if name not in known and not name.endswith(_OPTIONAL)]
    shapes = {
        name: (tuple(found[name].shape), tuple(value.shape))
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    }
    if unexpected and not missing and not shapes and set(unexpected) <= set(beside):
        place = next(name for name in weights.tensors if name not in beside).partition(".")[0]
        advice = f"if these belong to the training alone, leave them out with part={place!r}"
    refuse_misfit(weights.source, type(network).__name__, missing, unexpected, shapes, advice)
    kinds = [name for name, value in wanted.items() if name in found and not _same_kind(found[name], value)]
    if kinds:
        raise ModelError(
            f"the weights {weights.source} hold {_some(kinds)} as {found[kinds[0]].dtype}, but this "
            f"{type(network).__name__} computes in {wanted[kinds[0]].dtype}; use weights that are not quantised"
        )
    return Fit({name: value for name, value in found.items() if name in wanted}, notes, mean, std)


def refuse_misfit(
    source: str,
    kind: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    advice: str,
) -> None:
    """Raise ModelError with one sentence if anything is missing, unexpected or of another shape (found, wanted)."""
    said = []
    if missing:
        said.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        said.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    if shapes:
        sizes = [f"{name} of shape {found}, not {wanted}" for name, (found, wanted) in shapes.items()]
        said.append(f"{len(shapes)} of another shape ({_some(sizes)})")
    if said:
        raise ModelError(f"the weights {source} do not fit this {kind}, tensor by tensor: {', '.join(said)}; {advice}")


def unwrapped(
    weights: Weights, wanted: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Names without wrappers' prefixes, as far as that makes more of them fit ``wanted``.

    Returns:
        the tensors under their new names, those that do not carry the prefixes under their old ones, and the notes.
    """
    best, waiting = "", [""]
    while waiting:
        before = waiting.pop(0)
        for chain in (before + prefix for prefix in PREFIXES):
            if len(chain) < _LONGEST and any(name.startswith(chain) for name in weights.tensors):
                waiting.append(chain)
                if _matches(weights.tensors, chain, wanted) > _matches(weights.tensors, best, wanted):
                    best = chain
    found = {name[len(best) :]: value for name, value in weights.tensors.items() if name.startswith(best)}
    beside = {name: value for name, value in weights.tensors.items() if not name.startswith(best)}
    taken = [best] if best else []
    bare, plain = _matches(found, "", wanted)
    if bare > plain:
        found = {name.replace(_COMPILED, ""): value for name, value in found.items()}
        taken.append(_COMPILED)
    notes = tuple(f"the prefix {prefix!r} was taken off the names in {_file(weights)}" for prefix in taken)
    return found, beside, weights.notes + notes


def _matches(tensors: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, Any]) -> tuple[int, int]:
    """How many names fit behind a prefix: without the marks of parts compiled by themselves, and as they are."""
    names = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
    return sum(name.replace(_COMPILED, "") in wanted for name in names), sum(name in wanted for name in names)


def _normalisation(left: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None, str]:
    """A pair of buffers such as ``mean`` and ``std``, or ``normalise.mean`` and ``normalise.std``, and their names."""
    for name, mean in left.items():
        stem, ending = name[:-4], name[-4:]
        std = left.get(f"{stem}std")
        if ending != "mean" or std is None or (stem and stem[-1] not in "._") or not mean.is_floating_point():
            continue
        if mean.numel() == std.numel() == max((1, *mean.shape)):
            return mean.flatten().float(), std.flatten().float(), f"{name} {stem}std"
    return None, None, ""


def _same_kind(found: Tensor, wanted: Tensor) -> bool:
    return found.is_floating_point() == wanted.is_floating_point() and found.is_complex() == wanted.is_complex()


def _storages(tensors: Mapping[str, Tensor]) -> set[tuple[int, tuple[int, ...]]]:
    return {(value.data_ptr(), tuple(value.shape)) for value in tensors.values() if value.numel() and not value.is_meta}


def _file(weights: Weights) -> str:
    return Path(weights.source).name


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown}, ... {len(names)} in all"


# --- networks a library builds and fills itself ---------------------------------------------------------------------


@contextmanager
def quiet_build() -> Iterator[None]:
    """While a model is built: no bars and reports of transformers, and no draw from the global random generator."""
    logging = require("transformers.utils.logging", "vlm")
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(family: Any, config: Any, weights: Weights, *, advice: str) -> tuple[Any, Fit]:
    """A transformers model with every tensor in place, and what filled it: what the library warns of is refused here.

    The library's own loading is used, on tensors read here, because it knows the names of its older versions.

    Args:
        family: the model class.
        config: the library's configuration object.
        weights: of :func:`read_weights`.
        advice: what to do, as the end of the refusal.

    Raises:
        ModelError: tensors are missing, unexpected or of another shape, or the library fails on them.
    """
    try:
        with quiet_build():
            with torch.device("meta"):
                wanted = family(config).state_dict()
            found, beside, notes = unwrapped(weights, wanted)
            # Copies: the library keeps the tensors it is given, and these may still lie in the file.
            state = {name: value.clone() for name, value in found.items()}
            model, info = family.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
            )
    # transformers raises OSError, ValueError, RuntimeError, and whatever a constructor trips over.
    except Exception as error:
        raise ModelError(
            f"transformers cannot build {family.__name__} with the weights {weights.source} "
            f"({type(error).__name__}: {brief(error)}); {advice}"
        ) from error
    own = model.state_dict()
    # Entries are names, or tuples that begin with one, depending on the version.
    mismatched = sorted(entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"])
    shapes = {name: (tuple(found[name].shape) if name in found else (), tuple(own[name].shape)) for name in mismatched}
    missing = sorted(name for name in info["missing_keys"] if name in own and not name.endswith(_OPTIONAL))
    unexpected = [name for name in [*sorted(info["unexpected_keys"]), *beside] if not name.endswith(_OPTIONAL)]
    refuse_misfit(weights.source, type(model).__name__, missing, unexpected, shapes, advice)
    return model.float(), Fit(found, notes)
