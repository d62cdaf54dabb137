"""Weights into networks: tensors only, and every name must have its place."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certimed.errors import InputError, ModelError
from certimed.vlm.sources import brief, load_state

_NESTED = ("state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("module.", "model.", "net.", "network.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or a PyTorch file as training loops write them.

    A checkpoint that nests its weights under ``state_dict``, ``model`` or a similar name is opened.

    Raises:
        InputError: there is no such file. ModelError: unreadable, or it holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"there is no weights file {path}; check the path")
    return load_state(path) if path.suffix == ".safetensors" else _nested(path)


def _nested(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, or is damaged, and was not opened because such a file can run code; save "
            "the network's state_dict() alone"
        ) from error
    # torch raises RuntimeError, EOFError, OSError or zip errors for damaged files.
    except (Exception, zipfile.BadZipFile) as error:
        raise ModelError(f"the weights {path} cannot be read ({type(error).__name__}: {brief(error)})") from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path} does not hold a dictionary of tensors; save the network's state_dict()")
    return dict(content)


def without_prefix(state: dict[str, Tensor], anchor: str) -> dict[str, Tensor]:
    """Take off prefixes that wrappers put before all names (``module.``, ``model.``), until ``anchor`` is a name.

    Without the anchor a prefix could be taken for a wrapper's that is part of the network's own names.
    """
    for prefix in _PREFIXES:
        if anchor not in state and all(name.startswith(prefix) for name in state):
            return without_prefix({name[len(prefix) :]: value for name, value in state.items()}, anchor)
    return state


def fill(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load the weights, wrappers' prefixes taken off; a name or a shape without a counterpart is an error.

    Raises:
        ModelError: the weights belong to another architecture.
    """
    wanted = network.state_dict()
    state = without_prefix(state, next(iter(wanted)))
    # Counters of training steps, which some writers leave out and evaluation does not read.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or unknown or shapes:
        example = (shapes or missing or unknown)[0]
        raise ModelError(
            f"the weights {source} do not fit this {type(network).__name__}: {len(missing)} names missing, "
            f"{len(unknown)} unknown, {len(shapes)} of another shape (e.g. {example}); check architecture, encoder, "
            "channels and classes"
        )
    network.load_state_dict(state, strict=False)
