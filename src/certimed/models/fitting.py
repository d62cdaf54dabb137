"""Weights into networks: tensors only, every name in its place, nothing unpickled and nothing left as it was born.

Every loader of the project reads with :func:`certimed.models.weights.read_weights` and fills with :func:`fit` (or
:func:`load_pretrained`, where a library has to rename tensors of older versions): a network is certified only if each
of its tensors came from the file and each tensor of the file has its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certimed.errors import ModelError, require
from certimed.models.sources import brief
from certimed.models.weights import Weights, is_average, some

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "timm_model.")
"""What wrappers put before all names: data parallelism, torch.compile, and the usual attributes of training code."""

_COMPILED = "_orig_mod."
# Constants and counters that some writers store and networks make themselves; evaluation does not read them.
_OPTIONAL = ("num_batches_tracked", "position_ids", "relative_position_index", "n_averaged")
_LONGEST = 80  # of prefixes, one behind the other


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
    averaged = [name for name in left if is_average(name) and not name.endswith(_OPTIONAL)]
    if averaged:
        first = averaged[0].partition(".")[0]
        notes += (
            f"{_file(weights)} also holds averaged weights ({first}.*), which are not used; ask for them with "
            f"part={first!r}",
        )
    dropped = [name for name in left if any(name.startswith(start) for start in aside)]
    if dropped:
        notes += (f"{_file(weights)} also holds {some(dropped)} of a part whose answer is not used",)
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
            f"the weights {weights.source} hold {some(kinds)} as {found[kinds[0]].dtype}, but this "
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
        said.append(f"{len(missing)} missing ({some(missing)})")
    if unexpected:
        said.append(f"{len(unexpected)} unexpected ({some(unexpected)})")
    if shapes:
        sizes = [f"{name} of shape {found}, not {wanted}" for name, (found, wanted) in shapes.items()]
        said.append(f"{len(shapes)} of another shape ({some(sizes)})")
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
