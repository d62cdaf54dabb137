"""Networks of segmentation_models_pytorch: a folder of ``save_pretrained``, or a checkpoint with its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from certimed.errors import InputError, ModelError, require
from certimed.segmenters.adapter import SegmentationModel, check_output
from certimed.segmenters.weights import fill, read_weights, without_prefix
from certimed.vlm.sources import brief, fingerprint, read_json, resolve_folder

_LIBRARY = "segmentation_models_pytorch"
_HEAD = "segmentation_head.0.weight"
_ACTIVATIONS = {None: "logits", "identity": "logits", "softmax2d": "probabilities", "sigmoid": "binary probability"}
_SIZES = 32  # five halvings; deeper encoders are not in the library


def smp_folder(reference: str, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """A network written by the library's ``save_pretrained`` (config.json and model.safetensors), or its hub name.

    The output's meaning follows from the folder's ``activation``; an ``output`` that contradicts it is refused.

    Args:
        reference: folder or ``ORG/NAME``.
        output: optional statement, checked.
        settings: of :class:`SegmentationModel`: mean, std, window.

    Raises:
        InputError, ModelError: the folder lacks a file, or its content does not fit together.
    """
    folder = resolve_folder(reference, ("model.safetensors", "pytorch_model.bin"))
    config = read_json(folder / "config.json", "the architecture")
    name = config.pop("_model_class", None)
    if not isinstance(name, str):
        raise InputError(f"{folder / 'config.json'} names no _model_class; save the network with save_pretrained")
    stated = _stated_output(config, folder)
    if output is not None and check_output(output) != stated:
        raise InputError(f"output={output!r} contradicts {folder / 'config.json'}, which says {stated!r}; leave it out")
    network = _build(name, config | {"encoder_weights": None})
    files = [folder / file for file in ("model.safetensors", "pytorch_model.bin") if (folder / file).is_file()]
    if not files:
        raise InputError(f"the model folder {folder} has no model.safetensors; save the network with save_pretrained")
    fill(network, read_weights(files[0]), str(files[0]))
    channels, classes = int(config.get("in_channels", 3)), int(config.get("classes", 1))
    return _adapt(network, name, config, stated, channels, classes, settings)


def smp_checkpoint(
    architecture: str, encoder: str, checkpoint: str | Path, *, output: str, **settings: Any
) -> SegmentationModel:
    """A network from a checkpoint file; classes and channels are read from the weights' shapes.

    Args:
        architecture: class of the library, e.g. ``"Unet"``, ``"UnetPlusPlus"``, ``"DeepLabV3Plus"``.
        encoder: its name in the library, e.g. ``"resnet34"``.
        checkpoint: safetensors, or a PyTorch file with the state dict.
        output: what the network returns; a checkpoint does not say.
        settings: of :class:`SegmentationModel`: mean, std, window. Mean and std default to 0 and 1: state those of your
            training.

    Raises:
        InputError: an unknown architecture or encoder. ModelError: weights of another architecture.
    """
    check_output(output)
    path = Path(checkpoint).expanduser()
    state = without_prefix(read_weights(path), _HEAD)
    if _HEAD not in state:
        raise ModelError(f"{path} has no {_HEAD}, so it is no checkpoint of {_LIBRARY}; check the file")
    config: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": None, "classes": int(state[_HEAD].shape[0])}
    network = _build(architecture, config)
    channels = _input_channels(network, state)
    if channels != 3:
        network = _build(architecture, config | {"in_channels": channels})
    fill(network, state, str(path))
    return _adapt(network, architecture, config, output, channels, config["classes"], settings)


def _build(name: str, config: dict[str, Any]) -> nn.Module:
    library = require(_LIBRARY, "segment")
    kinds = [kind for kind in vars(library).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    known = {kind.__name__.lower(): kind for kind in kinds}
    if name.lower() not in known:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"architecture {name!r} is not in {_LIBRARY}; use one of {names}")
    try:
        return known[name.lower()](**config)
    # The library raises KeyError for encoders, ValueError and TypeError for settings.
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{_LIBRARY} cannot build {name} from {config}: {brief(error)}") from error


def _input_channels(network: nn.Module, state: dict[str, Tensor]) -> int:
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
    network: nn.Module, name: str, config: dict[str, Any], output: str, channels: int, classes: int, settings: Any
) -> SegmentationModel:
    return SegmentationModel(
        network,
        num_classes=2 if classes == 1 else classes,
        output=output,
        in_channels=channels,
        multiple_of=_SIZES,
        name=f"{name} ({config.get('encoder_name')})",
        model_id=fingerprint({"library": _LIBRARY, "class": name, **config}, network.state_dict()),
        **settings,
    )
