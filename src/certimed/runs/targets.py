"""Parts of a request that what is loaded needs too: what is certified, and how prompts are tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from certimed.certificates import ClassClaim, MaskClaim
from certimed.errors import InputError
from certimed.metrics import EMPTY_NAMES
from certimed.statistics import BOUND_NAMES, CORRECTION_NAMES
from certimed.targets import check_tau


@dataclass(frozen=True)
class ClassTarget:
    """Labels are certified.

    Attributes:
        bound: see :class:`certimed.targets.Classes`.
    """

    bound: str = "one-sided"
    task: ClassVar[str] = ClassClaim.kind

    def check(self) -> None:
        """Refuse what is unknown with InputError."""
        if self.bound not in BOUND_NAMES:
            raise InputError(f"bound {self.bound} is unknown; use one of {', '.join(BOUND_NAMES)}")


@dataclass(frozen=True)
class MaskTarget:
    """Masks are certified.

    Attributes:
        taus, correction: see :class:`certimed.targets.Pixels`.
        empty: Dice of classes absent from truth and answer: ``"one"``, ``"zero"`` or ``"skip"``.
    """

    taus: tuple[float, ...] = (0.75,)
    correction: str = "holm"
    empty: str = "one"
    task: ClassVar[str] = MaskClaim.kind

    def check(self) -> None:
        """Refuse what is unknown or out of range with InputError."""
        if not self.taus:
            raise InputError("no tau is named; name one, e.g. 0.75")
        for tau in self.taus:
            check_tau(tau)
        if len(set(self.taus)) < len(self.taus):
            raise InputError(f"tau {','.join(map(repr, self.taus))} names one twice; name each once")
        for name, value, known in (
            ("correction", self.correction, CORRECTION_NAMES),
            ("empty", self.empty, EMPTY_NAMES),
        ):
            if value not in known:
                raise InputError(f"{name} {value} is unknown; use one of {', '.join(known)}")


@dataclass(frozen=True)
class Tuning:
    """Per-image tuning of prompts; see :func:`certimed.prompts.prompt_methods`.

    Attributes:
        initial_context: words the learnable context starts from; None takes them from the template.
        copies, steps, lr: noisy copies, steps and learning rate.
    """

    initial_context: str | None = None
    copies: int = 100
    steps: int = 1
    lr: float = 5e-3

    def __post_init__(self) -> None:
        for name, value in (("copies", self.copies), ("steps", self.steps)):
            if value < 1:
                raise InputError(f"{name}={value} of per-image tuning must be 1 or more")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr} of per-image tuning must be a positive number")
