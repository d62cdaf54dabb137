"""One word to name a model: ``load("hf:vinid/plip")``."""

from __future__ import annotations

from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch

from certimed.errors import InputError
from certimed.models.device import checked_device
from certimed.models.forms import CLASSIFIERS
from certimed.models.sources import looks_like_path, read_json, resolve_folder
from certimed.vlm.protocol import VisionLanguageModel

BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
HUB_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""Patterns of the weights in a transformers repository, best first."""

# model_type of transformers -> module and class of the adapter.
_FAMILIES = {
    "clip": ("transformers_clip", "TransformersCLIP"),
    "siglip": ("transformers_siglip", "TransformersSiglip"),
}


_NAFLEX = "siglip2"  # fixed-resolution ones are of type siglip


def load(spec: str, device: str | torch.device = "cpu") -> VisionLanguageModel:
    """Load a frozen vision-language model.

    Args:
        spec: which model; a form of :data:`certimed.models.forms.CLASSIFIERS` that reads prompts, or ``demo``. A bare
            folder is recognised by its content.
        device: where to put it, e.g. ``"cuda"``.

    Returns:
        The model, in eval mode, without gradients; its ``name`` is ``spec``.

    Raises:
        InputError: the spec is of no known form, or its folder or hub name cannot be used.
        ModelError: the weights do not fit their configuration or cannot be read safely.
        MissingExtraError: the library of that model family is not installed.
    """
    prefix, reference = named(spec.strip(), prompted=True)
    place = checked_device(device)
    model: VisionLanguageModel
    if prefix == "demo":
        with resources.as_file(resources.files("certimed") / "assets" / "demo_clip") as folder:
            model = load_hugging_face(str(folder), spec)
    else:
        model = CLASSIFIERS.loader(prefix, prompted=True)(reference, spec)
    return model.to(place)


def load_hugging_face(reference: str, name: str) -> VisionLanguageModel:
    """A CLIP or SigLIP of transformers from a local folder or a hub name such as ``vinid/plip``.

    Raises:
        InputError: the reference cannot be resolved, or a file is missing or of another kind.
        ModelError: the weights do not fit or cannot be read safely.
        MissingExtraError: transformers is not installed.
    """
    folder = resolve_folder(reference, HUB_WEIGHTS)
    kind = read_json(folder / "config.json", "the model's configuration").get("model_type")
    if kind == _NAFLEX:
        raise InputError(
            f"the model in {folder} is a NaFlex model of SigLIP 2, whose input is a sequence of patches of any shape "
            "and no image of one size, so a radius would have no meaning; give a fixed-resolution SigLIP 2, e.g. "
            "hf:google/siglip2-base-patch16-224"
        )
    if kind not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise InputError(
            f"the model in {folder} reads no prompts certimed knows: its config.json says model_type {kind!r}; give a "
            f"folder or hub name of a transformers model of type {known}"
        )
    module, family = _FAMILIES[kind]
    adapter: Any = getattr(import_module(f"certimed.vlm.{module}"), family)
    model: VisionLanguageModel = adapter(name, folder)
    return model


def named(spec: str, *, prompted: bool = False) -> tuple[str, str]:
    """Prefix of the form, or ``"demo"``, and what it refers to.

    Args:
        prompted: whether the model has to read prompts.

    Raises:
        InputError: no such form, or no such folder; the sentence lists the forms.
    """
    if spec == "demo":
        return "demo", ""
    if spec == "biomedclip":
        return "biomedclip", BIOMEDCLIP
    found = CLASSIFIERS.split(spec)
    if found is not None:
        prefix, reference = found
        if prompted and not CLASSIFIERS.rows[prefix].prompted:
            raise CLASSIFIERS.refusal(spec, f"{spec!r} is a plain classifier, which reads no prompt", prompted=True)
        return prefix, reference.removeprefix("hf-hub:") if prefix in ("open_clip", "biomedclip") else reference
    folder = Path(spec).expanduser()
    if spec and folder.is_dir():
        return _recognise(folder, prompted), spec
    if looks_like_path(spec) and not folder.exists():
        raise InputError(f"there is no folder or file {spec}; check the path of the model")
    raise CLASSIFIERS.refusal(spec, prompted=prompted)


def _recognise(folder: Path, prompted: bool) -> str:
    """Form of a local folder, from the files in it."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    weights = any((folder / name).is_file() for name in ("pytorch_model.bin", "model.safetensors"))
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json", "the model's configuration")
        kind, classifies = config.get("model_type"), "ForImageClassification" in str(config.get("architectures"))
        if kind in _FAMILIES or (classifies and not prompted):
            return "hf"
        if kind == "bert" and weights:
            return "medclip"
        if "architecture" in config and not prompted:
            return "timm"
        raise CLASSIFIERS.refusal(
            str(folder), f"folder {folder} holds a model of type {kind!r}, which is not known", prompted=prompted
        )
    if weights and (folder / "bert").is_dir():
        return "medclip"
    raise CLASSIFIERS.refusal(
        str(folder),
        f"folder {folder} has neither config.json nor open_clip_config.json, so it is no model in a known format",
        prompted=prompted,
    )
