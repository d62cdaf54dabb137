"""One word to name a model: ``load("hf:vinid/plip")``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path

import torch

from certimed.errors import InputError
from certimed.models.sources import looks_like_path, read_json
from certimed.vlm.protocol import VisionLanguageModel

BIOMEDCLIP = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
FORMS = (
    "hf:ORG/NAME or hf:FOLDER (transformers CLIP, such as hf:vinid/plip), open_clip:hf-hub:ORG/NAME or "
    "open_clip:FOLDER (such as open_clip:hf-hub:wisdomik/QuiltNet-B-32), biomedclip or biomedclip:FOLDER, "
    "medclip:FOLDER, demo, or a FOLDER in one of these formats"
)
# Family -> module and function; imported when asked for, so that no family pays for another's libraries.
_LOADERS = {
    "hf": ("transformers_clip", "load_transformers_clip"),
    "open_clip": ("open_clip_loading", "load_open_clip"),
    "biomedclip": ("open_clip_loading", "load_biomedclip"),
    "medclip": ("medclip", "load_medclip"),
}


def load(spec: str, device: str | torch.device = "cpu") -> VisionLanguageModel:
    """Load a frozen vision-language model.

    Args:
        spec: which model; one of the forms listed in :data:`FORMS`. A bare folder is recognised by its content.
        device: where to put it, e.g. ``"cuda"``.

    Returns:
        The model, in eval mode, without gradients; its ``name`` is ``spec``.

    Raises:
        InputError: the spec is of no known form, or its folder or hub name cannot be used.
        ModelError: the weights do not fit their configuration or cannot be read safely.
        MissingExtraError: the library of that model family is not installed.
    """
    family, reference = _parse(spec.strip())
    place = checked_device(device)
    if family == "demo":
        with resources.as_file(resources.files("certimed") / "assets" / "demo_clip") as folder:
            return _loader("hf")(str(folder), spec).to(place)
    return _loader(family)(reference, spec).to(place)


def _loader(family: str) -> Callable[[str, str], VisionLanguageModel]:
    module, function = _LOADERS[family]
    loader: Callable[[str, str], VisionLanguageModel] = getattr(import_module(f"certimed.vlm.{module}"), function)
    return loader


def _parse(spec: str) -> tuple[str, str]:
    """Family and reference of a spec."""
    if spec == "demo":
        return "demo", ""
    if spec == "biomedclip":
        return "biomedclip", BIOMEDCLIP
    family, colon, reference = spec.partition(":")
    if colon and family in _LOADERS:
        reference = reference.removeprefix("hf-hub:") if family in ("open_clip", "biomedclip") else reference
        if not reference:
            raise InputError(f"the model {spec!r} names no folder or hub model after the colon; use one of: {FORMS}")
        return family, reference
    folder = Path(spec).expanduser()
    if spec and folder.is_dir():
        return _recognise(folder), spec
    if looks_like_path(spec):
        raise InputError(f"there is no folder {spec}; check the path of the model")
    raise InputError(f"the model {spec!r} is of no known form; use one of: {FORMS}")


def _recognise(folder: Path) -> str:
    """Family of a local folder, from the files in it."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    if (folder / "config.json").is_file():
        kind = read_json(folder / "config.json", "the model's configuration").get("model_type")
        if kind == "clip":
            return "hf"
        if kind == "bert" and any((folder / name).is_file() for name in ("pytorch_model.bin", "model.safetensors")):
            return "medclip"
        raise InputError(
            f"the folder {folder} holds a model of type {kind!r}, which is not a known vision-language model; "
            f"use one of: {FORMS}"
        )
    if (folder / "pytorch_model.bin").is_file() and (folder / "bert").is_dir():
        return "medclip"
    raise InputError(
        f"the folder {folder} has neither config.json nor open_clip_config.json, so it is no model in a known "
        f"format; use one of: {FORMS}"
    )


def checked_device(device: str | torch.device) -> torch.device:
    """The device; InputError where PyTorch does not know it or does not see it here."""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not known to PyTorch; use 'cpu', 'cuda' or 'cuda:0'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} needs a CUDA GPU and PyTorch sees none here; use device='cpu'")
    return place
