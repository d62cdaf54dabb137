"""What all adapters share: preprocessing, the size check, precision, and staying frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from certimed.models.identity import behaviour_digest
from certimed.operators import Geometry
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.protocol import Tokens, VisionLanguageModel


class Adapter(VisionLanguageModel):
    """A vision-language model whose images go through a :class:`Preprocess`.

    Attributes:
        preprocessing: the linear map to the certified space, and the mean and std applied after the noise.
    """

    preprocessing: Preprocess
    identity_complete = True

    def __init__(self, name: str, preprocessing: Preprocess) -> None:
        super().__init__()
        self.name = name
        self.preprocessing = preprocessing
        self.input_shape = preprocessing.shape

    def freeze(self, configuration: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Last step of every constructor: eval mode, no gradients, and the identity.

        Args:
            configuration: everything that decides the outputs besides the weights.
            state: the weights, under names that do not depend on library versions where that can be had.
        """
        self.requires_grad_(False)
        self.eval()
        about = {**configuration, "preprocessing": self.preprocessing, "context_length": self.context_length}
        self.identity = behaviour_digest(None, about, state=state)

    def preprocess(self, pixels: Tensor) -> Tensor:
        """See the protocol; the steps are those of :attr:`preprocessing`."""
        return self.preprocessing(pixels)

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """See the protocol."""
        return self.preprocessing.geometry(shape)

    def encode_image(self, x: Tensor) -> Tensor:
        """See the protocol: mean and std in float32, then the vision tower in the precision of its weights."""
        return self.image_features(self.preprocessing.normalise(x).to(self.dtype))

    def encode_text(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """See the protocol; forward-mode and second derivatives exist too."""
        # Of PyTorch's attention kernels only the plain one has them, and texts are short.
        with sdpa_kernel(SDPBackend.MATH):
            return self.text_features(embeddings.to(self.dtype), tokens)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @abstractmethod
    def image_features(self, x: Tensor) -> Tensor:
        """Normalised pixels ``(B, C, H, W)`` -> features ``(B, embedding_dim)``."""

    @abstractmethod
    def text_features(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Input embeddings ``(N, L, token_dim)`` -> features ``(N, embedding_dim)``."""

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        return f"{self.name!r}, input={self.input_shape}, context={self.context_length}, dim={self.embedding_dim}"


def filled_up(model: Adapter, embeddings: Tensor, tokens: Tokens, length: int) -> tuple[Tensor, Tensor]:
    """Ids and embeddings with padding up to ``length`` places: for towers whose answer depends on padding."""
    ids = tokens.ids.new_full((len(tokens.ids), length), model.pad_id)
    ids[:, : tokens.ids.shape[1]] = torch.where(tokens.mask, tokens.ids, model.pad_id)
    x = model.token_embeddings(ids).to(embeddings.dtype)
    width = embeddings.shape[1]
    ours = torch.where(tokens.mask.unsqueeze(-1), embeddings, x[:, :width])
    return ids, torch.cat([ours, x[:, width:]], dim=1)
