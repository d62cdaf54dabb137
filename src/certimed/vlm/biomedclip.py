"""BiomedCLIP and other open_clip models whose text tower is a BERT of the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from certimed.errors import InputError
from certimed.vlm.open_clip_models import OpenClipAdapter, hub_tokenizer
from certimed.vlm.protocol import Tokens
from certimed.vlm.tokenizers import tokenizer_digest

_BERT_CONTEXT = 256
_TEXT_KEYS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")


class BertOpenClip(OpenClipAdapter):
    """An open_clip model with a BERT text tower (BiomedCLIP: PubMedBERT, context 256).

    Begin and end tokens are BERT's CLS and SEP. Padding is masked out of the attention, so a text's feature does not
    depend on the length of the others.
    """

    def __init__(self, name: str, folder: Path) -> None:
        """Load from a local folder in the open_clip hub format.

        Args:
            name: how the user asked for the model.
            folder: open_clip_config.json, weights, tokenizer files, and the BERT's config.json (else the latter two
                come from the hub names in open_clip_config.json).

        Raises:
            InputError: a file is missing or asks for something that is not supported.
            ModelError: the weights do not fit or cannot be read safely.
        """
        super().__init__(name, folder)
        text_config = self.model_config["text_cfg"]
        self._encode, special, vocabulary = hub_tokenizer(text_config, folder, ("cls", "sep"))
        self.bos_id, self.eos_id, self.pad_id = special
        tower: Any = self.model.text.transformer
        rows, self.token_dim = tower.get_input_embeddings().weight.shape
        if max(vocabulary.values()) >= rows:
            raise InputError(
                f"the tokenizer of {folder} has {len(vocabulary)} tokens but its BERT only {rows}; use the tokenizer "
                "files published with the model"
            )
        # BiomedCLIP was trained on up to 256 tokens; a BERT has no positions beyond its own.
        wanted = int(text_config.get("context_length", _BERT_CONTEXT))
        self.context_length = min(wanted, int(tower.config.max_position_embeddings))
        configuration = {
            "family": "open_clip-bert",
            "model": self.model_config,
            "text": {key: getattr(tower.config, key, None) for key in _TEXT_KEYS},
            "special": special,
            "vocabulary": tokenizer_digest(vocabulary, self._encode),
        }
        self.freeze(configuration, self.model.state_dict())

    def content_ids(self, text: str) -> list[int]:
        """See the protocol; the text is cleaned as open_clip cleans it."""
        return self._encode(text)

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """See the protocol; BERT's word embeddings, before positions, token types and normalisation."""
        embeddings: Tensor = self.model.text.transformer.get_input_embeddings()(ids)
        return embeddings

    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """BERT on input embeddings, then open_clip's own pooler and projection."""
        text, mask = self.model.text, tokens.mask.long()
        output = text.transformer(inputs_embeds=embeddings, attention_mask=mask)
        features: Tensor = text.proj(text.pooler(output, mask))
        return features
