"""SigLIP in the transformers format: SigLIP and the fixed-resolution SigLIP 2 (``google/siglip2-base-patch16-224``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from certimed.errors import InputError, require
from certimed.models.fitting import load_pretrained
from certimed.models.sources import brief, read_json
from certimed.models.weights import find_weights, read_weights
from certimed.vlm.adapter import filled_up
from certimed.vlm.protocol import Tokens
from certimed.vlm.tokenizers import load_tokenizer, tokenizer_digest
from certimed.vlm.transformers_clip import FILES, library_config, read_preprocessing
from certimed.vlm.transformers_text import TransformersText

_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")


class TransformersSiglip(TransformersText):
    """A transformers ``SiglipModel`` and its tokenizer.

    The text tower has no begin token, sees padding as text and reads the last of all its places. So a row loses its
    first place, which stands for a begin token, and is filled up to the whole context with padding, as in training.
    Logits have a bias, which is one for all classes and left out: no class changes by it.
    """

    libraries = ("transformers", "tokenizers", "sentencepiece", "safetensors")

    def __init__(self, name: str, folder: Path) -> None:
        """Load from a local folder.

        Args:
            name: how the user asked for the model.
            folder: holds config.json, weights, tokenizer files and preprocessor_config.json.

        Raises:
            InputError: a file is missing, or the tokenizer is not SigLIP's.
            ModelError: the weights do not fit the configuration or cannot be read safely.
        """
        config = read_json(folder / "config.json", "the model's configuration")
        super().__init__(name, read_preprocessing(folder))
        self._tokenizer = load_tokenizer(folder, name)
        transformers = require("transformers", "vlm")
        weights = read_weights(find_weights(folder, FILES, "add the weights published with the model"))
        self.model: Any
        self.model, filled = load_pretrained(
            transformers.SiglipModel,
            library_config(transformers.SiglipConfig, config, folder),
            weights,
            advice="use the configuration published with these weights",
        )
        self.notes = filled.notes
        text, vision = self.model.config.text_config, self.model.config.vision_config
        expected = (vision.num_channels, vision.image_size, vision.image_size)
        if self.input_shape != expected:
            raise InputError(
                f"the preprocessing in {folder} makes images of shape {self.input_shape} but the vision tower takes "
                f"{expected}; correct size in preprocessor_config.json or image_size in config.json"
            )
        self._places = int(text.max_position_embeddings)
        self.context_length = self._places + 1  # with the place of a begin token there is not
        self.token_dim, self.embedding_dim = int(text.hidden_size), int(text.projection_size)
        self.eos_id, self.pad_id = self._ending(folder)
        self.bos_id = self.pad_id
        self.logit_scale = math.exp(self.model.logit_scale.item())
        self.freeze(
            {
                "family": "transformers-siglip",
                "text": {key: getattr(text, key) for key in _KEYS},
                "vision": {key: getattr(vision, key) for key in (*_KEYS, "patch_size")},
                "special": (self.eos_id, self.pad_id),
                "vocabulary": tokenizer_digest(self._tokenizer.get_vocab(), self.content_ids),
            },
            filled.tensors,
        )

    def _ending(self, folder: Path) -> tuple[int, int]:
        """Ids of end and padding, from what the tokenizer makes of a text for the whole context."""
        try:
            row = list(self._tokenizer("a", padding="max_length", max_length=self._places)["input_ids"])
        # Tokenizers refuse settings each in their own way.
        except Exception as error:
            raise InputError(f"the tokenizer in {folder} cannot pad a text: {brief(error)}") from error
        content = self.content_ids("a")
        rest, pad = row[len(content) :], self._tokenizer.pad_token_id
        if row[: len(content)] != content or set(rest[1:]) != {pad} or rest[:1] not in ([pad], [self._eos()]):
            raise InputError(
                f"the tokenizer in {folder} makes {row[:8]}... of 'a', and SigLIP's text tower needs the text, an end "
                "token and padding behind it; use the tokenizer files published with the model"
            )
        return int(rest[0]), int(pad)

    def _eos(self) -> int:
        return int(self._tokenizer.eos_token_id)

    def image_features(self, x: Tensor) -> Tensor:
        """Vision tower with its attention pooling."""
        features: Tensor = self.model.vision_model(pixel_values=x)[1]
        return features

    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Text tower on the whole context, read at its last place."""
        ids, x = filled_up(self, embeddings, tokens, self.context_length)
        with self.looked_up(x[:, 1:]):
            features: Tensor = self.model.text_model(input_ids=ids[:, 1:])[1]
        return features
