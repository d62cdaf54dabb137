"""Classifiers of timm: by name with its own weights or a checkpoint, or a folder that timm's own saving writes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

from certimed.classifiers.checkpoints import filled
from certimed.classifiers.model import ClassificationModel
from certimed.classifiers.preparation import confirm
from certimed.errors import InputError, require
from certimed.models.normalisation import Normalisation, choose
from certimed.models.sources import read_json, resolve_folder
from certimed.models.weights import find_weights, read_weights
from certimed.vlm.preprocessing import Preprocess

_FILES = ("model.safetensors", "pytorch_model.bin")
_MODES: dict[str, Literal["exact", "shortest"]] = {"center": "shortest", "squash": "exact"}
_PREPARATION = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def load_timm(reference: str, name: str, **settings: Any) -> ClassificationModel:
    """A classifier of timm.

    Size, crop, interpolation, mean and std are those of the model's ``pretrained_cfg``, classes and channels those of
    the weights.

    Args:
        reference: ``NAME`` (with its published weights), ``NAME:CHECKPOINT`` (safetensors, or what a training loop
            saved), or a folder or hub name with timm's config.json.
        name: how the user asked for the model.
        settings: size, normalise, part.

    Raises:
        InputError: no such model or folder, or a preparation that is no resize and crop.
        ModelError: weights that do not fit.
        MissingExtraError: timm is not installed.
    """
    library = require("timm", "vlm")
    architecture, _, checkpoint = reference.partition(":")
    if checkpoint:
        config, options = _published(library, architecture), {}
        file, labels = Path(checkpoint).expanduser(), None
    else:
        is_folder = Path(reference).expanduser().is_dir() or "/" in reference
        hub = reference if is_folder else _published(library, reference).get("hf_hub_id")
        if not hub:
            raise InputError(
                f"timm has no published weights for {reference!r}; give yours: timm:{reference}:CHECKPOINT"
            )
        folder = resolve_folder(str(hub), _FILES)
        document = read_json(folder / "config.json", "the architecture")
        architecture = str(document.get("architecture"))
        config = {**_published(library, architecture), **document.get("pretrained_cfg", {})}
        options, labels = dict(document.get("model_args") or {}), document.get("label_names")
        options |= {key: document[key] for key in ("num_classes", "global_pool") if document.get(key)}
        file = find_weights(folder, _FILES, "add the weights published with config.json")
    return _model(library, architecture, config, options, file, labels, name, settings)


def _published(library: Any, architecture: str) -> dict[str, Any]:
    """What timm says about a model."""
    if not library.is_model(architecture):
        near = library.list_models(f"*{architecture.partition('.')[0]}*")[:3]
        raise InputError(
            f"timm {library.__version__} has no model {architecture!r:.80}"
            + (f"; near it: {', '.join(near)}" if near else "")
            + "; a folder or hub name is written timm:FOLDER or timm:ORG/NAME"
        )
    found = library.get_pretrained_cfg(architecture)
    return {} if found is None else {**found.to_dict()}


def _model(
    library: Any,
    architecture: str,
    config: dict[str, Any],
    options: dict[str, Any],
    file: Path,
    labels: Any,
    name: str,
    settings: dict[str, Any],
) -> ClassificationModel:
    size = settings.pop("size", None)
    if size is not None and config.get("fixed_input_size"):
        options["img_size"] = size
    weights = read_weights(file, settings.pop("part", None))
    head, first = (_first(config.get(key)) for key in ("classifier", "first_conv"))
    if head is None or first is None:
        raise InputError(f"timm does not say where {architecture} has its head; load it in code: python:MODULE:FACTORY")
    build = partial(library.create_model, architecture, pretrained=False, **options)
    defaults = (int(options.get("num_classes", config.get("num_classes", 1000))), int(options.get("in_chans", 3)))
    network, done, classes, channels = filled(
        build,
        weights,
        ends=lambda _: (f"{head}.weight", f"{first}.weight"),
        defaults=defaults,
        names=("num_classes", "in_chans"),
    )
    data = library.data.resolve_data_config(pretrained_cfg=config)
    own = Normalisation(tuple(data["mean"]), tuple(data["std"]))
    fits = len(own.mean) in (1, channels)
    hint = None if fits else f"{file.name} takes {channels} channels where timm's {architecture} takes {len(own.mean)}"
    chosen = choose(settings, channels, stored=(done.mean, done.std), own=own if fits else None, hint=hint)
    prepared = {"input_shape": (channels, *size)} if size is not None else _prepared(architecture, data, channels)
    model = ClassificationModel(
        network,
        class_names=labels if isinstance(labels, list) and len(set(labels)) == classes else None,
        name=name,
        configuration={"library": "timm", "architecture": architecture.partition(".")[0], "options": options},
        libraries=("timm", "torchvision", "safetensors"),
        **(chosen.settings | {"notes": (*done.notes, *chosen.notes)} | prepared),
    )
    if size is None and fits:
        confirm(
            Preprocess(**(vars(model.preparation) | {"mean": own.mean, "std": own.std})),
            "rgb",
            library.data.create_transform(**data, is_training=False),
            f"timm's preparation for {architecture}",
        )
    return model


def _prepared(architecture: str, data: dict[str, Any], channels: int) -> dict[str, Any]:
    """Arguments of :class:`ClassificationModel` for timm's evaluation transform."""
    _, height, width = data["input_size"]
    mode = data.get("crop_mode") or "center"
    edges = {math.floor(side / data["crop_pct"]) for side in (height, width)}
    if mode not in _MODES or len(edges) > 1:
        raise InputError(
            f"timm prepares images for {architecture} by crop mode {mode!r} to {height}x{width}, which is not "
            f"supported; give --size {height}x{width} to resize both edges"
        )
    return {
        "input_shape": (channels, height, width),
        "resize": _MODES[mode],
        "edge": edges.pop(),
        "interpolation": data["interpolation"],
        "crop_offset": "round",
    }


def _first(value: Any) -> str | None:
    return value[0] if isinstance(value, list | tuple) and value else value or None
