"""When an image's samples have answered what was asked. Rules of stopping claim nothing, so any estimate will do."""

from __future__ import annotations

from certimed.budgets.evidence import ClassEvidence, Counts
from certimed.budgets.stops import Stop
from certimed.statistics import ClassBound


class AllSamples:
    """Every sample is used.

    Args:
        looks: of the evidence.
        planned_from: selection samples that agreed, where the number of samples was planned from them.
    """

    def __init__(self, looks: tuple[int, ...], planned_from: int | None = None) -> None:
        self._last, self._planned_from = len(looks) - 1, planned_from

    def decide(self, look: int, counts: Counts, bound: ClassBound) -> Stop | None:
        """See :class:`certimed.budgets.session.Question`."""
        if look < self._last:
            return None
        return Stop("cap reached") if self._planned_from is None else Stop("answered", agreeing=self._planned_from)


class ReportedRadii:
    """The place of the radius among reported radii: stop when the next one up is (very likely) out of reach."""

    def __init__(self, evidence: ClassEvidence, radii: tuple[float, ...]) -> None:
        self._evidence, self._radii = evidence, radii

    def decide(self, look: int, counts: Counts, bound: ClassBound) -> Stop | None:
        """See :class:`certimed.budgets.session.Question`."""
        reached = [radius for radius in self._radii if radius < bound.radius]
        above = reached[-1] if reached else None
        if len(reached) == len(self._radii):
            return Stop("answered", above=above)
        below = self._radii[len(reached)]
        if look == len(self._evidence.looks) - 1:
            # At the cap nothing is forecast any more: what is not proved stays open.
            return Stop("cap reached", above=above, below=below)
        if not self._evidence.gives_up(counts, below):
            return None
        return Stop("answered" if reached else "futile", above=above, below=below)
