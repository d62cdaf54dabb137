"""A budget for all pixels of an image: looks with alpha split over them and a family-wise test inside each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certimed.budgets.evidence import RISK
from certimed.budgets.kinds import look_shares
from certimed.budgets.session import Stop
from certimed.errors import InputError
from certimed.statistics import count_threshold, minimum_count, samples_for_tau

_MOST = 10**6

Agreement = NDArray[np.integer[Any]]


class Look(NamedTuple):
    """One look at the agreement counts of all pixels.

    Attributes:
        n: samples seen.
        threshold: smallest agreement that is certified at this look, or None where no pixel is.
        alpha: this look's share of the failure probability.
    """

    n: int
    threshold: int | None
    alpha: float


@dataclass(frozen=True)
class PixelLooks:
    """Looks at the agreement counts of all pixels, and stops when they are decided; the last look held is what counts.

    Guarantee: with probability at least 1 - alpha no pixel that the last look held certifies has P(class) <= tau, under
    any dependence between pixels and whatever rule decides which look is the last.
    Proof: half of alpha goes to the last look, the rest equally to the others; let a_i be the share of look i. The test
    of look i (Holm's, Bonferroni's) runs over *all* pixels at level a_i, so whether or not the look is held, it would
    certify a wrong pixel with probability at most a_i. By the union bound no look would with probability at least
    1 - alpha; then neither does the one that is last. Under Lehmann-Romano's test replace "a wrong pixel" by "k_fwer or
    more". Giving up on pixels only abstains.

    A finer procedure keeps what earlier looks certified and takes it out of the family. On the demo model it certifies
    at most 0.03 % more of the pixels, and could only be checked with the counts of every look; here the counts of the
    last look, which the certificate holds anyway, are the whole evidence.

    Args:
        sizes: increasing sample sizes; the last one is the cap.
        undecided: stop when at most this share of pixels is neither certified nor given up, 0 <= undecided < 1.
    """

    sizes: tuple[int, ...] = (100, 200, 400, 1_000)
    undecided: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        whole = all(isinstance(size, int) and 1 <= size <= _MOST for size in self.sizes)
        if not self.sizes or not whole or any(a >= b for a, b in pairwise(self.sizes)):
            raise InputError(
                f"looks must be increasing sample sizes up to {_MOST}, e.g. 100,200,400, but are {self.sizes}"
            )
        if not 0 <= self.undecided < 1:
            raise InputError(f"undecided={self.undecided} must be a share of pixels, 0 <= undecided < 1")

    def __str__(self) -> str:
        return "pixels:" + ",".join(map(str, self.sizes)) + (f"/{self.undecided!r}" if self.undecided else "")

    @property
    def cap(self) -> int:
        """Most estimation samples one image can cost."""
        return self.sizes[-1]

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

    def start(
        self, space: tuple[int, ...], tau: float, alpha: float, correction: str = "holm", k_fwer: int = 1
    ) -> PixelSession:
        """Begin one image of this many pixels (``space`` is the shape of its mask).

        Raises:
            InputError: an argument out of range; a cap that could certify nothing (the message names the n needed).
        """
        return PixelSession(self, space, tau, alpha, correction, k_fwer)


def as_pixel_budget(budget: PixelLooks | int | str | None, n: int | None, default: int) -> PixelLooks | int:
    """The looks, or the fixed number of samples, that the arguments ``budget`` and ``n`` of a ``certify`` ask for.

    Args:
        budget: looks; a number of samples; or the spelling of either: ``pixels:100,200,400/0.01``, ``400``,
            ``fixed:400``.
        n: a number of samples.
        default: the number of samples where both are None.

    Raises:
        InputError: both are given, or what is given is no budget for pixels.

    >>> as_pixel_budget("pixels:100,200", None, 100), as_pixel_budget("fixed:200", None, 100)
    (PixelLooks(sizes=(100, 200), undecided=0.0), 200)
    """
    if budget is not None and n is not None:
        raise InputError(f"n={n} and budget={budget!s:.80} both say how many samples to draw; give one of them")
    chosen = n if budget is None else budget
    if isinstance(chosen, str):
        number = chosen.strip().removeprefix("fixed:")
        return int(number) if number.isdecimal() else PixelLooks.parse(chosen)
    if chosen is None or isinstance(chosen, PixelLooks):
        return default if chosen is None else chosen
    if isinstance(chosen, bool) or not hasattr(chosen, "__index__"):
        raise InputError(f"budget={chosen!r:.80} is no budget for pixels; pass PixelLooks, its spelling, or a number")
    return int(chosen)


@dataclass(frozen=True)
class PixelOutcome:
    """What the looks proved.

    Attributes:
        threshold: pixels with at least this many agreeing samples at the last look held are certified; None: no pixel.
        stop, reason: why the samples ended.
        n: samples used.
        looks: every look held, for the record.
        undecided: share of pixels neither certified nor given up; at the cap, of those not certified whose agreement
            exceeds tau.
    """

    threshold: int | None
    stop: Stop
    reason: str
    n: int
    looks: tuple[Look, ...]
    undecided: float


class PixelSession:
    """One image under :class:`PixelLooks`; holds nothing that grows with the image.

    ::

        for size in budget.sizes:
            agreement = agreement + draw(size - n)
            if not session.look(agreement): break
        outcome = session.outcome()
    """

    def __init__(
        self, budget: PixelLooks, space: tuple[int, ...], tau: float, alpha: float, correction: str, k_fwer: int
    ) -> None:
        self._budget, self._space, self._tau = budget, tuple(space), tau
        self._correction, self._k_fwer = correction, k_fwer
        pixels = int(np.prod(self._space))
        if not pixels:
            raise InputError(f"space={space} has no pixels")
        self._shares = look_shares(len(budget.sizes), alpha)
        needed = samples_for_tau(tau, self._shares[-1], pixels, correction, j=k_fwer)
        if budget.cap < needed:
            raise InputError(
                f"the last look of budget {budget} is too early: n={budget.cap} cannot certify tau={tau} over {pixels} "
                f"pixels at its share {self._shares[-1]:g} of alpha={alpha}; use n >= {needed}"
            )
        self._pixels = pixels
        self._looks: list[Look] = []
        self._undecided = 1.0
        self._stopped: tuple[Stop, str] | None = None

    def look(self, agreement: Agreement) -> bool:
        """Look at the counts after the next of the budget's sizes; returns whether more samples are worth drawing.

        A session that would stop may be looked at again (several statements can share their samples): any rule may
        choose the last look.

        Args:
            agreement: cumulative agreement counts, integers ``space``.

        Raises:
            InputError: another shape, counts outside 0..n, every look held already.
        """
        if len(self._looks) == len(self._budget.sizes):
            raise InputError(f"all {len(self._looks)} looks of budget {self._budget} have been held")
        n, share = self._budget.sizes[len(self._looks)], self._shares[len(self._looks)]
        if agreement.shape != self._space or agreement.dtype.kind not in "iu":
            raise InputError(f"agreement must be integers of shape {self._space}, but is {agreement.shape}")
        if agreement.min() < 0 or agreement.max() > n:
            raise InputError(f"agreement counts must lie in 0..n={n}; pass cumulative counts")
        pixels_at = np.bincount(agreement.ravel(), minlength=n + 1)
        threshold = count_threshold(pixels_at, n, self._tau, share, self._correction, self._k_fwer)
        self._looks.append(Look(n, threshold, share))
        below = pixels_at[:threshold]
        hopeless = 0
        for _ in range(2):  # the more pixels are hopeless, the more a step-down test asks of the others
            may_pass = self._may_pass(n, hopeless)[: below.size]
            hopeless = int(below[~may_pass].sum())
        self._undecided = float(below[may_pass].sum() / self._pixels)
        self._stopped = self._decide(n, float((self._pixels - below.sum()) / self._pixels))
        return self._stopped is None

    def outcome(self) -> PixelOutcome:
        """What was proved at the last look held.

        Raises:
            InputError: no look was held.
        """
        if not self._looks:
            raise InputError("nothing was looked at yet; draw the samples of the first look")
        n, threshold, _ = self._looks[-1]
        stop, reason = self._stopped or ("interrupted", f"interrupted after {n} samples")
        return PixelOutcome(threshold, stop, reason, n, tuple(self._looks), self._undecided)

    def record(self) -> dict[str, Any]:
        """What a certificate records beside its counts: ``budget``, ``looks`` and ``stopped``; errors as outcome."""
        outcome = self.outcome()
        return {"budget": str(self._budget), "looks": outcome.looks, "stopped": outcome.reason}

    def _decide(self, n: int, certified: float) -> tuple[Stop, str] | None:
        if self._undecided <= self._budget.undecided:
            stop: Stop = "answered" if certified else "futile"
            return stop, f"{stop}: {certified:.2%} of pixels certified, {self._undecided:.2%} undecided"
        if n == self._budget.cap:
            return "cap reached", f"cap reached: {n} samples, {self._undecided:.2%} of pixels undecided"
        return None

    def _may_pass(self, n: int, hopeless: int) -> NDArray[np.bool_]:
        """For each count 0..n, whether a pixel may still be certified (as ``statistics.sequential.hopeless``).

        At the cap it then needs at least the count of the last step, where the hopeless pixels are still to come.
        """
        cap, counts = self._budget.cap, np.arange(n + 1)
        remaining = cap - n
        if remaining == 0:  # more samples would decide these, but there are none
            return np.asarray(counts > self._tau * n)
        family = self._pixels if self._correction == "bonferroni" else hopeless + self._k_fwer
        level = min(self._k_fwer * self._shares[-1] / family, 1 - 1e-9)
        needed = (minimum_count(cap, self._tau, level) or cap) - counts
        upper = special.betainccinv(counts + 1.0, np.maximum(n - counts, 1), RISK)
        upper[-1] = 1.0
        inside = np.clip(needed, 1, remaining)
        likely = special.betainc(inside, remaining - inside + 1, upper) >= 0.5
        return np.asarray((needed <= 0) | ((needed <= remaining) & likely))
