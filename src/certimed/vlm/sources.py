"""Where weights come from: a local folder or a hub name made into one, read without ever running code from a file."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certimed.errors import InputError, ModelError, require

_CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")


def looks_like_path(reference: str) -> bool:
    """Whether a reference is written as a folder and not as a hub name ``ORG/NAME``."""
    return reference.startswith(("/", ".", "~")) or "\\" in reference or reference.count("/") > 1


def resolve_folder(reference: str, weights: Sequence[str]) -> Path:
    """The local folder of a model, downloaded from the Hugging Face hub first if the reference is a hub name.

    Args:
        reference: an existing folder, or ``ORG/NAME`` on the hub.
        weights: file patterns of the weights, best first; only the first that exists is downloaded.

    Raises:
        InputError: no such folder, or the hub cannot be reached or has no such model.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{reference} is a file, but a model is a folder; give the folder that holds its config.json")
    if looks_like_path(reference):
        raise InputError(f"there is no folder {reference}; check the path of the model")
    hub = require("huggingface_hub", "vlm")
    try:
        path = Path(hub.snapshot_download(reference, allow_patterns=list(_CONFIG_PATTERNS)))
        for pattern in weights:
            path = Path(hub.snapshot_download(reference, allow_patterns=[*_CONFIG_PATTERNS, pattern]))
            if any(path.glob(pattern)):
                break
    # The hub client raises OSError, ValueError and its HTTP library's own errors, which differ between versions.
    except Exception as error:
        raise InputError(
            f"{reference} is neither a local folder nor could it be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {brief(error)}); check the name and the connection, or download the "
            "model on a connected machine and give its folder"
        ) from error
    return path


def read_json(path: Path, purpose: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: the file is missing or does not hold a JSON object.
    """
    if not path.is_file():
        raise InputError(f"the model folder {path.parent} has no {path.name}, which holds {purpose}; add that file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); download the model's {path.name} again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}, not an object; download it again")
    return content


@contextmanager
def quiet_build() -> Iterator[None]:
    """While a model is built: no bars and reports of the library, and no draw from the global random generator."""
    logging = require("transformers.utils.logging", "vlm")
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(family: Any, source: str | None, place: Path, **options: Any) -> Any:
    """A transformers model with every weight in place: what the library only warns of is refused here.

    Args:
        family: the model class, e.g. ``transformers.CLIPModel``.
        source: local folder, or None when ``options`` bring ``config`` and ``state_dict``.
        place: where the weights come from, for the messages.
        options: passed to ``from_pretrained``.

    Raises:
        ModelError: weights are missing, of another size, damaged, or would run code.
    """
    try:
        with quiet_build():
            model, info = family.from_pretrained(
                source, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    # transformers raises OSError, ValueError, RuntimeError, and the errors of torch.load and safetensors.
    except Exception as error:
        raise ModelError(
            f"the {family.__name__} weights in {place} cannot be loaded ({type(error).__name__}: {brief(error)}); "
            "download the model again, with weights as safetensors or as a plain state dict"
        ) from error
    # Entries are names, or tuples that begin with one, depending on the version.
    mismatched = sorted(entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"])
    if mismatched:
        wanted = tuple(model.get_parameter(mismatched[0]).shape)
        raise ModelError(
            f"the weights in {place} do not fit their configuration: {mismatched[0]} has another size than {wanted}, "
            "which is asked for; use the configuration published with these weights"
        )
    missing = sorted({name for name, _ in model.named_parameters()}.intersection(info["missing_keys"]))
    if missing:
        raise ModelError(
            f"the weights in {place} lack {len(missing)} tensors that a {family.__name__} of this configuration needs, "
            f"{missing[0]} among them; use the configuration published with these weights"
        )
    return model.float()


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a transformers tokenizer: one file, a BERT vocabulary, or a CLIP pair."""
    present = {
        name for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt") if (folder / name).is_file()
    }
    return bool(present & {"tokenizer.json", "vocab.txt"}) or {"vocab.json", "merges.txt"} <= present


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


def load_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` or PyTorch file; a file that would run code is refused unrun.

    Raises:
        ModelError: the file is unreadable, damaged, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(require("safetensors.torch", "vlm").load_file(str(path)))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, or is damaged, and was not opened because such a file can run code; use "
            "weights saved as safetensors or as a plain state dict"
        ) from error
    # safetensors raises an error of its own, torch RuntimeError, EOFError, OSError or zip errors.
    except (Exception, zipfile.BadZipFile) as error:
        raise ModelError(
            f"the weights {path} cannot be read ({type(error).__name__}: {brief(error)}); download them again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} does not hold a dictionary of tensors; give the model's plain state dict")
    return state


def fingerprint(configuration: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over configuration and weights: names sorted, with dtype, shape and bytes; independent of the device.

    Position indices are left out: they are no weights, and versions of the libraries differ on whether to store them.
    """
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True, default=str).encode())
    for name, tensor in sorted(state.items()):
        if name.endswith(("position_ids", "relative_position_index")):
            continue
        value = tensor.detach().cpu().contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        if value.numel():
            digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def vocabulary_digest(vocabulary: Mapping[str, int]) -> str:
    """Hex SHA-256 of a tokenizer's vocabulary, part of a model's configuration."""
    return hashlib.sha256(json.dumps(sorted(vocabulary.items())).encode()).hexdigest()


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


def brief(error: BaseException) -> str:
    """The first sentence of another library's error, to quote inside one of ours."""
    text = re.split(r"(?<=[.!?])\s|\n", str(error).strip())[0] or "no further message"
    return text if len(text) <= 160 else text[:160] + "..."
