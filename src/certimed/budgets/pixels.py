"""A budget for all pixels of an image: looks with alpha split over them and Holm inside each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.budgets.evidence import RISK
from certimed.budgets.kinds import look_shares
from certimed.budgets.session import Stop
from certimed.errors import InputError
from certimed.statistics import holm_threshold, minimum_count, samples_for_tau

Agreement = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class PixelLooks:
    """Looks at the agreement counts of all pixels; certified pixels stay certified.

    Guarantee: with probability at least 1 - alpha no certified pixel of the image has P(class) <= tau, under any
    dependence between pixels and whatever rule decides when to stop.
    Proof: half of alpha goes to the last look, the rest equally to the others; let a_i be the share of look i. At look
    i Holm's test at level a_i runs over the pixels not certified before. Consider the first look at which a wrong pixel
    is certified. No wrong one was before, so all I pixels with P(class) <= tau are still in the family. When Holm
    accepts the first of them, at least I pixels are left, so its p-value, from all n_i samples, is at most a_i / I.
    Some of I valid p-values is at most a_i / I with probability at most a_i. Union bound over the looks. Giving up on
    pixels only abstains.

    Args:
        sizes: increasing sample sizes; the last one is the cap.
        undecided: stop when at most this share of pixels is neither certified nor given up, 0 <= undecided < 1.
    """

    sizes: tuple[int, ...] = (100, 200, 400, 1_000)
    undecided: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        whole = all(isinstance(size, int) and size >= 1 for size in self.sizes)
        if not self.sizes or not whole or any(a >= b for a, b in pairwise(self.sizes)):
            raise InputError(f"looks must be increasing sample sizes, e.g. 100,200,400, but are {self.sizes}")
        if not 0 <= self.undecided < 1:
            raise InputError(f"undecided={self.undecided} must be a share of pixels, 0 <= undecided < 1")

    def __str__(self) -> str:
        return "pixels:" + ",".join(map(str, self.sizes)) + (f"/{self.undecided!r}" if self.undecided else "")

    @classmethod
    def parse(cls, text: str) -> PixelLooks:
        """Inverse of ``str``: ``pixels:100,200,400`` or ``pixels:100,400/0.01`` (undecided share after the slash).

        Raises:
            InputError: anything else.
        """
        name, _, body = text.strip().partition(":")
        sizes, slash, undecided = body.partition("/")
        try:
            if name != "pixels":
                raise ValueError
            values = {"sizes": tuple(int(size) for size in sizes.split(","))} if sizes else {}
            return cls(**values, undecided=float(undecided) if slash else 0.0)
        except ValueError:
            raise InputError(f"budget {text!r} is not understood; use e.g. pixels:100,200,400/0.01") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"kind": "pixels", "sizes": list(self.sizes), "undecided": self.undecided}

    def start(self, space: tuple[int, ...], tau: float, alpha: float) -> PixelSession:
        """Begin one image of this many pixels (``space`` is the shape of its mask).

        Raises:
            InputError: an argument out of range; a cap that could certify nothing (the message names the n needed).
        """
        return PixelSession(self, space, tau, alpha)


@dataclass(frozen=True)
class PixelOutcome:
    """What the looks proved.

    Attributes:
        accepted: bool ``space``, the certified pixels.
        stop, reason: why the samples ended.
        n: samples used.
        looks: (samples, threshold, share of alpha) of every look held, for the record: at that look the pixels with at
            least ``threshold`` agreeing samples were certified (None: none).
        undecided: share of pixels neither certified nor given up.
    """

    accepted: NDArray[np.bool_]
    stop: Stop
    reason: str
    n: int
    looks: tuple[tuple[int, int | None, float], ...]
    undecided: float


class PixelSession:
    """One image under :class:`PixelLooks`; holds one boolean a pixel, whatever n."""

    def __init__(self, budget: PixelLooks, space: tuple[int, ...], tau: float, alpha: float) -> None:
        self._budget, self._tau = budget, tau
        self._accepted = np.zeros(space, dtype=bool)
        if not self._accepted.size:
            raise InputError(f"space={space} has no pixels")
        self._shares = look_shares(len(budget.sizes), alpha)
        needed = samples_for_tau(tau, self._shares[-1], self._accepted.size)
        if budget.sizes[-1] < needed:
            raise InputError(
                f"n={budget.sizes[-1]} cannot certify tau={tau} over {self._accepted.size} pixels at alpha={alpha} "
                f"split over {len(budget.sizes)} looks; use a last look of n >= {needed}"
            )
        # One pixel alone needs this count at the cap; Holm never asks for less.
        self._target = minimum_count(budget.sizes[-1], tau, self._shares[-1]) or budget.sizes[-1]
        self._looks: list[tuple[int, int | None, float]] = []
        self._undecided = 1.0
        self._stopped: tuple[Stop, str] | None = None

    def next(self, agreement: Agreement, n: int) -> int:
        """Samples to draw before asking again; 0 to stop.

        Args:
            agreement: cumulative agreement counts, integers ``space`` (anything at n = 0).
            n: samples they were counted on.

        Raises:
            InputError: another shape, counts outside 0..n, n beyond the next look.
        """
        if self._stopped:
            return 0
        wanted = self._budget.sizes[len(self._looks)]
        if n > wanted:
            raise InputError(f"n={n} is beyond the next look at {wanted} samples; draw what next() says")
        if n < wanted:
            return wanted - n
        self._look(agreement, n)
        return 0 if self._stopped else self._budget.sizes[len(self._looks)] - n

    def finish(self, agreement: Agreement, n: int) -> PixelOutcome:
        """What was proved; legal at any moment. Arguments and errors as :meth:`next`."""
        self.next(agreement, n)
        stop, reason = self._stopped or ("interrupted", f"interrupted after {n} samples")
        return PixelOutcome(self._accepted.copy(), stop, reason, n, tuple(self._looks), self._undecided)

    def _look(self, agreement: Agreement, n: int) -> None:
        if agreement.shape != self._accepted.shape or agreement.dtype.kind not in "iu":
            raise InputError(f"agreement must be integers of shape {self._accepted.shape}, but is {agreement.shape}")
        if agreement.min() < 0 or agreement.max() > n:
            raise InputError(f"agreement counts must lie in 0..n={n}; pass cumulative counts")
        share = self._shares[len(self._looks)]
        family = np.bincount(agreement[~self._accepted], minlength=n + 1)
        threshold = holm_threshold(family, n, self._tau, share) if family.any() else None
        if threshold is not None:
            self._accepted |= agreement >= threshold
            # A pixel certified before may lie below the threshold and stays; one above it was in this family.
        self._looks.append((n, threshold, share))
        open_ = ~self._accepted & self._may_pass(n)[agreement]
        self._undecided = float(open_.mean())
        self._decide(n)

    def _decide(self, n: int) -> None:
        if self._undecided <= self._budget.undecided:
            certified = float(self._accepted.mean())
            self._stopped = (
                "answered" if certified else "futile",
                f"{'answered' if certified else 'futile'}: {certified:.2%} of pixels certified, "
                f"{self._undecided:.2%} undecided",
            )
        elif n == self._budget.sizes[-1]:
            self._stopped = "cap reached", f"cap reached: {n} samples, {self._undecided:.2%} of pixels undecided"

    def _may_pass(self, n: int) -> NDArray[np.bool_]:
        """For each count 0..n, whether a pixel may still be certified (as ``statistics.sequential.hopeless``)."""
        cap = self._budget.sizes[-1]
        counts = np.arange(n + 1)
        needed, remaining = self._target - counts, cap - n
        if remaining == 0:
            return np.zeros(n + 1, dtype=bool)
        upper = special.betainccinv(counts + 1.0, np.maximum(n - counts, 1), RISK)
        upper[-1] = 1.0
        inside = np.clip(needed, 1, remaining)
        likely = special.betainc(inside, remaining - inside + 1, upper) >= 0.5
        return np.asarray((needed <= 0) | ((needed <= remaining) & likely))
