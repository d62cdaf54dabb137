"""Models of transformers: any image classifier, or what reads prompts, told apart by config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from certimed.classifiers.model import ClassificationModel
from certimed.classifiers.preparation import confirm
from certimed.classifiers.timm_models import load_timm
from certimed.errors import InputError, ModelError, require
from certimed.models.fitting import load_pretrained, quiet_build
from certimed.models.normalisation import choose
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import find_weights, read_weights
from certimed.vlm import VisionLanguageModel
from certimed.vlm.loading import HUB_WEIGHTS
from certimed.vlm.loading import load_hugging_face as load_prompted
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.transformers_clip import parse_preprocessing

_FILES = ("model.safetensors", "pytorch_model.bin")
_NO_BEHAVIOUR = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id")
_LARGE = 384  # from this size on, ConvNeXt's processor warps instead of cropping


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


def load_hugging_face(reference: str, name: str, **settings: Any) -> ClassificationModel | VisionLanguageModel:
    """A model of transformers by folder or hub name: an image classifier, else one that reads prompts.

    A classifier's preparation is its ``preprocessor_config.json``, its class names those of ``id2label``.

    Args:
        reference: folder or ``ORG/NAME``.
        name: how the user asked for the model.
        settings: normalise, for a classifier.

    Raises:
        InputError: a file is missing, or the preparation is no resize and crop. ModelError: unusable weights.
    """
    library = require("transformers", "vlm")
    folder = resolve_folder(reference, HUB_WEIGHTS)
    config = read_json(folder / "config.json", "the model's configuration")
    if config.get("model_type") == "timm_wrapper":
        return load_timm(str(folder), name, **settings)
    if settings.pop("size", None) is not None:
        raise InputError(f"--size: {name} states its own input size; leave --size out")
    if "ForImageClassification" not in str(config.get("architectures")):
        if settings:
            raise InputError(f"--normalise: {name} states its own normalisation; leave --normalise out")
        return load_prompted(reference, name)
    try:
        built = library.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        family = library.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(built)]
        # Of several classes (DeiT with and without a distilled head) the folder names its own.
        families = family if isinstance(family, tuple) else (family,)
        named = str(config["architectures"][0])
        family = next((one for one in families if one.__name__ == named), families[0])
        with quiet_build():
            processor = library.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    # Configurations fail each in their own way.
    except Exception as error:
        raise ModelError(
            f"{folder} is no image classifier transformers can load ({type(error).__name__}: {brief(error)}); use a "
            "folder that save_pretrained of model and image processor wrote"
        ) from error
    weights = read_weights(find_weights(folder, _FILES, "save the model with save_pretrained"))
    network, filled = load_pretrained(
        family, built, weights, advice="use a checkpoint fine-tuned for image classification"
    )
    preparation, order = _preparation(processor, folder)
    confirm(
        preparation,
        order,
        lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0],
        f"the image processor in {folder}",
    )
    own = {"mean": preparation.mean, "std": preparation.std, "channel_order": order}
    if settings:
        settings.setdefault("channel_order", order)
        own |= {key: value for key, value in choose(settings, preparation.channels).settings.items() if key != "notes"}
    return ClassificationModel(
        _Logits(network),
        input_shape=preparation.shape,
        class_names=_labels(network.config),
        resize=preparation.resize,
        edge=preparation.edge,
        crop_offset=preparation.crop_offset,
        interpolation=preparation.interpolation,
        name=name,
        configuration={key: value for key, value in config.items() if key not in _NO_BEHAVIOUR},
        state=filled.tensors,
        libraries=("transformers", "safetensors"),
        notes=filled.notes,
        **own,  # type: ignore[arg-type]
    )


def _preparation(processor: Any, folder: Path) -> tuple[Preprocess, str]:
    """What an image processor does, with the defaults of its class, and the channel order it hands on."""
    stated: dict[str, Any] = {**processor.to_dict()}
    order = "bgr" if stated.get("do_flip_channel_order") else "rgb"
    size = stated.get("size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    share = stated.get("crop_pct")
    if edge and share is not None:
        small = edge < _LARGE
        exact = {"height": edge, "width": edge}
        stated["size"] = {"shortest_edge": int(edge / share)} if small else exact
        stated |= {"do_center_crop": small, "crop_size": exact}
    if stated.get("do_normalize") is None or "image_mean" not in stated or stated["image_mean"] is None:
        stated |= {"do_normalize": False, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    stated["do_center_crop"] = bool(stated.get("do_center_crop"))
    try:
        return parse_preprocessing(stated), order
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the image processor in {folder} cannot be used ({type(error).__name__}: {brief(error)}); load the model "
            "in code of your own (python:MODULE:FACTORY)"
        ) from error


def _labels(config: Any) -> list[str] | None:
    """Class names in the order of the scores, or None where training gave them none."""
    labels = [str(config.id2label[index]) for index in sorted(config.id2label)]
    numbered = all(label == f"LABEL_{index}" for index, label in enumerate(labels))
    return None if numbered or len(set(labels)) < len(labels) else labels
