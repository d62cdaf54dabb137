"""Classifiers of torchvision: by name with its own weights or a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.classifiers.checkpoints import filled
from certimed.classifiers.model import ClassificationModel
from certimed.classifiers.preparation import confirm
from certimed.errors import InputError, require
from certimed.models.normalisation import Normalisation, choose
from certimed.models.sources import brief
from certimed.models.weights import read_weights
from certimed.vlm.preprocessing import Preprocess

_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_CLASSES = 1000
# Their initialisation takes minutes, and every tensor is replaced.
_SCALED = (
    "{} scales its input once more inside (transform_input), as torchvision's own weights need it; one that was "
    "trained without it gives wrong answers here"
)
_OPTIONS: dict[str, dict[str, Any]] = {name: {"init_weights": False} for name in ("googlenet", "inception_v3")}


def load_torchvision(reference: str, name: str, **settings: Any) -> ClassificationModel:
    """A classifier of torchvision.

    Images are prepared as torchvision prepares them for its published weights of that name; a checkpoint does not say
    it otherwise, so ``notes`` does. Classes and channels are those of the weights.

    Args:
        reference: ``NAME`` (with its published weights) or ``NAME:CHECKPOINT`` (safetensors, or what a training loop
            saved, torchvision's own included).
        name: how the user asked for the model.
        settings: size, normalise, part.

    Raises:
        InputError: no such model, or its weights cannot be had. ModelError: weights that do not fit.
        MissingExtraError: torchvision is not installed.
    """
    models = require("torchvision", "vlm").models
    architecture, _, checkpoint = reference.partition(":")
    if architecture not in models.list_models(module=models):
        near = models.list_models(module=models, include=f"*{architecture}*")[:3]
        raise InputError(
            f"torchvision has no classifier {architecture!r:.80}" + (f"; near it: {', '.join(near)}" if near else "")
        )
    published = models.get_model_weights(architecture).DEFAULT
    file = Path(checkpoint).expanduser() if checkpoint else _fetched(published)
    size, options = settings.pop("size", None), dict(_OPTIONS.get(architecture, {}))
    if size is not None and architecture.startswith("vit_"):
        if size[0] != size[1]:
            raise InputError(f"--size {size[0]}x{size[1]}: {architecture} takes square images")
        options["image_size"] = size[0]
    builder: Any = models.get_model_builder(architecture)
    build = partial(_built, builder, options)
    network, done, _, channels = filled(
        build,
        read_weights(file, settings.pop("part", None)),
        ends=_ends,
        defaults=(_CLASSES, 3),
        names=("num_classes", ""),
        aside=_AUXILIARY,
    )
    transform = published.transforms()
    own = Normalisation(tuple(transform.mean), tuple(transform.std))
    chosen = choose(settings, channels, stored=(done.mean, done.std), own=own)
    prepared = _as_published(transform, channels) if size is None else {"input_shape": (channels, *size)}
    notes = (*done.notes, *chosen.notes)
    if checkpoint and hasattr(network, "transform_input"):
        notes += (f"{file.name}: {_SCALED.format(architecture)}",)
    if size is None and checkpoint:
        notes += (
            f"{file.name}: images are prepared as for torchvision's own {architecture}, shorter edge "
            f"{prepared['edge']}, crop {prepared['input_shape'][1]}; give --size where yours was trained on images "
            "resized otherwise",
        )
    model = ClassificationModel(
        network,
        class_names=None if checkpoint else published.meta["categories"],
        name=name,
        configuration={"library": "torchvision", "architecture": architecture, "options": options},
        libraries=("torchvision", "safetensors"),
        **(chosen.settings | {"notes": notes} | prepared),
    )
    if size is None:
        confirm(
            Preprocess(**(vars(model.preparation) | {"mean": own.mean, "std": own.std})),
            "rgb",
            transform,
            f"torchvision's preparation for {architecture}",
        )
    return model


def _as_published(transform: Any, channels: int) -> dict[str, Any]:
    """How torchvision prepares images for its published weights, in the words of a model's arguments."""
    crop, edge = int(transform.crop_size[0]), int(transform.resize_size[0])
    return {
        "input_shape": (channels, crop, crop),
        "resize": "shortest",
        "edge": edge,
        "interpolation": transform.interpolation.value,
        "crop_offset": "round",
    }


def _built(builder: Any, options: dict[str, Any], **more: Any) -> nn.Module:
    network: nn.Module = builder(weights=None, **options, **more)
    # Networks with auxiliary heads; what these answer is training's alone.
    for part in ("AuxLogits", "aux1", "aux2"):
        if getattr(network, part, None) is not None:
            setattr(network, part, None)
            network.aux_logits = False  # type: ignore[assignment]
    if hasattr(network, "transform_input"):
        network.transform_input = True  # type: ignore[assignment]  # as torchvision's own, from which one fine-tunes
    return network


def _ends(network: nn.Module) -> tuple[str, str]:
    """Names of the weights of head and first layer: the last with a row a class, and the first convolution."""
    kinds = (nn.Linear, nn.Conv2d)
    layers = [(f"{name}.weight", part) for name, part in network.named_modules() if isinstance(part, kinds)]
    head = next(name for name, part in reversed(layers) if len(part.weight) == _CLASSES)
    return head, next(name for name, part in layers if isinstance(part, nn.Conv2d))


def _fetched(published: Any) -> Path:
    """The file of published weights in torch's cache, downloaded where it is not there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(published.url).name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                published.url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights {published} cannot be fetched ({type(error).__name__}: {brief(error)}); download "
                f"{published.url} and give the file: torchvision:NAME:FILE"
            ) from error
    return file
