"""Semantic segmentation models of transformers, e.g. SegFormer; logits are enlarged to the size of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError, ModelError, require
from certimed.models.fitting import load_pretrained, quiet_build
from certimed.models.normalisation import Normalisation, choose
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import find_weights, read_weights
from certimed.segmenters.adapter import SegmentationModel

WEIGHTS = ("model.safetensors", "model*.safetensors", "pytorch_model.bin", "pytorch_model*.bin")
FILES = ("model.safetensors", "pytorch_model.bin")
# Written by the library beside what it read: where from, and with which version.
NO_BEHAVIOUR = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id")


class _FullSizeLogits(nn.Module):
    """``x -> logits`` at the size of ``x``: bilinear, as the library's own post-processing does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(pixel_values=x).logits
        return functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def transformers_segmenter(reference: str, *, output: str | None = None, **settings: Any) -> SegmentationModel:
    """A semantic segmentation model by folder or hub name.

    Mean and std come from its ``preprocessor_config.json``; without that file they must be given.

    Args:
        reference: folder or ``ORG/NAME``.
        output: these models return logits; anything else is refused.
        settings: normalise; and of :class:`SegmentationModel`: mean, std, window, multiple_of.

    Raises:
        InputError: the folder lacks a file, or mean and std are nowhere stated. ModelError: unusable weights.
    """
    if output not in (None, "logits"):
        raise InputError(f"output={output!r}: semantic segmentation models of transformers return logits; leave it out")
    folder = resolve_folder(reference, WEIGHTS)
    config = read_json(folder / "config.json", "the architecture")
    library = require("transformers", "segment")
    try:
        built = library.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with quiet_build(), torch.device("meta"):
            family = type(library.AutoModelForSemanticSegmentation.from_config(built, trust_remote_code=False))
    # Model constructors raise whatever their parsing trips over.
    except Exception as error:
        raise ModelError(
            f"{folder} is no semantic segmentation model transformers can load ({type(error).__name__}: "
            f"{brief(error)}); use a folder of a model fine-tuned for segmentation"
        ) from error
    weights = read_weights(find_weights(folder, FILES, "save the model with save_pretrained"))
    model, filled = load_pretrained(family, built, weights, advice="use a checkpoint fine-tuned for segmentation")
    channels = int(getattr(model.config, "num_channels", 3))
    chosen = choose(settings, channels, own=own_normalisation(folder, "mean" in settings or "normalise" in settings))
    return SegmentationModel(
        _FullSizeLogits(model),
        num_classes=int(model.config.num_labels),
        output="logits",
        in_channels=channels,
        name=type(model).__name__,
        configuration={name: value for name, value in config.items() if name not in NO_BEHAVIOUR},
        state=filled.tensors,
        libraries=("transformers", "safetensors"),
        **(settings | chosen.settings | {"notes": (*filled.notes, *chosen.notes)}),
    )


def own_normalisation(folder: Path, stated: bool) -> Normalisation | None:
    """What the folder's image processor does, or None where it has none and the normalisation is stated."""
    path = folder / "preprocessor_config.json"
    if stated and not path.is_file():
        return None
    config = read_json(path, "mean and std (or state both)")
    order = "bgr" if config.get("do_flip_channel_order") else "rgb"
    if config.get("do_rescale", True) and abs(float(config.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        raise InputError(
            f"{path} scales grey levels by {config['rescale_factor']} and not to [0, 1]; state mean and std"
        )
    if not config.get("do_normalize", True):
        return Normalisation(channel_order=order)
    if "image_mean" not in config or "image_std" not in config:
        raise InputError(f"{path} has no image_mean and image_std; state mean and std")
    return Normalisation(tuple(config["image_mean"]), tuple(config["image_std"]), order)
