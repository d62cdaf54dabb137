"""CLIP models in the transformers format: PLIP (``vinid/plip``), OpenAI's own, the embedded demo, any local folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from certimed.errors import InputError, require
from certimed.models.fitting import load_pretrained
from certimed.models.sources import brief, read_json
from certimed.models.weights import find_weights, read_weights
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.protocol import Tokens
from certimed.vlm.tokenizers import load_tokenizer, special_ids, tokenizer_digest
from certimed.vlm.transformers_text import TransformersText

FILES = ("model.safetensors", "pytorch_model.bin")
_SHARED_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
# Pillow's numbers for its filters, as preprocessor_config.json stores them.
_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


class TransformersCLIP(TransformersText):
    """A transformers ``CLIPModel`` and its tokenizer.

    Text features are those of the library's own text tower with the output of its embedding layer replaced, so causal
    mask and positions are the library's in every version; the feature is read at our own end-of-text index, because a
    learnt context has no ids to search.
    """

    libraries = ("transformers", "tokenizers", "safetensors")

    def __init__(self, name: str, folder: Path) -> None:
        """Load from a local folder.

        Args:
            name: how the user asked for the model.
            folder: holds config.json, weights, tokenizer files and preprocessor_config.json.

        Raises:
            InputError: a file is missing or the folder holds another kind of model.
            ModelError: the weights do not fit the configuration or cannot be read safely.
        """
        config = read_json(folder / "config.json", "the model's configuration")
        if config.get("model_type") != "clip":
            raise InputError(
                f"the model in {folder} is not a CLIP model: its config.json says model_type "
                f"{config.get('model_type')!r}; give a folder or hub name of a transformers CLIPModel"
            )
        super().__init__(name, read_preprocessing(folder))
        tokenizer = load_tokenizer(folder, name)
        transformers = require("transformers", "vlm")
        weights = read_weights(find_weights(folder, FILES, "add the weights published with the model"))
        self.model: Any
        self.model, filled = load_pretrained(
            transformers.CLIPModel,
            library_config(transformers.CLIPConfig, config, folder),
            weights,
            advice="use the configuration published with these weights",
        )
        self.notes = filled.notes
        self._tokenizer = tokenizer
        text, vision = self.model.config.text_config, self.model.config.vision_config
        expected = (vision.num_channels, vision.image_size, vision.image_size)
        if self.input_shape != expected:
            raise InputError(
                f"the preprocessing in {folder} makes images of shape {self.input_shape} but the vision tower takes "
                f"{expected}; correct crop_size in preprocessor_config.json or image_size in config.json"
            )
        if len(tokenizer) > text.vocab_size:
            raise InputError(
                f"the tokenizer in {folder} has {len(tokenizer)} tokens but the text tower only {text.vocab_size}; "
                "use the tokenizer files published with these weights"
            )
        self.context_length = int(text.max_position_embeddings)
        self.token_dim = int(text.hidden_size)
        self.embedding_dim = int(self.model.config.projection_dim)
        self.bos_id, self.eos_id, self.pad_id = special_ids(tokenizer, folder, "bos", "eos")
        self.logit_scale = math.exp(self.model.logit_scale.item())
        self.freeze(
            {
                "family": "transformers-clip",
                "text": {key: getattr(text, key) for key in _SHARED_KEYS},
                "vision": {key: getattr(vision, key) for key in (*_SHARED_KEYS, "patch_size")},
                "special": (self.bos_id, self.eos_id),
                "vocabulary": tokenizer_digest(tokenizer.get_vocab(), self.content_ids),
            },
            filled.tensors,
        )

    def image_features(self, x: Tensor) -> Tensor:
        """Vision tower, then projection."""
        features: Tensor = self.model.visual_projection(self.model.vision_model(pixel_values=x)[1])
        return features

    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Text tower under causal attention, read at the end-of-text token, then projection."""
        with self.looked_up(embeddings):
            hidden = self.model.text_model(input_ids=tokens.ids)[0]
        rows = torch.arange(len(hidden), device=hidden.device)
        features: Tensor = self.model.text_projection(hidden[rows, tokens.last])
        return features


def library_config(kind: Any, config: dict[str, Any], folder: Path) -> Any:
    try:
        return kind.from_dict(config)
    # The library checks values each in its own way.
    except Exception as error:
        raise InputError(
            f"{folder / 'config.json'} cannot be used ({type(error).__name__}: {brief(error)}); use the configuration "
            "published with the weights"
        ) from error


def read_preprocessing(folder: Path) -> Preprocess:
    """The :class:`Preprocess` that ``preprocessor_config.json`` (or ``processor_config.json``) describes.

    Raises:
        InputError: neither file exists, or one asks for a step that is not supported.
    """
    path = folder / "preprocessor_config.json"
    combined = folder / "processor_config.json"
    if not path.is_file() and combined.is_file():
        config = read_json(combined, "the image preprocessing").get("image_processor", {})
    else:
        config = read_json(path, "the image preprocessing (size, crop, mean and std)")
    try:
        return parse_preprocessing(config)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the preprocessing configuration in {folder} cannot be used ({type(error).__name__}: {brief(error)}); use "
            "the preprocessor_config.json published with the model"
        ) from error


def parse_preprocessing(config: dict[str, Any]) -> Preprocess:
    if not config.get("do_rescale", True) or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise ValueError("pixels are not rescaled from 0..255 to [0, 1]")
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    if not config.get("do_normalize", True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    size = config["size"]
    edge = size if isinstance(size, int) else size.get("shortest_edge")
    exact = None if edge else (int(size["height"]), int(size["width"]))
    target = exact
    if config.get("do_center_crop", True):
        crop = config.get("crop_size", size)
        target = (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))
    if target is None:
        raise ValueError("images are neither cropped nor resized to one exact size")
    if exact not in (None, target):
        if len(set(exact)) > 1:
            raise ValueError(f"images are resized to {exact} and then cropped to {target}")
        edge = exact[0]
    resize: Literal["none", "exact", "shortest"] = "exact" if exact else "shortest"
    return Preprocess(
        size=target,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        resize=resize if config.get("do_resize", True) else "none",
        edge=int(edge or 0),
        interpolation=_filter(config.get("resample", 3)),
        channels=len(mean),
    )


def _filter(number: Any) -> Literal["bilinear", "bicubic"]:
    if number not in _FILTERS:
        raise ValueError(f"resample {number} is neither bilinear (2) nor bicubic (3)")
    return _FILTERS[number]
