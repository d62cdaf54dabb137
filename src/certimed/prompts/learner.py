"""The learnable context: a few free vectors in the text encoder's input space, the encoders staying frozen.

Layout of every prompt: ``[BOS] context class-name . [EOS]`` (CoOp, Zhou et al., IJCV 2022; PromptSmooth, Hussein et
al., MICCAI 2024). The context is counted in *tokens*, so every token of an initial phrase is learnable, and text runs
on the longest prompt's length, never on the encoder's full context.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError
from certimed.vlm.heads import checked_class_names
from certimed.vlm.protocol import Tokens, VisionLanguageModel

Position = Literal["end", "middle", "front"]
"""Where the class name stands: after the context, in its middle (after the first half, rounded down), or before it."""

POSITIONS: tuple[Position, ...] = get_args(Position)

ContextStart = str | int | Tensor
"""Initial context: words, a number of random tokens (normal, std 0.02), or values ``(M, d)`` / ``(K, M, d)``."""

RANDOM_STD = 0.02


class PromptLearner(nn.Module):
    """Text features of K classes as a differentiable function of one small tensor, the context.

    Attributes:
        context: the only parameter; float32 ``(M, token_dim)``, or ``(K, M, token_dim)`` with one context per class.
        vlm: the frozen model; deliberately not a submodule, so ``parameters()`` yields the context alone.
        class_names, position, suffix: as given.
    """

    context: nn.Parameter
    base: Tensor
    columns: Tensor

    def __init__(
        self,
        vlm: VisionLanguageModel,
        class_names: Sequence[str],
        context: ContextStart = 5,
        *,
        per_class: bool = False,
        position: Position = "end",
        suffix: str = ".",
        seed: int = 0,
    ) -> None:
        """Tokenise the prompts and place the initial context.

        Args:
            vlm: any adapter of the protocol; its parameters must not require gradients.
            class_names: K distinct names in words.
            context: see :data:`ContextStart`.
            per_class: one context for each class instead of one shared by all.
            position: where the class name stands.
            suffix: text after the name (or after the context where the name does not come last); may be empty.
            seed: of a random initial context.

        Raises:
            InputError: an impossible setting, or a prompt longer than the text encoder takes.
        """
        super().__init__()
        if position not in POSITIONS:
            raise InputError(f"position={position!r} is unknown; use one of {', '.join(POSITIONS)}")
        object.__setattr__(self, "vlm", vlm)
        self.vlm: VisionLanguageModel
        self.class_names = checked_class_names(class_names)
        self.position = position
        self.suffix = suffix
        start = _initial_context(vlm, context, per_class, len(self.class_names), seed)
        self.tokens, columns = self._layout(start.shape[-2])
        self.register_buffer("base", vlm.token_embeddings(self.tokens.ids).detach().float(), persistent=False)
        self.register_buffer("columns", columns.to(vlm.device), persistent=False)
        self.context = nn.Parameter(start.to(vlm.device))

    @property
    def length(self) -> int:
        """Number of context tokens, M."""
        return int(self.context.shape[-2])

    @property
    def identity(self) -> str:
        """Hex SHA-256 over all that decides the text features, the frozen model aside: context, names and layout."""
        settled = [list(self.context.shape), self.class_names, self.position, self.suffix]
        digest = hashlib.sha256(json.dumps(settled).encode())
        digest.update(self.context.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def per_class(self) -> bool:
        """Whether each class has a context of its own."""
        return self.context.ndim == 3

    @property
    def spread(self) -> float:
        """Standard deviation of the token embeddings of the prompts: the scale a context lives on."""
        return float(self.base[self.tokens.mask].std())

    def text_features(self) -> Tensor:
        """Normalised text features, float32 ``(K, D)``, differentiable in :attr:`context`."""
        return self.features(self.context)

    def features(self, context: Tensor) -> Tensor:
        """Normalised text features ``(K, D)`` of any context, ``(M, d)`` or ``(K, M, d)``; differentiable in it."""
        values = context.expand(len(self.class_names), -1, -1).to(self.base.dtype)
        rows = torch.arange(len(values), device=values.device).unsqueeze(1)
        embeddings = self.base.index_put((rows, self.columns), values)
        return functional.normalize(self.vlm.encode_text(embeddings, self.tokens).float(), dim=-1)

    def extra_repr(self) -> str:
        """Shown by ``repr``."""
        kind = "per class" if self.per_class else "shared"
        return f"model={self.vlm.name}, classes={len(self.class_names)}, context={self.length} {kind}, {self.position}"

    def _layout(self, length: int) -> tuple[Tokens, Tensor]:
        """Token ids with placeholders for the context, and the columns ``(K, M)`` the context goes to."""
        contents, columns = [], []
        before = {"end": length, "middle": length // 2, "front": 0}[self.position]
        for name in self.class_names:
            # Name and suffix are tokenised together where they touch, as a tokenizer would see them in a sentence.
            ids = self.vlm.content_ids(name + self.suffix if self.position == "end" else name)
            if not ids:
                raise InputError(f"the class name {name!r} has no tokens for {self.vlm.name}; use words it knows")
            tail = self.vlm.content_ids(self.suffix) if self.suffix and self.position != "end" else []
            # Placeholders are an ordinary token, because some towers read padding off the ids.
            hole = [ids[0]]
            contents.append([*hole * before, *ids, *hole * (length - before), *tail])
            first = [1 + i for i in range(before)]
            columns.append(first + [1 + before + len(ids) + i for i in range(length - before)])
        return self.vlm.tokens(contents), torch.tensor(columns, dtype=torch.int64)


def _initial_context(
    vlm: VisionLanguageModel, context: ContextStart, per_class: bool, classes: int, seed: int
) -> Tensor:
    """float32 ``(M, d)`` or, per class, ``(K, M, d)``."""
    values: Tensor
    if isinstance(context, str):
        ids = vlm.content_ids(context)
        if not ids:
            raise InputError(f"the initial context {context!r} has no tokens; give words, or a number of random tokens")
        values = vlm.token_embeddings(torch.tensor(ids, device=vlm.device)).detach().float()
    elif isinstance(context, Tensor):
        values = context.detach().float()
        _check_values(values, vlm, classes)
    elif isinstance(context, int) and not isinstance(context, bool) and context >= 1:
        shape = (classes, context, vlm.token_dim) if per_class else (context, vlm.token_dim)
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * RANDOM_STD
    else:
        raise InputError(f"context={context!r} is no initial context; give words, a positive number, or a tensor")
    if per_class and values.ndim == 2:
        values = values.expand(classes, -1, -1)
    return values.clone()


def _check_values(values: Tensor, vlm: VisionLanguageModel, classes: int) -> None:
    shape = tuple(values.shape)
    good = values.ndim in (2, 3) and shape[-1] == vlm.token_dim and shape[-2] >= 1
    if not good or (values.ndim == 3 and shape[0] != classes):
        raise InputError(
            f"the context has shape {shape}; {vlm.name} with {classes} classes takes (M, {vlm.token_dim}) or "
            f"({classes}, M, {vlm.token_dim})"
        )
    if not bool(torch.isfinite(values).all()):
        raise InputError("the context has values that are not finite; use another prompt or tune again")
