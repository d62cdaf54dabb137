"""What agreement counts of all pixels prove at each look, at one or several taus, and when to stop drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.budgets.evidence import RISK
from certimed.budgets.kinds import Budget, look_shares
from certimed.budgets.session import Session
from certimed.budgets.stops import Stop
from certimed.errors import InputError
from certimed.statistics import count_threshold, minimum_count, require_samples_for_tau, upper_more

_PIECE = 1 << 20
Thresholds: TypeAlias = tuple[int | None, ...]
"""For each tau the smallest agreement that is certified, or None where no pixel is."""


class Agreement(NamedTuple):
    """Cumulative counts of a mask: ``n`` samples, of which so many agree with the candidate class at each pixel."""

    n: int
    counts: NDArray[np.integer[Any]]

    def histogram(self) -> NDArray[np.int64]:
        """int64 ``(n + 1,)``: pixels by their count; in pieces, as numpy makes eight bytes of each."""
        flat, found = self.counts.ravel(), np.zeros(self.n + 1, np.int64)
        for begin in range(0, flat.size, _PIECE):
            found += np.bincount(flat[begin : begin + _PIECE], minlength=self.n + 1)
        return found


PixelSession: TypeAlias = Session[Agreement, Thresholds]


def start_mask(
    budget: Budget,
    space: tuple[int, ...],
    taus: Sequence[float],
    shares: Sequence[float],
    correction: str = "holm",
    variation: float = 0.0,
) -> PixelSession:
    """Begin one image whose answer is a mask.

    Args:
        budget: :class:`~certimed.budgets.Fixed` or :class:`~certimed.budgets.PixelLooks`.
        space: shape of the mask.
        taus: probabilities to exceed; each is tested on its own.
        shares: failure probability of each tau, all looks together.
        correction: ``"holm"`` or ``"bonferroni"``.
        variation: see :mod:`certimed.budgets.evidence`.

    Raises:
        InputError: an argument out of range; a cap that could certify nothing (the message names the n needed).
    """
    sizes, undecided = budget.mask_looks()
    evidence = PixelEvidence(sizes, space, taus, shares, correction, variation)
    return Session(evidence, Undecided(evidence, undecided))


class PixelEvidence:
    """The family-wise test of all pixels at each look; see :class:`~certimed.budgets.PixelLooks` for the proof.

    The candidate class's probability under the noise that is drawn differs from the one under the exact law by at most
    ``variation``; so "at most tau" under the exact law implies "at most tau + variation" under the noise drawn, and
    that is the hypothesis tested.
    """

    def __init__(
        self,
        looks: tuple[int, ...],
        space: tuple[int, ...],
        taus: Sequence[float],
        shares: Sequence[float],
        correction: str,
        variation: float,
    ) -> None:
        self.looks, self.space, self.correction = looks, tuple(space), correction
        self.pixels = int(np.prod(self.space))
        if not self.pixels:
            raise InputError(f"space={space} has no pixels")
        self.taus = tuple(float(upper_more(tau, variation)) for tau in taus)
        self.levels = tuple(look_shares(len(looks), share) for share in shares)
        for tau, levels in zip(taus, self.levels):
            require_samples_for_tau(looks[-1], tau, levels[-1], self.pixels, correction=correction)

    def checked(self, counts: Agreement, before: Agreement | None) -> tuple[Agreement, int]:
        """See :class:`certimed.budgets.session.Evidence`."""
        n, agreement = counts
        if agreement.shape != self.space or agreement.dtype.kind not in "iu":
            raise InputError(f"agreement must be integers of shape {self.space}, but is {agreement.shape}")
        if agreement.min() < 0 or agreement.max() > n:
            raise InputError(f"agreement counts must lie in 0..n={n}; pass cumulative counts")
        if before is not None:
            more = np.subtract(agreement, before.counts, dtype=np.int32)
            if more.min() < 0 or more.max() > n - before.n:
                raise InputError(
                    f"agreement of {n} samples cannot follow that of {before.n}: a count has fallen, or risen by more "
                    "than were drawn; pass cumulative counts"
                )
        # A copy: what is counted on may share its memory with what was given.
        return Agreement(n, agreement.copy()), n

    def nothing(self) -> Thresholds:
        """See :class:`certimed.budgets.session.Evidence`."""
        return (None,) * len(self.taus)

    def bound(self, look: int, counts: Agreement) -> Thresholds:
        """See :class:`certimed.budgets.session.Evidence`."""
        histogram = counts.histogram()
        return tuple(
            count_threshold(histogram, counts.n, tau, levels[look], self.correction)
            for tau, levels in zip(self.taus, self.levels)
        )

    def better(self, new: Thresholds, old: Thresholds) -> bool:
        """The last look held is what counts."""
        return True

    def trace(self, look: int, counts: Agreement, bound: Thresholds) -> tuple[int, ...]:
        """Samples seen, and for each tau the threshold (0 where no pixel is certified)."""
        return counts.n, *(threshold or 0 for threshold in bound)


class Undecided:
    """Stop when at most a share of the pixels is neither certified nor given up, at every tau."""

    def __init__(self, evidence: PixelEvidence, share: float) -> None:
        self._evidence, self._share = evidence, share

    def decide(self, look: int, counts: Agreement, bound: Thresholds) -> Stop | None:
        """See :class:`certimed.budgets.session.Question`."""
        own = self._evidence
        if len(own.looks) == 1:
            return Stop("cap reached")
        histogram = counts.histogram()
        undecided, certified = 0, 0
        for threshold, tau, levels in zip(bound, own.taus, own.levels):
            below = histogram[:threshold]
            certified += own.pixels - int(below.sum())
            undecided = max(undecided, self._open(below, counts.n, tau, levels[-1]))
        if undecided <= self._share * own.pixels:
            return Stop("answered" if certified else "futile", undecided=undecided)
        return Stop("cap reached", undecided=undecided) if look == len(own.looks) - 1 else None

    def _open(self, below: NDArray[np.int64], n: int, tau: float, level: float) -> int:
        """Pixels among those not certified that may still be."""
        hopeless, still = 0, below
        for _ in range(2):  # the more pixels are hopeless, the more a step-down test asks of the others
            may_pass = self._may_pass(n, tau, level, hopeless)[: below.size]
            hopeless, still = int(below[~may_pass].sum()), below[may_pass]
        return int(still.sum())

    def _may_pass(self, n: int, tau: float, level: float, hopeless: int) -> NDArray[np.bool_]:
        """For each count 0..n, whether a pixel may still be certified (as ``statistics.sequential.hopeless``).

        At the cap it then needs at least the count of the last step, where the hopeless pixels are still to come.
        """
        cap, counts = self._evidence.looks[-1], np.arange(n + 1)
        remaining = cap - n
        if remaining == 0:  # more samples would decide these, but there are none
            return np.asarray(counts > tau * n)
        family = self._evidence.pixels if self._evidence.correction == "bonferroni" else hopeless + 1
        needed = (minimum_count(cap, tau, min(level / family, 1 - 1e-9)) or cap) - counts
        upper = special.betainccinv(counts + 1.0, np.maximum(n - counts, 1), RISK)
        upper[-1] = 1.0
        inside = np.clip(needed, 1, remaining)
        likely = special.betainc(inside, remaining - inside + 1, upper) >= 0.5
        return np.asarray((needed <= 0) | ((needed <= remaining) & likely))
