"""A model that needs more than its input to answer for an image: a raw image behind settings, a box, a click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from certimed.engine import Stream
from certimed.errors import ModelError
from certimed.models.identity import combined

Answer = Callable[[Tensor], Tensor]
"""What noise is on, a batch of it -> scores or embeddings."""


class BoundStream(nn.Module):
    """A network with something of each image bound to it by :meth:`at`, one copy for each image.

    Args:
        inner: the network.
        about: plain values that, with the network's identity, are that of the whole: what is varied, say.
    """

    def __init__(self, inner: Stream, *about: object) -> None:
        super().__init__()
        self.training = False
        self.inner = inner
        own = inner.identity
        self.identity = None if own is None else combined("bound", list(about), own)
        self.arithmetic, self.dtype, self.libraries = inner.arithmetic, inner.dtype, inner.libraries
        self.cache_key = combined("bound", list(about), inner.cache_key)
        self._answer: Answer | None = None

    def at(self, answer: Answer, digest: str) -> BoundStream:
        """This stream at one image.

        Args:
            answer: what is answered to a batch of what noise is on.
            digest: of the image and of what is bound.
        """
        bound = object.__new__(BoundStream)
        bound.__dict__.update(self.__dict__, _answer=answer, cache_key=combined(self.cache_key, digest))
        return bound

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`Stream`; ModelError before an image is bound."""
        if self._answer is None:
            raise ModelError("this model answers for one image at a time; bind it first")
        found: Any = self._answer(x)
        return found.float() if isinstance(found, Tensor) else found
