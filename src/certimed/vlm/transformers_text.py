"""The text side of models in the transformers format: token embeddings that are learnt, in a tower that is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from certimed.vlm.adapter import Adapter


class TransformersText(Adapter):
    """An adapter with the library's ``model``, whose text tower looks tokens up, and its ``_tokenizer``."""

    model: Any
    _tokenizer: Any

    def content_ids(self, text: str) -> list[int]:
        """See the protocol."""
        return [int(i) for i in self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """See the protocol."""
        table: Tensor = self._token_table()(ids)
        return table

    @contextmanager
    def looked_up(self, embeddings: Tensor) -> Iterator[None]:
        """Hand embeddings to the library in place of those that it would look up; positions follow as usual."""
        hook = self._token_table().register_forward_hook(lambda *_: embeddings)
        try:
            yield
        finally:
            hook.remove()

    def _token_table(self) -> torch.nn.Embedding:
        table: torch.nn.Embedding = self.model.text_model.embeddings.token_embedding
        return table
