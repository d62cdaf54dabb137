"""A model behind a workflow, as the engine runs it: settings of one image in, scores or embeddings out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from certimed.engine import Stream
from certimed.errors import ModelError
from certimed.models.identity import combined

Answer = Callable[[Tensor], Tensor]
"""Coordinates ``(B, k, 1)`` -> scores or embeddings."""


class SettingsStream(nn.Module):
    """``network(workflow(raw image, settings))``; the raw image is bound by :meth:`at`, one copy for each image.

    Args:
        inner: the network, which is shown images.
        spelling: of what is varied: with the network's identity it is that of the whole.
        function: identity of a function of one's own, where one is called.
    """

    def __init__(self, inner: Stream, spelling: tuple[str, ...], function: str | None = None) -> None:
        super().__init__()
        self.training = False
        self.inner = inner
        own = inner.identity
        self.identity = None if own is None else combined("settings", list(spelling), function, own)
        self.arithmetic, self.dtype, self.libraries = inner.arithmetic, inner.dtype, inner.libraries
        self.cache_key = combined("settings", list(spelling), function, inner.cache_key)
        self._answer: Answer | None = None

    def at(self, answer: Answer, digest: str) -> SettingsStream:
        """This stream at one image.

        Args:
            answer: what coordinates of its settings lead to.
            digest: of the image and its own settings.
        """
        bound = object.__new__(SettingsStream)
        bound.__dict__.update(self.__dict__, _answer=answer, cache_key=combined(self.cache_key, digest))
        return bound

    def forward(self, u: Tensor) -> Tensor:
        """See :class:`Stream`; ModelError before an image is bound."""
        if self._answer is None:
            raise ModelError("settings are of one image; bind it first")
        found: Any = self._answer(u)
        return found.float() if isinstance(found, Tensor) else found
