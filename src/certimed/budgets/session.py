"""One image under a budget: how many samples next, when to stop, what was proved and why it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from certimed.budgets.evidence import Counts, Evidence, nothing_proved
from certimed.errors import InputError
from certimed.statistics import ClassBound

Stop = Literal["answered", "futile", "cap reached", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """What a budget's samples proved.

    Guarantee: with probability at least ``1 - alpha`` over the estimation noise (alpha as given to ``start``), a bound
    that does not abstain is right (see the budget for the proof).

    Attributes:
        bound: the strongest bound proved at any look.
        stop: ``"answered"``, ``"futile"`` (gave up, which only abstains), ``"cap reached"`` or ``"interrupted"``.
        reason: the same in a sentence, e.g. ``"answered: between reported radii 0.5 and 0.75"``. What it says about the
            radius not reached is a forecast; what it says about the radius reached is proved.
        n: estimation samples drawn.
        looks: how often the counts were looked at.
        proved_at: cumulative counts at the look that gave ``bound`` (empty if nothing was proved); with the budget they
            give the bound again, see :meth:`certimed.budgets.Budget.bound_at`.
    """

    bound: ClassBound
    stop: Stop
    reason: str
    n: int
    looks: int
    proved_at: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The part a certificate records next to its bound: plain JSON types."""
        return {
            "stop": self.stop,
            "reason": self.reason,
            "n": self.n,
            "looks": self.looks,
            "proved_at": list(self.proved_at),
        }


class Question:
    """When the samples have answered what was asked; free to use any estimate, since stopping claims nothing.

    This one uses every sample.
    """

    def decide(self, evidence: Evidence, counts: Counts, radius: float) -> tuple[Stop, str] | None:
        """Why to stop now, or None to go on; ``radius`` is proved already (0: nothing)."""
        return None

    def at_cap(self, n: int) -> tuple[Stop, str]:
        """Why there are no more samples after the last look, at n samples."""
        return "cap reached", f"cap reached: {n} samples"


@dataclass(frozen=True)
class WhichRadius(Question):
    """The place of the radius among reported radii: stop when the next one up is (very likely) out of reach."""

    radii: tuple[float, ...]

    def decide(self, evidence: Evidence, counts: Counts, radius: float) -> tuple[Stop, str] | None:
        reached = [r for r in self.radii if r < radius]
        if len(reached) == len(self.radii):
            return "answered", f"answered: above reported radius {self.radii[-1]:g}"
        following = self.radii[len(reached)]
        if not evidence.gives_up(counts, following):
            return None
        if not reached:
            return "futile", f"futile: not above reported radius {following:g}"
        return "answered", f"answered: between reported radii {reached[-1]:g} and {following:g}"


@dataclass(frozen=True)
class Planned(Question):
    """One look, at a size planned from the selection samples."""

    agreeing: int
    n0: int

    def at_cap(self, n: int) -> tuple[Stop, str]:
        return "answered", f"answered: {n} samples planned from {self.agreeing} of {self.n0} selection samples"


class Session:
    """Tells how many samples to draw next, and finishes with an :class:`Outcome`. Made by ``budget.start``.

    ``next`` must be asked after exactly the samples it wished for (or fewer: it then asks for the rest).
    """

    def __init__(self, evidence: Evidence, question: Question, classes: int, method: str) -> None:
        self._evidence, self._question, self._classes = evidence, question, classes
        self._best = nothing_proved(method)
        self._proved_at: tuple[int, ...] = ()
        self._look = 0
        self._seen = np.zeros(classes, dtype=np.int64)
        self._stopped: tuple[Stop, str] | None = None

    @property
    def cap(self) -> int:
        """Most estimation samples this session can ask for."""
        return self._evidence.looks[-1]

    def next(self, counts: ArrayLike) -> int:
        """Estimation samples to draw before asking again; 0 to stop.

        Args:
            counts: cumulative estimation counts of all classes, integers (K,); zeros before the first sample.

        Raises:
            InputError: counts of another shape, not integers, falling, or beyond the next look.
        """
        n = self._take(self._checked(counts))
        return 0 if self._stopped else self._evidence.looks[self._look] - n

    def run(self, draw: Callable[[int, int], ArrayLike]) -> tuple[Counts, Outcome]:
        """Draw until the budget stops.

        Args:
            draw: ``draw(start, n)`` gives the counts of samples ``start .. start + n - 1``, integers (K,).

        Returns:
            the counts of all samples drawn, int64 (K,), and what they proved.
        """
        counts = np.zeros(self._classes, dtype=np.int64)
        while more := self.next(counts):
            counts = counts + np.asarray(draw(int(counts.sum()), more))
        return counts, self.finish(counts)

    def finish(self, counts: ArrayLike) -> Outcome:
        """What was proved; legal at any moment, since stopping early for any reason is sound.

        Raises:
            InputError: as :meth:`next`.
        """
        n = self._take(self._checked(counts))
        stop, reason = self._stopped or ("interrupted", f"interrupted after {n} samples")
        return Outcome(self._best, stop, reason, n, self._look, self._proved_at)

    def _take(self, counts: Counts) -> int:
        n = int(counts.sum())
        if self._stopped is None and n == self._evidence.looks[self._look]:
            self._evaluate(counts, n)
        self._seen = counts
        return n

    def _evaluate(self, counts: Counts, n: int) -> None:
        bound = self._evidence.bound(self._look, counts)
        if bound.radius > self._best.radius or self._look == 0 or (self._best.abstained and bound.abstained):
            self._best = bound
            self._proved_at = () if bound.abstained else tuple(int(count) for count in counts)
        self._look += 1
        self._stopped = self._question.decide(self._evidence, counts, self._best.radius)
        if self._look == len(self._evidence.looks):
            # At the cap nothing is forecast any more: what is not proved stays open.
            self._stopped = self._question.at_cap(n)

    def _checked(self, counts: ArrayLike) -> Counts:
        array = np.asarray(counts)
        if array.shape != (self._classes,) or array.dtype.kind not in "iu":
            raise InputError(
                f"counts must be {self._classes} integers, one a class, but have shape {array.shape} and "
                f"dtype {array.dtype}"
            )
        array = array.astype(np.int64)
        if (array < self._seen).any():
            raise InputError("counts must be cumulative over the estimation samples, but a class's count has fallen")
        limit = int(self._seen.sum()) if self._stopped else self._evidence.looks[self._look]
        if array.sum() > limit:
            raise InputError(
                f"counts sum to {array.sum()}, beyond the {limit} samples asked for; draw what next() says"
            )
        return array
