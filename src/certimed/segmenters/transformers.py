"""Semantic segmentation models of transformers, e.g. SegFormer; logits are enlarged to the size of the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError, ModelError, require
from certimed.segmenters.adapter import SegmentationModel
from certimed.vlm.sources import brief, fingerprint, read_json, resolve_folder

_WEIGHTS = ("model.safetensors", "model*.safetensors", "pytorch_model.bin")


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
        settings: of :class:`SegmentationModel`: mean, std, window, multiple_of.

    Raises:
        InputError: the folder lacks a file, or mean and std are nowhere stated. ModelError: unusable weights.
    """
    if output not in (None, "logits"):
        raise InputError(f"output={output!r}: semantic segmentation models of transformers return logits; leave it out")
    folder = resolve_folder(reference, _WEIGHTS)
    config = read_json(folder / "config.json", "the architecture")
    library = require("transformers", "segment")
    try:
        model, report = library.AutoModelForSemanticSegmentation.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    # Model constructors raise whatever their parsing trips over.
    except Exception as error:
        raise ModelError(
            f"{folder} is no semantic segmentation model transformers can load ({type(error).__name__}: {brief(error)})"
        ) from error
    absent = sorted(report.get("missing_keys", ())) + sorted(map(str, report.get("mismatched_keys", ())))
    if absent:
        raise ModelError(
            f"the weights in {folder} lack {len(absent)} tensors of {type(model).__name__} (e.g. {absent[0]}), which "
            "would be random; use a checkpoint fine-tuned for segmentation"
        )
    return SegmentationModel(
        _FullSizeLogits(model),
        num_classes=int(model.config.num_labels),
        output="logits",
        in_channels=int(getattr(model.config, "num_channels", 3)),
        name=type(model).__name__,
        model_id=fingerprint(config, model.state_dict()),
        **(_normalisation(folder, settings) | settings),
    )


def _normalisation(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if "mean" in settings and "std" in settings:
        return {}
    path = folder / "preprocessor_config.json"
    config = read_json(path, "mean and std (or state both)")
    if not config.get("do_normalize", True):
        return {"mean": 0.0, "std": 1.0}
    if "image_mean" not in config or "image_std" not in config:
        raise InputError(f"{path} has no image_mean and image_std; state mean and std")
    return {"mean": config["image_mean"], "std": config["image_std"]}
