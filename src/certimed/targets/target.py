"""The contract of a target: how scores become integers, and integers a claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from certimed.budgets import Budget, Outcome, Session
from certimed.certificates import Claim, Share
from certimed.errors import ModelError
from certimed.noise import NoiseLaw

Views: TypeAlias = tuple[float, float] | None
"""Noise levels of the views, where a sample consists of two."""

C_co = TypeVar("C_co", bound=Claim, covariant=True)


class Tally(Protocol):
    """Integers counted on the model's device; nothing in it grows with the number of samples."""

    def add(self, scores: Tensor) -> None:
        """Count one batch of scores; ModelError for scores of the wrong shape."""

    def counts(self) -> Any:
        """What was counted so far, on the CPU; ModelError if any score was not finite."""


class Target(Protocol[C_co]):
    """What is certified.

    Attributes:
        kind: name of the claim's kind in JSON.
    """

    kind: ClassVar[str]

    @property
    def num_classes(self) -> int:
        """K."""

    def answer(self, scores: Tensor) -> Tensor:
        """The answer to each row of scores, integers ``(B, ...)``; ties go to the lowest class."""

    def compared(self, scores: Tensor) -> Tensor:
        """Scores of which the highest one wins ``(B, K, ...)``, whatever the model returns."""

    def check(self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None) -> None:
        """Before any sampling: InputError where budget and target do not fit, or could only abstain."""

    def select(self, shape: tuple[int, ...], device: torch.device, n0: int) -> Tally:
        """A tally of the selection samples of an input ``(C, *space)``."""

    def estimate(self, selected: Any, device: torch.device, cap: int) -> Tally:
        """A tally of at most ``cap`` estimation samples, given what the selection samples chose."""

    def start(
        self, selected: Any, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None
    ) -> Session[Any, Any]:
        """The session of one image; InputError where budget and target do not fit."""

    def claims(
        self, selected: Any, counts: Any, outcome: Outcome[Any], alpha: float, law: NoiseLaw
    ) -> Sequence[tuple[C_co, Share, Outcome[Any]]]:
        """What the samples prove: the claims, each with its share of alpha and its own view of the outcome."""

    def batch_size(self, shape: tuple[int, ...], device: torch.device) -> int:
        """Samples a forward pass that suit the device's caches, for an input ``(C, *space)``."""


def check_scores(scores: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the scores if they have the promised shape, else raise ModelError naming both shapes."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(f"the model returned {got} where scores of shape {shape} were expected; check num_classes")
    return scores


class FiniteScores:
    """Remembers on the device whether every score was finite, so that no batch waits for the answer."""

    def __init__(self, device: torch.device) -> None:
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def see(self, scores: Tensor) -> None:
        """Look at one batch; its extremes are not finite if any score is not."""
        for extreme in torch.aminmax(scores):
            self._finite &= torch.isfinite(extreme)

    def require(self) -> None:
        """Raise ModelError if any score was not finite."""
        if not bool(self._finite):
            raise ModelError("the model returned scores that are not finite on noisy copies; no class can be counted")
