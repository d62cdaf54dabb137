"""Models of open_clip by their text tower: a CLIP's own, or a BERT of the transformers library."""

from __future__ import annotations

from certimed.errors import InputError, require
from certimed.models.sources import resolve_folder
from certimed.vlm.biomedclip import BertOpenClip
from certimed.vlm.open_clip_models import WEIGHTS, OpenClip, OpenClipAdapter, read_config


def load_open_clip(reference: str, name: str) -> OpenClipAdapter:
    """An open_clip model from a local folder or a hub name, with a CLIP or a BERT text tower.

    Raises:
        InputError: the reference cannot be resolved, or a file is missing or asks for something not supported.
        ModelError: the weights do not fit or cannot be read safely.
        MissingExtraError: open_clip is not installed.
    """
    require("open_clip", "vlm")
    folder = resolve_folder(reference, WEIGHTS)
    if read_config(folder)["model_cfg"]["text_cfg"].get("hf_model_name"):
        return BertOpenClip(name, folder)
    return OpenClip(name, folder)


def load_biomedclip(reference: str, name: str) -> BertOpenClip:
    """BiomedCLIP from the hub or a local folder.

    Raises:
        InputError: the reference cannot be resolved, a file is missing, or the text tower is not a BERT.
        ModelError: the weights do not fit or cannot be read safely.
        MissingExtraError: open_clip or transformers is not installed.
    """
    require("open_clip", "vlm")
    require("transformers", "vlm")
    folder = resolve_folder(reference, WEIGHTS)
    if not read_config(folder)["model_cfg"]["text_cfg"].get("hf_model_name"):
        raise InputError(f"the model in {folder} has no BERT text tower; load it as open_clip:{reference}")
    return BertOpenClip(name, folder)
