"""The smoothed model as an attacker meets it: differentiable copies, and PREDICT on fresh ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from certimed.engine import Engine, Method, Subject
from certimed.noise import CHUNK
from certimed.targets import Tally, Target

PHASE = "attack"


@dataclass(frozen=True)
class Attacked:
    """One method at one image: the whole pipeline, through denoiser, prompt and tuning on the image.

    A method that tunes itself on the image is tuned anew at every perturbed image, with the noise that the deployed
    pipeline would use for this item; an attack therefore goes through the tuning. Noise that is attacked, and noise
    that judges, is of the phase "attack", which no certificate uses, and no sample of it is used twice.

    Attributes:
        engine: streams and law.
        method: what answers.
        target: classes or pixels.
        item, seed: key of the run, for tuning noise.
        noise: the attack's seed, for all other noise.
        batch_size: copies a forward pass.
    """

    engine: Engine
    method: Method
    target: Target[Any]
    item: str
    seed: int
    noise: int
    batch_size: int

    def scores(self, x: Tensor, start: int, count: int) -> Tensor:
        """Scores of noisy copies ``start .. start + count - 1`` of ``(C, *space)``, ``(count, K, ...)``."""
        subject = self._subject(x)
        head = self.method.head(subject)
        copies = self.method.views(replace(subject, seed=self.noise), PHASE, count, start)
        return torch.cat([head(views) for views in copies])

    def deployed(self, x: Tensor) -> Tensor:
        """Scores of the first estimation copy, ``(1, K, ...)``: the noise that a set is made with at this item."""
        subject = self._subject(x)
        head = self.method.head(subject)
        return head(next(iter(self.method.views(subject, "estimation", 1))))

    def bare(self, x: Tensor) -> Tensor:
        """Scores of the base model, without noise: ``(1, K, ...)``."""
        subject = self._subject(x)
        return self.method.head(subject)(self.method.view(subject, x.unsqueeze(0)))

    @torch.no_grad()
    def count(self, x: Tensor, start: int, count: int, tally: Tally) -> Any:
        """What a tally makes of fresh copies."""
        subject = self._subject(x.detach())
        head = self.method.head(subject)
        for views in self.method.views(replace(subject, seed=self.noise), PHASE, count, start):
            tally.add(head(views))
        return tally.counts()

    def _subject(self, x: Tensor) -> Subject:
        # No cache: it keeps embeddings without their gradients.
        engine = self.engine
        return Subject(x, self.item, self.seed, engine.law, self.batch_size, engine.streams)


class Fresh:
    """Hands out samples of a stream that nobody has seen, in whole chunks."""

    def __init__(self) -> None:
        self.position = 0

    def take(self, count: int) -> int:
        """The first of so many new samples."""
        start = self.position
        self.position += -(-count // CHUNK) * CHUNK
        return start
