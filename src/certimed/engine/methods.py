"""What is compared on one image: methods, each a stream of embedded noisy copies and a head that scores them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from certimed.certificates.scope import END_TO_END
from certimed.engine.copies import noisy_batches
from certimed.engine.embeddings import EmbeddingCache
from certimed.engine.streams import PLAIN, Stream
from certimed.noise import NoiseKey, NoiseLaw, NoiseStream

Head = Callable[[Tensor], Tensor]
"""Embedded views of one stream, ``(B, ...)`` -> scores ``(B, K, ...)``."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One image under certification, and what its methods share.

    Attributes:
        image: float32 ``(C, *space)`` in the certified space.
        item, seed: key of the noise.
        law: the noise.
        batch_size: copies a forward pass.
        streams: by name.
        cache: where embeddings are kept, or None where nothing is.
        keep: whether embeddings outlive this certificate; tuning copies are always kept, as two methods may want them.
    """

    image: Tensor
    item: str
    seed: int
    law: NoiseLaw
    batch_size: int
    streams: Mapping[str, Stream]
    cache: EmbeddingCache | None = None
    keep: bool = True

    def stream(self, name: str, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """Embedded noisy copies ``start .. start + n - 1``, in batches."""
        key, encoder = NoiseKey(self.seed, self.item, phase), self.streams[name]
        if self.cache is None:
            for batch in noisy_batches(self.image, self.law, key, n, batch_size=self.batch_size, start=start):
                yield encoder(batch)
            return
        keep = self.keep or phase == "tuning"
        yield from self.cache.batches(
            encoder, self.image, self.law, key, n, batch_size=self.batch_size, start=start, keep=keep
        )

    def copies(self, phase: str, start: int = 0) -> Callable[[int], Tensor]:
        """Draws the next so many noisy copies themselves, beside what :meth:`stream` embeds of the same phase."""
        key = NoiseKey(self.seed, self.item, phase)
        noise = NoiseStream(key, tuple(self.image.shape), self.image.device, start=start, law=self.law)
        return lambda count: self.law.noisy(self.law.origin(self.image), noise.draw(count))


@dataclass(frozen=True, eq=False)
class Method(ABC):
    """A way to answer for an image; subclasses differ in what they do before counting.

    Attributes:
        name: unique in a comparison.
        scope: what a certificate made with it covers.
        stream: methods with the same stream share embedded copies.
    """

    name: str
    scope: str = field(default=END_TO_END, kw_only=True)
    stream: str = field(default=PLAIN, kw_only=True)

    @property
    def num_classes(self) -> int | None:
        """K, where the method knows it."""
        return None

    @property
    def settings(self) -> list[Any]:
        """Plain JSON types that tell this method from every other one on its stream; empty for the stream itself."""
        return []

    @property
    def views_of(self) -> tuple[float, float] | None:
        """Noise of the tuned and of the classified view, where a sample consists of two."""
        return None

    @abstractmethod
    def head(self, subject: Subject) -> Head:
        """What scores embedded copies of this image; tuning on the image happens here, before any counting."""

    def views(self, subject: Subject, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """Embedded noisy views ``start .. start + n - 1``, in batches."""
        return subject.stream(self.stream, phase, n, start)

    def view(self, subject: Subject, x: Tensor) -> Tensor:
        """Embedded views of inputs ``(B, C, *space)``, without more noise; they are copied first."""
        return subject.streams[self.stream](x.clone())

    def encoder(self, streams: Mapping[str, Stream]) -> Stream:
        """What embeds this method's views."""
        return streams.get(self.stream, streams[PLAIN])

    def identity(self, streams: Mapping[str, Stream]) -> str | None:
        """Of stream and method: of what makes the scores, not of results; None where the stream has none.

        Text features are results: another number of threads may round them differently, and be the same model.
        """
        own, settings = self.encoder(streams).identity, self.settings
        if own is None or not settings:
            return own
        return hashlib.sha256(json.dumps([own, *settings]).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Scores(Method):
    """The method whose stream's embedded copies are the scores already: any classifier, any segmenter."""

    classes: int | None = None

    @property
    def num_classes(self) -> int | None:
        """See :class:`Method`."""
        return self.classes

    def head(self, subject: Subject) -> Head:
        """See :class:`Method`."""
        return _as_is


def _as_is(scores: Tensor) -> Tensor:
    return scores
