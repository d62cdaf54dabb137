"""What certimed needs of a vision-language model: the contract every adapter fulfils.

The contract works on *token embeddings*, not on strings, because a learnt prompt is a handful of free vectors in the
text encoder's input space (PromptSmooth, Hussein et al., MICCAI 2024; CoOp, Zhou et al., IJCV 2022).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from certimed.errors import InputError
from certimed.operators import Geometry

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences, padded to the longest of them (never to the encoder's full context).

    Attributes:
        ids: int64 ``(N, L)``; every row is ``[bos] content [eos] pad...``.
        mask: bool ``(N, L)``; True on real tokens (bos and eos included).
    """

    ids: Tensor
    mask: Tensor

    @property
    def last(self) -> Tensor:
        """int64 ``(N,)``: index of the end-of-text token of each row."""
        return self.mask.sum(dim=1) - 1


class FeatureModel(Protocol):
    """What counting needs of a model, whether it reads prompts or not."""

    name: str
    identity: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def encode_image(self, x: Tensor) -> Tensor:
        """float ``(B, C, H, W)`` in the certified space -> ``(B, D)``."""


class ImageModel(FeatureModel, Protocol):
    """A model that says how an image becomes its input."""

    input_shape: tuple[int, int, int]

    def preprocess(self, pixels: Tensor) -> Tensor:
        """float ``(C, H, W)`` at native resolution -> float32 ``input_shape``."""

    def geometry(self, shape: tuple[int, ...]) -> Geometry | None:
        """The linear map :meth:`preprocess` applies to images of this native shape, or None where it is not known."""


class VisionLanguageModel(ABC, torch.nn.Module):
    """A frozen dual encoder. Subclasses are adapters, one file each.

    Every adapter is in eval mode with ``requires_grad_(False)`` on all parameters from the moment it is constructed.

    Attributes:
        name: how the user asked for it, e.g. ``"hf:vinid/plip"``.
        identity: hex SHA-256 over configuration and weights, all that changes the answers.
        identity_complete: whether equal identities are declared to mean equal answers; only adapters that know all of
            what they load say so, and caches tell the others apart by the living object.
        libraries: distributions that built it.
        notes: what a loader had to decide, in sentences to show.
        input_shape: ``(C, H, W)`` of the certified space, i.e. of the tensors :meth:`encode_image` takes.
        context_length: largest number of tokens of one text, bos and eos included.
        token_dim: width of the text encoder's input embeddings.
        embedding_dim: width of the joint image-text space.
        bos_id, eos_id, pad_id: ids of the special tokens.
        logit_scale: the factor on cosine similarity (already exponentiated).
    """

    name: str
    identity: str
    identity_complete: bool = False
    libraries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    input_shape: tuple[int, int, int]
    context_length: int
    token_dim: int
    embedding_dim: int
    bos_id: int
    eos_id: int
    pad_id: int
    logit_scale: float

    @abstractmethod
    def preprocess(self, pixels: Tensor) -> Tensor:
        """Resize and crop one image to the certified space, in float, linearly, never through 8 bits.

        Args:
            pixels: float32 ``(C, H, W)`` in [0, 1] at native resolution.

        Returns:
            float32 ``input_shape`` in [0, 1]: what noise is added to. Mean and std come later, in
            :meth:`encode_image`.
        """

    def geometry(self, shape: tuple[int, ...]) -> Geometry | None:
        """The linear map :meth:`preprocess` applies to native images ``(C, H, W)`` of this shape.

        Its norm carries a radius over to native resolution (:class:`certimed.certificates.NativeRadius`). None, as
        here, where an adapter does not describe its preparation; nothing is then said about native resolution.
        """
        return None

    @abstractmethod
    def encode_image(self, x: Tensor) -> Tensor:
        """Image features, not normalised: float ``(B, C, H, W)`` in the certified space -> ``(B, embedding_dim)``.

        Noisy values outside [0, 1] are passed on as they are (no clipping). Raises ModelError on a wrong size.
        """

    @abstractmethod
    def content_ids(self, text: str) -> list[int]:
        """Token ids of a text without bos and eos."""

    @abstractmethod
    def token_embeddings(self, ids: Tensor) -> Tensor:
        """Input embeddings (before positions are added) of int64 ids of any shape -> ``(*shape, token_dim)``."""

    @abstractmethod
    def encode_text(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        """Text features, not normalised, from input embeddings ``(N, L, token_dim)`` -> ``(N, embedding_dim)``.

        Differentiable in ``embeddings``. ``tokens`` gives lengths and padding only.
        """

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: a classifier around this model may be told to train, its frozen encoders may not.

        Dropout or batch statistics would make the certified function depend on chance or on a batch's other images.
        """
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tokens(self, contents: Sequence[Sequence[int]]) -> Tokens:
        """Put bos and eos around each content and pad to the longest row.

        Raises:
            InputError: there are no rows, or one would be longer than the text encoder's context.
        """
        if not contents:
            raise InputError(f"there is no text to encode for {self.name}; give at least one")
        longest = max(len(content) for content in contents) + 2
        if longest > self.context_length:
            raise InputError(
                f"a prompt of {longest} tokens does not fit the text encoder of {self.name}, which takes at most "
                f"{self.context_length} (begin and end tokens included); shorten the context or the class name"
            )
        ids = torch.full((len(contents), longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros((len(contents), longest), dtype=torch.bool)
        for row, content in enumerate(contents):
            sequence = [self.bos_id, *content, self.eos_id]
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = True
        return Tokens(ids.to(self.device), mask.to(self.device))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Text features, not normalised, of whole strings -> ``(N, embedding_dim)``."""
        tokens = self.tokens([self.content_ids(text) for text in texts])
        return self.encode_text(self.token_embeddings(tokens.ids), tokens)
