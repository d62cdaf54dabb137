"""Tokenizers of the transformers library: from a local folder only, and what of them belongs to a model's identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from certimed.errors import InputError, require
from certimed.models.sources import brief

_PROBE = (
    "An H&E image  patch (40x) of Adenocarcinoma, grade 3; it's a \u00fcber-rare naevus &amp; 0.5 \u00b5m <b>deep</b>."
)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a transformers tokenizer: one file, a BERT vocabulary, SentencePiece, or a CLIP pair."""
    present = {
        name
        for name in ("tokenizer.json", "vocab.txt", "spiece.model", "vocab.json", "merges.txt")
        if (folder / name).is_file()
    }
    return bool(present & {"tokenizer.json", "vocab.txt", "spiece.model"}) or {"vocab.json", "merges.txt"} <= present


def load_tokenizer(folder: Path, model: str) -> Any:
    """A transformers tokenizer from a local folder, never from anywhere else.

    Raises:
        InputError: no tokenizer files, or unusable ones.
    """
    if not has_tokenizer(folder):
        missing = " and no ".join(name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file())
        raise InputError(
            f"the model folder {folder} has no tokenizer: no tokenizer.json, no vocab.txt, and no {missing}; "
            f"add the tokenizer files published with {model}"
        )
    transformers = require("transformers", "vlm")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    # Tokenizer constructors raise whatever their parsing trips over.
    except Exception as error:
        raise InputError(
            f"the tokenizer files in {folder} cannot be used ({type(error).__name__}: {brief(error)}); "
            f"replace them by the ones published with {model}"
        ) from error


def tokenizer_digest(vocabulary: Mapping[str, int], encode: Callable[[str], list[int]]) -> str:
    """Hex SHA-256 of a tokenizer, part of a model's identity: its vocabulary, and what it makes of a probing text.

    The probe tells apart what a vocabulary does not: merges, lower case, cleaning. It does not depend on versions of
    the library, as the text of a tokenizer file would.
    """
    return hashlib.sha256(json.dumps([sorted(vocabulary.items()), encode(_PROBE)]).encode()).hexdigest()


def special_ids(tokenizer: Any, folder: Path, begin: str, end: str) -> tuple[int, int, int]:
    """Ids of the begin, end and padding tokens of a transformers tokenizer.

    Args:
        tokenizer: the tokenizer.
        folder: where it comes from, for the message.
        begin, end: their names in transformers: ``"bos"`` and ``"eos"``, or ``"cls"`` and ``"sep"``.

    Raises:
        InputError: the tokenizer does not put exactly such a begin and end token around a text.
    """
    begin_id = getattr(tokenizer, f"{begin}_token_id", None)
    end_id = getattr(tokenizer, f"{end}_token_id", None)
    whole = list(tokenizer("a")["input_ids"])
    content = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    if begin_id is None or end_id is None or whole != [begin_id, *content, end_id]:
        raise InputError(
            f"the tokenizer in {folder} does not put a {begin} and an {end} token around a text (it makes {whole} of "
            f"'a'), as this text tower needs; use the tokenizer files published with the model"
        )
    pad_id = getattr(tokenizer, "pad_token_id", None)
    return int(begin_id), int(end_id), int(end_id if pad_id is None else pad_id)
