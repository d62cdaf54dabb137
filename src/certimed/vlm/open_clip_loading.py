"""Models of open_clip by their text tower: a CLIP's own, CoCa's, or a BERT of the transformers library."""

from __future__ import annotations

from pathlib import Path

from certimed.errors import InputError, require
from certimed.models.sources import resolve_folder
from certimed.vlm.biomedclip import BertOpenClip
from certimed.vlm.open_clip_models import WEIGHTS, OpenClip, OpenClipAdapter, read_config


def load_open_clip(reference: str, name: str) -> OpenClipAdapter:
    """An open_clip model with a CLIP, CoCa or BERT text tower: a local folder, a hub name, or a training's output.

    Args:
        reference: a folder or hub name, or ``ARCHITECTURE:CHECKPOINT`` (open_clip's ``epoch_N.pt``), prepared as
            open_clip prepares images for that architecture.
        name: how the user asked for the model.

    Raises:
        InputError: the reference cannot be resolved, or a file is missing or asks for something not supported.
        ModelError: the weights do not fit or cannot be read safely.
        MissingExtraError: open_clip is not installed.
    """
    library = require("open_clip", "vlm")
    architecture, colon, checkpoint = reference.partition(":")
    if colon and not Path(reference).is_dir():
        found, file = library.get_model_config(architecture), Path(checkpoint).expanduser()
        if found is None:
            raise InputError(
                f"open_clip has no architecture {architecture!r:.80}; use a name of open_clip.list_models(), as "
                "given to the training by --model"
            )
        if found["text_cfg"].get("hf_model_name"):
            raise InputError(
                f"{architecture} has a text tower of transformers, whose files a checkpoint does not hold; put "
                "open_clip_config.json, tokenizer and weights into one folder: open_clip:FOLDER"
            )
        return OpenClip(name, file.parent, {"model_cfg": found, "preprocess_cfg": {}}, file)
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
