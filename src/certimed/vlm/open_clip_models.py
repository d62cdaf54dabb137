"""CLIP models in the open_clip hub format, such as QuiltNet (``wisdomik/QuiltNet-B-32``), or a local folder of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from certimed.errors import InputError, require
from certimed.models.fitting import fit, quiet_build, unwrapped
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import find_weights, read_weights
from certimed.vlm.adapter import Adapter, filled_up
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.protocol import Tokens
from certimed.vlm.tokenizers import has_tokenizer, load_tokenizer, special_ids, tokenizer_digest

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
_RESIZE: dict[str, Literal["shortest", "longest", "exact"]] = {
    "shortest": "shortest",
    "longest": "longest",
    "squash": "exact",
}


class OpenClipAdapter(Adapter):
    """What the open_clip models share: configuration, weights, vision tower and preprocessing."""

    libraries = ("open_clip_torch", "timm", "torchvision", "transformers", "tokenizers", "safetensors")

    def __init__(self, name: str, folder: Path, config: dict[str, Any] | None = None, file: Path | None = None) -> None:
        """Build the model that ``open_clip_config.json`` describes and fill it from the weights beside it.

        Args:
            name: how the user asked for the model.
            folder: holds open_clip_config.json and the weights.
            config, file: what a training's output lies without: the library's own configuration, and the checkpoint.

        Raises:
            InputError: a file is missing or asks for something that is not supported.
            ModelError: the weights do not fit or cannot be read safely.
        """
        config = config or read_config(folder)
        model = build_model(config["model_cfg"], folder)
        super().__init__(name, _preprocessing(config.get("preprocess_cfg", {}), model, folder))
        self.notes = _load_weights(model, folder, file)
        self.model: Any = model.float()
        self.model_config: dict[str, Any] = config["model_cfg"]
        self.embedding_dim = int(config["model_cfg"]["embed_dim"])
        self.logit_scale = math.exp(self.model.logit_scale.item())

    def image_features(self, x: Tensor) -> Tensor:
        """The library's own vision tower and projection."""
        features: Tensor = self.model.encode_image(x, normalize=False)
        return features


class OpenClip(OpenClipAdapter):
    """An open_clip model with CLIP's own causal text transformer, or CoCa's.

    CLIP's text features are computed from embeddings on the longest prompt's length: under the causal mask, tokens
    after the end-of-text token cannot matter. CoCa reads a class token behind the whole context, so its prompts are
    filled up with padding; its captioning decoder is loaded and not used.
    """

    def __init__(self, name: str, folder: Path, config: dict[str, Any] | None = None, file: Path | None = None) -> None:
        """Load from a local folder in the hub format; arguments and errors as the base class."""
        super().__init__(name, folder, config, file)
        _check_tower(self._tower, folder)
        self._encode, special, vocabulary = _open_clip_tokenizer(self.model_config["text_cfg"], folder)
        self.bos_id, self.eos_id, self.pad_id = special
        rows, self.token_dim = self._tower.token_embedding.weight.shape
        if max(vocabulary.values()) >= rows:
            raise InputError(
                f"the tokenizer of {folder} has {len(vocabulary)} tokens but its text tower only {rows}; correct "
                "hf_tokenizer_name or vocab_size in open_clip_config.json"
            )
        self.context_length = int(self._tower.context_length)
        configuration = {
            "family": "open_clip",
            "model": self.model_config,
            "special": special,
            "vocabulary": tokenizer_digest(vocabulary, self._encode),
        }
        self.freeze(configuration, self.model.state_dict())

    @property
    def _tower(self) -> Any:
        # Configurations with custom_text keep the tower apart; otherwise the model itself is the tower.
        return self.model.text if hasattr(self.model, "text") else self.model

    def content_ids(self, text: str) -> list[int]:
        """See the protocol; the text is cleaned as open_clip cleans it."""
        return self._encode(text)

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """See the protocol."""
        embeddings: Tensor = self._tower.token_embedding(ids)
        return embeddings

    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Positions, causal transformer, final norm, the end-of-text (or class) token, projection."""
        features: Tensor
        tower, length = self._tower, embeddings.shape[1]
        if _class_token(tower):
            ids, values = filled_up(self, embeddings, tokens, self.context_length)
            # The library's own masks of padding and class token, on our embeddings.
            hook = tower.token_embedding.register_forward_hook(lambda *_: values)
            try:
                pooled: Any = tower(ids)
            finally:
                hook.remove()
            features = pooled[0] if isinstance(pooled, tuple) else pooled
            return features
        x = embeddings + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        features = tower.ln_final(x)[torch.arange(len(x), device=x.device), tokens.last]
        projection = tower.text_projection
        if projection is not None:
            features = projection(features) if isinstance(projection, torch.nn.Linear) else features @ projection
        return features


def read_config(folder: Path) -> dict[str, Any]:
    """``open_clip_config.json``, checked for the parts every dual encoder has.

    Raises:
        InputError: the file is missing, damaged, or describes something that is not a CLIP-like dual encoder.
    """
    config = read_json(folder / "open_clip_config.json", "the open_clip model's configuration")
    model = config.get("model_cfg")
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
        raise InputError(
            f"{folder / 'open_clip_config.json'} has no model_cfg with embed_dim, vision_cfg and text_cfg, so it does "
            "not describe a CLIP model; download it again"
        )
    return config


def text_source(folder: Path, reference: str) -> Path:
    """Folder of a text tower's configuration: the model's own folder if it holds one, else what the reference names."""
    if (folder / "config.json").is_file():
        return folder
    return folder / reference if (folder / reference).is_dir() else resolve_folder(reference, ())


def build_model(model_config: dict[str, Any], folder: Path) -> Any:
    """The open_clip model of a configuration, with random weights and nothing downloaded but a text configuration.

    Raises:
        InputError: open_clip refuses the configuration.
    """
    module = require("open_clip.model", "vlm")
    config = copy.deepcopy(model_config)
    custom = config.pop("custom_text", False)
    text, vision = config["text_cfg"], config["vision_cfg"]
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
        text["hf_model_name"] = str(text_source(folder, text["hf_model_name"]))
        custom = True
    try:
        with quiet_build():
            if "multimodal_cfg" in config:
                return require("open_clip.coca_model", "vlm").CoCa(**config)
            return (module.CustomTextCLIP if custom else module.CLIP)(**config)
    # Whatever a constructor of open_clip, timm or transformers trips over in a configuration.
    except Exception as error:
        raise InputError(
            f"open_clip cannot build the model that {folder / 'open_clip_config.json'} describes "
            f"({type(error).__name__}: {brief(error)}); check the file, or install a newer open_clip_torch"
        ) from error


def _load_weights(model: torch.nn.Module, folder: Path, file: Path | None) -> tuple[str, ...]:
    """Fill the model from the folder's weights, or a file of them; returns the notes."""
    remedy = "add the weights published with open_clip_config.json"
    weights = read_weights(file or find_weights(folder, WEIGHTS, remedy))
    own = model.state_dict()
    # The plain names of a model whose text tower is kept apart.
    flat = {name.removeprefix("text."): value for name, value in own.items()}
    state, beside, notes = unwrapped(weights, own | flat)
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = require("open_clip.model", "vlm").convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in own and state[key].numel() == own[key].numel():
            state[key] = state[key].reshape(own[key].shape)
    named = replace(weights, tensors=state | beside, notes=notes)
    described = "open_clip_config.json" if file is None else "the architecture"
    return fit(model, named, advice=f"{described} and the weights do not belong together").notes


def _preprocessing(config: dict[str, Any], model: Any, folder: Path) -> Preprocess:
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    wanted = config.get("size", (height, width))
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)[-2:]
    mode = config.get("resize_mode", "shortest")
    if tuple(wanted) != (height, width):
        raise InputError(
            f"the preprocessing in {folder} makes images of {wanted} but the vision tower takes {(height, width)}; "
            "correct size in open_clip_config.json"
        )
    if mode not in _RESIZE or (height != width and mode != "squash") or config.get("fill_color", 0):
        raise InputError(
            f"the preprocessing in {folder} (resize_mode {mode!r}, size {wanted}, fill_color "
            f"{config.get('fill_color', 0)}) is not supported; square images with black padding are"
        )
    constants = require("open_clip.constants", "vlm")
    mean = config.get("mean") or getattr(model.visual, "image_mean", None) or constants.OPENAI_DATASET_MEAN
    std = config.get("std") or getattr(model.visual, "image_std", None) or constants.OPENAI_DATASET_STD
    return Preprocess(
        size=(int(height), int(width)),
        mean=_three(mean),
        std=_three(std),
        resize=_RESIZE[mode],
        interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        crop_offset="round",
    )


def _three(value: Any) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(float(v) for v in values) if len(values) == 3 else (float(values[0]),) * 3


def _check_tower(tower: Any, folder: Path) -> None:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None
    if not causal or (pool not in ("argmax", "eos") and not _class_token(tower)):
        raise InputError(
            f"the text tower in {folder} (pool type {pool!r}, {'causal' if causal else 'not causal'}) is not CLIP's "
            "causal transformer read at the end-of-text token; only such towers, CoCa's and BERT ones are supported"
        )


def _class_token(tower: Any) -> bool:
    return getattr(tower, "cls_emb", None) is not None


def _open_clip_tokenizer(
    text_config: dict[str, Any], folder: Path
) -> tuple[Callable[[str], list[int]], tuple[int, int, int], dict[str, int]]:
    """How to make ids of a text, the special ids, and the vocabulary."""
    if text_config.get("hf_tokenizer_name"):
        return hub_tokenizer(text_config, folder, ("bos", "eos"))
    tokenizer = require("open_clip.tokenizer", "vlm").SimpleTokenizer(**text_config.get("tokenizer_kwargs", {}))
    special = (int(tokenizer.sot_token_id), int(tokenizer.eot_token_id), 0)
    return lambda text: [int(i) for i in tokenizer.encode(text)], special, tokenizer.encoder


def hub_tokenizer(
    text_config: dict[str, Any], folder: Path, special: tuple[str, str]
) -> tuple[Callable[[str], list[int]], tuple[int, int, int], dict[str, int]]:
    """A transformers tokenizer as open_clip uses it: cleaning first. Returns encoder, special ids, vocabulary.

    Raises:
        InputError: tokenizer files are missing or unusable, or an option is not supported.
    """
    name = str(text_config.get("hf_tokenizer_name") or text_config["hf_model_name"])
    options = dict(text_config.get("tokenizer_kwargs", {}))
    clean = require("open_clip.tokenizer", "vlm").get_clean_fn(options.pop("clean", "whitespace"))
    if options or text_config.get("tokenizer_mode"):
        raise InputError(
            f"the tokenizer options {options or text_config['tokenizer_mode']} in {folder} are not supported"
        )
    source = folder if has_tokenizer(folder) else _tokenizer_folder(folder, name)
    tokenizer = load_tokenizer(source, name)
    ids = special_ids(tokenizer, source, *special)

    def encode(text: str) -> list[int]:
        return [int(i) for i in tokenizer(clean(text), add_special_tokens=False, verbose=False)["input_ids"]]

    return encode, ids, tokenizer.get_vocab()


def _tokenizer_folder(folder: Path, name: str) -> Path:
    try:
        return folder / name if (folder / name).is_dir() else resolve_folder(name, ())
    except InputError as error:
        raise InputError(
            f"the model folder {folder} has no tokenizer files and those of {name} cannot be fetched from the hub; "
            "copy tokenizer.json or vocab.txt, and tokenizer_config.json, from there into it"
        ) from error
