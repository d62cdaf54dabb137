"""One image under a budget: how many samples next, when to stop, what was proved and why it stopped.

The same session serves every kind of answer. What counts prove is the business of an :class:`Evidence`; when the
samples have answered what was asked, of a :class:`Question`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from certimed.budgets.stops import Stop
from certimed.errors import InputError

Counts = TypeVar("Counts")
Bound = TypeVar("Bound")
Given_contra = TypeVar("Given_contra", contravariant=True)  # counts, and a bound, as a question is given them
Held_contra = TypeVar("Held_contra", contravariant=True)


class Evidence(Protocol[Counts, Bound]):
    """Looks, and what may be claimed at each; counts are cumulative over the estimation samples."""

    looks: tuple[int, ...]

    def checked(self, counts: Counts, before: Counts | None) -> tuple[Counts, int]:
        """The counts and how many samples they are of; InputError for counts that cannot follow those before."""
        ...

    def nothing(self) -> Bound:
        """What is claimed before any look."""
        ...

    def bound(self, look: int, counts: Counts) -> Bound:
        """What the counts prove at look number ``look``. All looks together fail with probability at most alpha."""
        ...

    def better(self, new: Bound, old: Bound) -> bool:
        """Whether a look's bound takes the place of the one held."""
        ...

    def trace(self, look: int, counts: Counts, bound: Bound) -> tuple[int, ...]:
        """The integers of this look that are recorded: with them the claim can be recomputed."""
        ...


class Question(Protocol[Given_contra, Held_contra]):
    """When the samples have answered what was asked; free to use any estimate, since stopping claims nothing."""

    def decide(self, look: int, counts: Given_contra, bound: Held_contra) -> Stop | None:
        """Why to stop now, or None to go on; after the last look an answer is owed."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[Bound]):
    """What a budget's samples proved.

    Guarantee: with probability at least ``1 - alpha`` over the estimation noise (alpha as given to ``start``), what
    ``bound`` claims is right (see the budget for the proof).

    Attributes:
        bound: what is claimed: for classes the strongest bound proved at any look, for masks the last look's.
        stop: why the samples ended.
        n: estimation samples drawn.
        looks: the integers recorded at every look held, see the evidence's ``trace``; the first of each is the number
            of samples.
        proved_at: number of the look that gave ``bound``, from 0; None where nothing was looked at.
    """

    bound: Bound
    stop: Stop
    n: int
    looks: tuple[tuple[int, ...], ...]
    proved_at: int | None


class Session(Generic[Counts, Bound]):
    """Tells how many samples to draw next, and finishes with an :class:`Outcome`. Made by a budget.

    ``next`` must be asked after exactly the samples it wished for (or fewer: it then asks for the rest).
    """

    def __init__(self, evidence: Evidence[Counts, Bound], question: Question[Counts, Bound]) -> None:
        self._evidence, self._question = evidence, question
        self._bound = evidence.nothing()
        self._proved_at: int | None = None
        self._looks: list[tuple[int, ...]] = []
        self._seen: Counts | None = None
        self._drawn = 0
        self._stop: Stop | None = None

    @property
    def cap(self) -> int:
        """Most estimation samples this session can ask for."""
        return self._evidence.looks[-1]

    def next(self, counts: Counts) -> int:
        """Estimation samples to draw before asking again; 0 to stop.

        Args:
            counts: cumulative estimation counts; zeros before the first sample.

        Raises:
            InputError: counts of another shape, not integers, falling, or beyond the next look.
        """
        self._take(counts)
        return 0 if self._stop else self._evidence.looks[len(self._looks)] - self._drawn

    def run(self, draw: Callable[[int, int], Counts], counts: Counts) -> Outcome[Bound]:
        """Draw until the budget stops.

        Args:
            draw: ``draw(start, n)`` draws samples ``start .. start + n - 1`` and gives the *cumulative* counts.
            counts: those before the first sample.
        """
        while more := self.next(counts):
            counts = draw(self._drawn, more)
        return self.finish(counts)

    def finish(self, counts: Counts) -> Outcome[Bound]:
        """What was proved; legal at any moment, since stopping early for any reason is sound.

        Raises:
            InputError: as :meth:`next`.
        """
        self._take(counts)
        stop = self._stop or Stop("interrupted")
        return Outcome(self._bound, stop, self._drawn, tuple(self._looks), self._proved_at)

    def _take(self, counts: Counts) -> None:
        counts, n = self._evidence.checked(counts, self._seen)
        looks = self._evidence.looks
        limit = self._drawn if self._stop else looks[len(self._looks)]
        if n > limit:
            raise InputError(f"counts are of {n} samples, beyond the {limit} asked for; draw what next() says")
        self._seen, self._drawn = counts, n
        if self._stop is None and n == limit:
            self._look(len(self._looks), counts)

    def _look(self, look: int, counts: Counts) -> None:
        bound = self._evidence.bound(look, counts)
        if look == 0 or self._evidence.better(bound, self._bound):
            self._bound, self._proved_at = bound, look
        self._looks.append(self._evidence.trace(look, counts, bound))
        self._stop = self._question.decide(look, counts, self._bound)
