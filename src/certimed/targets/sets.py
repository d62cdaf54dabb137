"""The set of classes that holds the true one under attack: conformal prediction on one noisy copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certimed.budgets import Budget, Copies, OnceSession, Outcome, start_once
from certimed.certificates import SetClaim, Share
from certimed.errors import ImageError, InputError
from certimed.noise import NoiseLaw
from certimed.statistics import SCORE_NAMES
from certimed.targets.classes import check_rows, default_batch_size
from certimed.targets.interval import SpaceTally
from certimed.targets.target import FiniteScores, Views


@dataclass(frozen=True)
class Sets:
    """The classes whose score on one noisy copy is at most a calibrated threshold.

    Attributes:
        num_classes: K, at least 2.
        score: one of :data:`certimed.statistics.SCORE_NAMES`.
        radii: L2, rising.
        thresholds: for each radius, of each class.
        calibration: digest of the calibration they are from.
        variation: what the calibration paid for the noise law's distance from the exact one.
    """

    num_classes: int
    score: str
    radii: tuple[float, ...]
    thresholds: tuple[tuple[float, ...], ...]
    calibration: str
    variation: float = 0.0
    kind: ClassVar[str] = SetClaim.kind
    selects: ClassVar[bool] = False
    reads_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.score not in SCORE_NAMES:
            raise InputError(f"sets of {self.num_classes} classes by score {self.score!r:.40} are not to be had")

    def answer(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return check_rows(scores, self.num_classes).argmax(dim=1)

    def compared(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return check_rows(scores, self.num_classes)

    def check(self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None) -> None:
        """See :class:`~certimed.targets.Target`."""
        check_once(shape, budget, law, views, self.variation)

    def select(self, shape: tuple[int, ...], device: torch.device, n0: int) -> SpaceTally:
        """Nothing is left to choose."""
        return SpaceTally(shape[1:])

    def estimate(self, selected: tuple[int, ...], device: torch.device, cap: int) -> ProbabilityTally:
        """See :class:`~certimed.targets.Target`."""
        return ProbabilityTally(self.num_classes, device)

    def start(
        self,
        selected: tuple[int, ...],
        shape: tuple[int, ...],
        budget: Budget,
        alpha: float,
        law: NoiseLaw,
        views: Views = None,
    ) -> OnceSession:
        """See :class:`~certimed.targets.Target`."""
        return start_once(budget)

    def claims(
        self, selected: tuple[int, ...], counts: Copies, outcome: Outcome[Copies | None], alpha: float, law: NoiseLaw
    ) -> Sequence[tuple[SetClaim, Share, Outcome[Copies | None]]]:
        """See :class:`~certimed.targets.Target`; alpha is the probability that the set misses the true class."""
        probabilities = tuple(counts.values[0].tolist())
        claim = SetClaim(probabilities, self.score, self.radii, self.thresholds, self.calibration)
        return [(claim, Share.alone(alpha), outcome)]

    def batch_size(self, shape: tuple[int, ...], device: torch.device) -> int:
        """See :func:`~certimed.targets.default_batch_size`."""
        return default_batch_size(shape, device)


class ProbabilityTally:
    """The softmax of every copy's scores, in float64 on the CPU."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._classes = num_classes
        self._finite = FiniteScores(device)
        self._rows: list[Tensor] = []

    def add(self, scores: Tensor, copies: Tensor | None = None) -> None:
        """See :class:`~certimed.targets.Tally`."""
        self._finite.see(check_rows(scores, self._classes))
        self._rows.append(scores.detach().to("cpu", torch.float64).softmax(dim=1).clamp(0, 1))

    def counts(self) -> Copies:
        """float64 ``(n, K)``."""
        self._finite.require()
        rows = torch.cat(self._rows).numpy() if self._rows else np.empty((0, self._classes))
        return Copies(len(rows), rows)


def check_once(shape: tuple[int, ...], budget: Budget, law: NoiseLaw, views: Views, paid: float) -> None:
    """What sets and controlled masks ask for: one copy of one view, of an image no larger than those calibrated on.

    Raises:
        InputError: another budget, or two views. ImageError: an image so large that its noise may be further from the
            exact law than the calibration paid for.
    """
    start_once(budget)
    if views is not None:
        raise InputError("a method of two views takes two noisy copies of an image, and a set is of one; leave it out")
    if law.variation(math.prod(shape)) > paid:
        raise ImageError(f"an image of shape {shape} is larger than every calibration image; calibrate on such images")
