"""Networks of segmentation_models_pytorch: a folder of ``save_pretrained``, or a checkpoint with its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.errors import InputError, ModelError, require
from certimed.models.fitting import fit, unwrapped
from certimed.models.normalisation import choose
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import Weights, find_weights, read_weights
from certimed.segmenters.adapter import SegmentationModel, check_output, required_output

_LIBRARY = "segmentation_models_pytorch"
_HEAD = "segmentation_head.0.weight"
_ACTIVATIONS = {None: "logits", "identity": "logits", "softmax2d": "probabilities", "sigmoid": "binary probability"}
_FILES = ("model.safetensors", "pytorch_model.bin")
_AUXILIARY = ("classification_head.",)
_SIZES = 32  # five halvings; deeper encoders are not in the library


def load_smp(reference: str, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """``FOLDER_OR_ID`` (:func:`smp_folder`) or ``ARCH:ENCODER:CHECKPOINT`` (:func:`smp_checkpoint`)."""
    parts = reference.split(":", 2)
    if len(parts) == 3 and not Path(reference).is_dir():
        return smp_checkpoint(*parts, output=required_output(output, "a checkpoint"), **settings)
    return smp_folder(reference, output=output, **settings)


def smp_folder(reference: str, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """A network written by the library's ``save_pretrained`` (config.json and model.safetensors), or its hub name.

    The output's meaning follows from the folder's ``activation``; an ``output`` that contradicts it is refused.

    Args:
        reference: folder or ``ORG/NAME``.
        output: optional statement, checked.
        settings: normalise, part; and of :class:`SegmentationModel`: mean, std, window. A folder does not say how
            images were normalised in training, so without them the model carries a warning.

    Raises:
        InputError, ModelError: the folder lacks a file, or its content does not fit together.
    """
    folder = resolve_folder(reference, _FILES)
    config = read_json(folder / "config.json", "the architecture")
    name = config.pop("_model_class", None)
    if not isinstance(name, str):
        raise InputError(f"{folder / 'config.json'} names no _model_class; save the network with save_pretrained")
    stated = _stated_output(config, folder)
    if output is not None and check_output(output) != stated:
        raise InputError(f"output={output!r} contradicts {folder / 'config.json'}, which says {stated!r}; leave it out")
    # The image-level head gives no mask, and is left out.
    config |= {"encoder_weights": None} | ({"aux_params": None} if config.get("aux_params") else {})
    weights = read_weights(
        find_weights(folder, _FILES, "save the network with save_pretrained"), settings.pop("part", None)
    )
    return _adapt(_build(name, config), name, config, weights, stated, settings)


def smp_checkpoint(
    architecture: str, encoder: str, checkpoint: str | Path, *, output: str, **settings: Any
) -> SegmentationModel:
    """A network from a checkpoint file; classes and channels are read from the weights' shapes.

    Args:
        architecture: class of the library, e.g. ``"Unet"``, ``"UnetPlusPlus"``, ``"DeepLabV3Plus"``.
        encoder: its name in the library, e.g. ``"resnet34"``.
        checkpoint: safetensors, or a PyTorch file with the state dict.
        output: what the network returns; a checkpoint does not say.
        settings: as of :func:`smp_folder`. Buffers ``mean`` and ``std`` beside the network, as Lightning modules keep
            them, are used unless something is stated.

    Raises:
        InputError: an unknown architecture or encoder. ModelError: weights of another architecture.
    """
    check_output(output)
    path = Path(checkpoint).expanduser()
    weights = read_weights(path, settings.pop("part", None))
    config: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": None}
    network = _build(architecture, config)
    state, _, _ = unwrapped(weights, network.state_dict())
    if _HEAD not in state:
        names = ", ".join(list(weights.tensors)[:3])
        raise ModelError(
            f"{path} has no {_HEAD}, so it is no checkpoint of {_LIBRARY} (it holds {names}, ...); check the file"
        )
    shape = {"classes": int(state[_HEAD].shape[0]), "in_channels": _input_channels(network, state)}
    if shape != {"classes": 1, "in_channels": 3}:
        network = _build(architecture, config | shape)
    return _adapt(network, architecture, config | shape, weights, output, settings)


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    library = require(_LIBRARY, "segment")
    kinds = [kind for kind in vars(library).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    known = {kind.__name__.lower(): kind for kind in kinds}
    if name.lower() not in known:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"architecture {name!r} is not in {_LIBRARY}; use one of {names}")
    try:
        with torch.random.fork_rng(devices=[]):
            return known[name.lower()](**config)
    # The library raises KeyError for encoders, ValueError and TypeError for settings.
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{_LIBRARY} cannot build {name} from {config}: {brief(error)}") from error


def _input_channels(network: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """Channels of the encoder's first convolution, as the checkpoint has it."""
    encoder: Any = network.encoder
    first = next(name for name, weight in encoder.named_parameters() if weight.ndim == 4)
    key = f"encoder.{first}"
    if key not in state:
        raise ModelError(f"the checkpoint has no {key}; its encoder is another one than the one named")
    return int(state[key].shape[1])


def _stated_output(config: dict[str, Any], folder: Path) -> str:
    activation, classes = config.get("activation"), int(config.get("classes", 1))
    kind = _ACTIVATIONS.get(activation) if activation is None or isinstance(activation, str) else None
    if kind == "logits" and classes == 1:
        return "binary logit"
    if kind is None or (kind == "binary probability") != (classes == 1):
        raise InputError(
            f"{folder / 'config.json'} has activation {activation!r} with {classes} classes, which gives no single "
            "class for a pixel; save the network without an activation"
        )
    return kind


def _adapt(
    network: nn.Module, name: str, config: dict[str, Any], weights: Weights, output: str, settings: dict[str, Any]
) -> SegmentationModel:
    advice = "check architecture, encoder, channels and classes"
    filled = fit(network, weights, advice=advice, aside=_AUXILIARY, normalisation=True)
    channels, classes, encoder = (
        int(config.get("in_channels", 3)),
        int(config.get("classes", 1)),
        config.get("encoder_name"),
    )
    chosen = choose(
        settings,
        channels,
        stored=(filled.mean, filled.std),
        encoder=lambda: _encoder_parameters(str(encoder)),
        hint=f"{Path(weights.source).name} is a network of {_LIBRARY}",
    )
    return SegmentationModel(
        network,
        num_classes=2 if classes == 1 else classes,
        output=output,
        in_channels=channels,
        multiple_of=_SIZES,
        name=f"{name} ({encoder})",
        configuration={"library": _LIBRARY, "class": type(network).__name__, **config},
        libraries=(_LIBRARY, "timm", "torchvision", "safetensors"),
        **(settings | chosen.settings | {"notes": (*filled.notes, *chosen.notes)}),
    )


def _encoder_parameters(encoder: str) -> dict[str, Any]:
    """The preparation the encoder's published weights were trained with; the library may fetch it from the hub."""
    try:
        found: dict[str, Any] = require(f"{_LIBRARY}.encoders", "segment").get_preprocessing_params(encoder)
    # KeyError and ValueError of the library, and the hub client's own errors.
    except Exception as error:
        raise InputError(
            f"the normalisation of encoder {encoder!r} cannot be looked up ({type(error).__name__}: {brief(error)}); "
            "state normalise='imagenet' or mean and std"
        ) from error
    return found
