"""MONAI bundles: the network of ``configs/inference.json`` with ``models/model.pt``, built without running the bundle.

A bundle's configuration is a program: ``$`` expressions are evaluated and ``_target_`` may name any function. Only the
part that describes the network is read here, with references resolved, and only networks of ``monai.networks`` built.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.errors import InputError, require
from certimed.models.fitting import fit
from certimed.models.normalisation import choose
from certimed.models.sources import brief, read_json
from certimed.models.weights import find_weights, read_weights
from certimed.segmenters.adapter import SegmentationModel, SlidingWindow, needed_multiple, required_output

_CONFIGS = ("configs/inference.json", "configs/evaluate.json", "configs/train.json")
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_NETWORK_KEYS = ("network_def", "network", "net_def", "net")
_MAX_REFERENCES = 32


def monai_bundle(
    folder: str | Path,
    *,
    output: str | None = None,
    network_key: str | None = None,
    window: SlidingWindow | None = None,
    **settings: Any,
) -> SegmentationModel:
    """The network of a bundle folder, e.g. of MONAI's model zoo.

    The bundle's transforms are not part of the model: images come in [0, 1], so state ``mean`` and ``std`` that map
    [0, 1] to what the network was trained on. Sizes are padded to the multiple the network needs, found by running it.

    Args:
        folder: the bundle, with ``configs/`` and ``models/``.
        output: what the network returns; a bundle does not say.
        network_key: key of the network's definition; default ``network_def`` or a usual alternative.
        window: for large images; default: the bundle's own ``inferer.roi_size`` if it states plain numbers.
        settings: normalise, part; and of :class:`SegmentationModel`: mean, std, multiple_of.

    Raises:
        InputError: a file is missing, the definition would need code to run. ModelError:
            weights do not fit.
    """
    stated = required_output(output, "a MONAI bundle")
    root = Path(folder).expanduser()
    config_path = next((root / name for name in _CONFIGS if (root / name).is_file()), root / _CONFIGS[0])
    document = read_json(config_path, "the definition of the network")
    key = network_key or next((name for name in _NETWORK_KEYS if isinstance(document.get(name), dict)), "network_def")
    if not isinstance(document.get(key), dict):
        raise InputError(f"{config_path} has no network definition {key!r}; state network_key")
    definition = _resolve(document[key], document, config_path, 0)
    network = _build(definition, config_path)
    file = find_weights(root, _WEIGHTS, "add the bundle's models/model.pt")
    filled = fit(network, read_weights(file, settings.pop("part", None)), normalisation=True)
    channels = int(definition.get("out_channels", definition.get("num_classes", 0)))
    inputs = int(definition.get("in_channels", 1))
    chosen = choose(settings, inputs, stored=(filled.mean, filled.std), hint=_hint(document, config_path))
    given = {"multiple_of": needed_multiple(network.eval(), inputs), **settings}
    return SegmentationModel(
        network,
        num_classes=2 if stated.startswith("binary") else channels,
        output=stated,
        in_channels=inputs,
        window=window if window is not None else _own_window(document),
        name=f"{definition['_target_']} ({root.name})",
        configuration={"library": "monai", **definition},
        libraries=("monai", "safetensors"),
        **(given | chosen.settings | {"notes": (*filled.notes, *chosen.notes)}),
    )


def _hint(document: dict[str, Any], path: Path) -> str | None:
    """Why the input may have been normalised: the transforms of the bundle that say so."""
    found = sorted(
        set(re.findall(r'"(?:monai\.transforms\.)?((?:Normalize|ScaleIntensity)\w*)"', json.dumps(document)))
    )
    return f"{path} prepares images with {', '.join(found)}" if found else None


def _resolve(value: Any, document: dict[str, Any], path: Path, depth: int) -> Any:
    """Plain values with ``@`` references replaced; anything that would be evaluated is refused."""
    if depth > _MAX_REFERENCES:
        raise InputError(f"the references in {path} go round in a circle")
    if isinstance(value, dict):
        return {name: _resolve(part, document, path, depth + 1) for name, part in value.items()}
    if isinstance(value, list):
        return [_resolve(part, document, path, depth + 1) for part in value]
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise InputError(
            f"the network in {path} contains {value!r}, which MONAI would run as code or read from another file; "
            "write the plain value there"
        )
    if isinstance(value, str) and value.startswith("@"):
        found: Any = document
        for part in value[1:].replace("#", "::").split("::"):
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, dict) and part in found:
                found = found[part]
            else:
                raise InputError(f"{path} refers to {value!r}, which it does not define")
        return _resolve(found, document, path, depth + 1)
    return value


def _build(definition: dict[str, Any], path: Path) -> nn.Module:
    require("monai.networks.nets", "segment")
    target = definition.get("_target_")
    if not isinstance(target, str):
        raise InputError(f"the network in {path} has no _target_; name a class of monai.networks.nets")
    home, _, name = target.rpartition(".")
    if home and home != "monai.networks" and not home.startswith("monai.networks."):
        raise InputError(f"the network in {path} is {target!r}; only classes of monai.networks are built from a file")
    try:
        kind = getattr(importlib.import_module(home or "monai.networks.nets"), name, None)
    except ImportError as error:
        raise InputError(f"the network in {path} is {target!r}, which this MONAI does not have: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"the network in {path} is {target!r}, which is no network of this MONAI; check the version")
    arguments = {key: value for key, value in definition.items() if not key.startswith("_")}
    if '"_target_"' in json.dumps(arguments):
        raise InputError(f"the network in {path} is made of further objects; only plain arguments are supported")
    try:
        with torch.random.fork_rng(devices=[]):
            return kind(**arguments)
    # Constructors check their arguments each in their own way.
    except Exception as error:
        raise InputError(f"MONAI cannot build {target} from {path}: {type(error).__name__}: {brief(error)}") from error


def _own_window(document: dict[str, Any]) -> SlidingWindow | None:
    """The bundle's sliding window where it is stated in plain numbers."""
    inferer = document.get("inferer")
    if not isinstance(inferer, dict):
        return None
    size, overlap = inferer.get("roi_size"), inferer.get("overlap", 0.25)
    if not isinstance(size, list) or not all(isinstance(axis, int) and axis > 0 for axis in size):
        return None
    mode = inferer.get("mode", "constant")
    plain = isinstance(overlap, int | float) and mode in ("constant", "gaussian")
    return SlidingWindow(tuple(size), float(overlap), mode) if plain else SlidingWindow(tuple(size))
