"""The class of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, Outcome, Session
from certimed.certificates import ClassClaim, Share
from certimed.errors import InputError
from certimed.noise import NoiseLaw, sample_variation
from certimed.statistics import ClassBound
from certimed.targets.target import FiniteScores, Views, check_scores

Counts = NDArray[np.int64]

# Values of noise a batch. A CPU is fastest while activations stay in its caches (measured on the demo model: 918 noisy
# copies a second a core in batches of 32, 658 in batches of 448); a GPU wants to be kept busy.
_BATCH_VALUES = {"cpu": 1 << 21}
_BATCH_VALUES_ELSEWHERE = 1 << 25


def default_batch_size(shape: tuple[int, ...], device: torch.device | str = "cpu") -> int:
    """Samples a batch for images ``(C, *space)``: at most 1024; 8 MiB of noise on a CPU, 128 MiB elsewhere."""
    limit = _BATCH_VALUES.get(torch.device(device).type, _BATCH_VALUES_ELSEWHERE)
    return max(1, min(1024, limit // math.prod(shape)))


@dataclass(frozen=True)
class Classes:
    """The most probable class of the noisy image.

    Attributes:
        num_classes: K, at least 2.
        bound: ``"one-sided"`` (Clopper-Pearson), ``"two-sided"`` or ``"best"``.
    """

    num_classes: int
    bound: str = "one-sided"
    kind: ClassVar[str] = ClassClaim.kind

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InputError(f"num_classes={self.num_classes} leaves nothing to decide; use 2 or more")

    def answer(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return check_rows(scores, self.num_classes).argmax(dim=1)

    def compared(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return check_rows(scores, self.num_classes)

    def check(self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None) -> None:
        """See :class:`~certimed.targets.Target`."""
        self.start(np.ones(self.num_classes, dtype=np.int64), shape, budget, alpha, law, views)

    def select(self, shape: tuple[int, ...], device: torch.device, n0: int) -> ClassTally:
        """See :class:`~certimed.targets.Target`."""
        return ClassTally(self.num_classes, device)

    def estimate(self, selected: Counts, device: torch.device, cap: int) -> ClassTally:
        """See :class:`~certimed.targets.Target`."""
        return ClassTally(self.num_classes, device)

    def start(
        self, selected: Counts, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None
    ) -> Session[Counts, ClassBound]:
        """See :class:`~certimed.targets.Target`."""
        return budget.start(selected, alpha, law.sigma, self.bound, sample_variation(law, math.prod(shape), views))

    def claims(
        self, selected: Counts, counts: Counts, outcome: Outcome[ClassBound], alpha: float, law: NoiseLaw
    ) -> Sequence[tuple[ClassClaim, Share, Outcome[ClassBound]]]:
        """See :class:`~certimed.targets.Target`."""
        proved = outcome.bound
        claim = ClassClaim(
            prediction=int(np.argmax(selected)),
            abstained=bool(proved.abstained),
            radius=float(proved.radius),
            p_lower=float(proved.p_lower),
            q_upper=None if proved.q_upper is None else float(proved.q_upper),
            bound=self.bound,
            counts=tuple(int(count) for count in counts),
            selection=tuple(int(count) for count in selected),
        )
        return [(claim, Share.alone(alpha), outcome)]

    def batch_size(self, shape: tuple[int, ...], device: torch.device) -> int:
        """See :func:`default_batch_size`."""
        return default_batch_size(shape, device)


class ClassTally:
    """How often each class wins; ties go to the lowest class index, which keeps the base classifier a function."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._classes = num_classes
        self._counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self._finite = FiniteScores(device)

    def add(self, scores: Tensor) -> None:
        """See :class:`~certimed.targets.Tally`."""
        check_rows(scores, self._classes)
        self._counts += torch.bincount(scores.argmax(dim=1), minlength=self._classes)
        self._finite.see(scores)

    def counts(self) -> Counts:
        """int64 ``(K,)``."""
        self._finite.require()
        # A copy: on the CPU the array would share its memory with what is still being counted.
        counts: Counts = self._counts.cpu().numpy().copy()
        return counts


def check_rows(scores: Tensor, classes: int) -> Tensor:
    """Scores ``(B, K)``, else ModelError."""
    return check_scores(scores, (len(scores) if isinstance(scores, Tensor) and scores.ndim else 0, classes))
