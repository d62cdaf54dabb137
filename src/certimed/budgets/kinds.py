"""The budgets themselves: small frozen objects, the same on the command line, in Python and in a manifest."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from certimed.budgets.evidence import BettingEvidence, ClassEvidence, Counts, LadderEvidence, SplitEvidence
from certimed.budgets.planning import planned_size
from certimed.budgets.questions import AllSamples, ReportedRadii
from certimed.budgets.session import Question, Session
from certimed.errors import InputError
from certimed.statistics import BOUND_NAMES, ClassBound, alpha_split
from certimed.statistics.sequential import look_sizes

PUBLISHED_RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
"""Radii at which the PromptSmooth protocol reports certified accuracy, in [0, 1] units."""

PUBLISHED_N = 10_000

_MOST = 10**9
_MOST_WITH_TABLES = 10**6

ClassSession: TypeAlias = Session[Counts, ClassBound]


@dataclass(frozen=True)
class Budget(ABC):
    """How many estimation samples an image gets. ``str(budget)`` is the command line's spelling of it."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def cap(self) -> int:
        """Most estimation samples one image can cost."""

    def start(
        self, selection: ArrayLike, alpha: float, sigma: float, bound: str = "one-sided", variation: float = 0.0
    ) -> ClassSession:
        """Begin one image whose answer is a class.

        Args:
            selection: counts of the n0 selection samples, integers (K,), which choose the class and never enter a
                bound.
            alpha: failure probability of the whole image, all looks together.
            sigma: noise standard deviation, in the units of the radii.
            bound: ``"one-sided"``, ``"two-sided"`` or ``"best"``.
            variation: see :mod:`certimed.budgets.evidence`.

        Raises:
            InputError: an argument out of range, or a bound, a radius or a kind of answer the budget cannot serve.
        """
        raise InputError(f"budget {self} does not serve classes; use e.g. grid, fixed:10000 or betting:0.25")

    def mask_looks(self) -> tuple[tuple[int, ...], float]:
        """For masks: sizes of the looks, and the share of undecided pixels at which to stop.

        Raises:
            InputError: the budget does not serve masks.
        """
        raise InputError(f"budget {self} does not serve masks; use e.g. fixed:100 or pixels:100,200,400/0.01")

    def value_looks(self) -> tuple[int, ...]:
        """For measurements: sizes of the looks.

        Raises:
            InputError: the budget does not serve measurements.
        """
        raise InputError(f"budget {self} does not serve measurements; use e.g. fixed:100 or looks:100,200,400,1000")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for manifests and certificates."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


class LookBudget(Budget):
    """A budget whose looks do not depend on the image."""

    @abstractmethod
    def evidence(
        self, classes: int, top: int, alpha: float, sigma: float, bound: str, variation: float
    ) -> ClassEvidence:
        """Looks and claims for one image; raises InputError where the budget cannot serve the bound."""

    def start(
        self, selection: ArrayLike, alpha: float, sigma: float, bound: str = "one-sided", variation: float = 0.0
    ) -> ClassSession:
        counts = _checked_selection(selection)
        _check_setting(alpha, sigma, bound, variation)
        evidence = self.evidence(counts.size, int(counts.argmax()), alpha, sigma, bound, variation)
        radii = self.reported_radii
        question: Question[Counts, ClassBound] = ReportedRadii(evidence, radii) if radii else AllSamples(evidence.looks)
        return Session(evidence, question)

    @property
    def reported_radii(self) -> tuple[float, ...]:
        """Radii the budget stops for; empty where it uses every sample."""
        return ()


@dataclass(frozen=True)
class Fixed(LookBudget):
    """Exactly n samples: the published protocols, for classes and for masks.

    Guarantee: Clopper-Pearson at level alpha (Cohen et al. 2019, CERTIFY); two-sided and best likewise. Masks: one
    family-wise test at level alpha.
    """

    n: int = PUBLISHED_N
    kind: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        _check_cap(self.n, _MOST)

    def __str__(self) -> str:
        return f"fixed:{self.n}"

    @property
    def cap(self) -> int:
        return self.n

    def evidence(
        self, classes: int, top: int, alpha: float, sigma: float, bound: str, variation: float
    ) -> ClassEvidence:
        return SplitEvidence((self.n,), (alpha,), classes, top, sigma, bound, variation)

    def mask_looks(self) -> tuple[tuple[int, ...], float]:
        return (self.n,), 0.0

    def value_looks(self) -> tuple[int, ...]:
        return (self.n,)


@dataclass(frozen=True)
class Looks(LookBudget):
    """Clopper-Pearson at preset looks, alpha split over them; stops when the place among the reported radii is known.

    Guarantee: look i fails with probability at most its share of alpha, all looks together with at most alpha (union
    bound), so any rule may decide when to stop and the best look may be reported. Any of the three bounds. Half of
    alpha goes to the last look, the rest equally to the others.

    Args:
        sizes: increasing sample sizes; the last one is the cap.
        radii: reported radii, see :class:`Grid`.
    """

    sizes: tuple[int, ...] = (100, 1_000, PUBLISHED_N)
    radii: tuple[float, ...] = PUBLISHED_RADII
    kind: ClassVar[str] = "looks"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "radii", _checked_radii(self.radii))
        for size in self.sizes:
            _check_cap(size)
        if not self.sizes or any(a >= b for a, b in pairwise(self.sizes)):
            raise InputError(f"looks must be increasing sample sizes, e.g. 100,1000,10000, but are {self.sizes}")

    def __str__(self) -> str:
        return "looks:" + ",".join(map(str, self.sizes)) + _radii_suffix(self.radii)

    @property
    def cap(self) -> int:
        return self.sizes[-1]

    def evidence(
        self, classes: int, top: int, alpha: float, sigma: float, bound: str, variation: float
    ) -> ClassEvidence:
        return SplitEvidence(self.sizes, look_shares(len(self.sizes), alpha), classes, top, sigma, bound, variation)

    def value_looks(self) -> tuple[int, ...]:
        if self.radii != PUBLISHED_RADII:
            raise InputError(f"budget {self}: the radii after the slash are of classes; leave them out")
        return self.sizes

    @property
    def reported_radii(self) -> tuple[float, ...]:
        return self.radii


@dataclass(frozen=True)
class Grid(LookBudget):
    """Stops when the place of the radius among the reported radii is known; the default.

    Guarantee: one-sided, every claim at every look is right with probability at least 1 - alpha: exact sequential
    thresholds against p <= Phi(r / sigma), the same alpha serving all radii because the hypotheses are nested
    (:func:`certimed.statistics.sequential.sequential_table`). Other bounds: alpha split over the looks as in
    :class:`Looks`. Stopping is free: a session gives up on the next radius when that would need more samples than are
    left, or very likely would, and then reports the radius it has proved. Failure probability is spent as (n_i / n)^2,
    which keeps nearly all the strength of a fixed budget at the cap.

    Args:
        radii: reported radii, increasing, at least 0, in the units of sigma.
        n: cap.
    """

    radii: tuple[float, ...] = PUBLISHED_RADII
    n: int = PUBLISHED_N
    kind: ClassVar[str] = "grid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", _checked_radii(self.radii))
        _check_cap(self.n)

    def __str__(self) -> str:
        radii = "" if self.radii == PUBLISHED_RADII else ":" + _join(self.radii)
        return f"grid{radii}@{self.n}"

    @property
    def cap(self) -> int:
        return self.n

    def evidence(
        self, classes: int, top: int, alpha: float, sigma: float, bound: str, variation: float
    ) -> ClassEvidence:
        looks = look_sizes(self.n)
        if bound == "one-sided":
            return LadderEvidence(looks, 2.0, alpha, self.radii, classes, top, sigma, bound, variation)
        return SplitEvidence(looks, look_shares(len(looks), alpha), classes, top, sigma, bound, variation)

    @property
    def reported_radii(self) -> tuple[float, ...]:
        return self.radii


@dataclass(frozen=True)
class Betting(LookBudget):
    """Decides "robust at this radius or not"; looks often, since a bettor's wealth may be looked at any time.

    Guarantee: the claim is wrong with probability at most alpha: Ville's inequality for the wealth of the KT bettor at
    alpha / 2 (Voracek, NeurIPS 2024), and at the cap the count against what that test leaves of alpha, computed exactly
    (:class:`certimed.budgets.evidence.BettingEvidence`). One-sided only. The radius of a certificate is ``radius``
    (plus a hair) or nothing.

    Args:
        radius: L2, at least 0, in the units of sigma.
        n: cap.
    """

    radius: float
    n: int = PUBLISHED_N
    kind: ClassVar[str] = "betting"

    def __post_init__(self) -> None:
        _checked_radii((self.radius,))
        _check_cap(self.n)

    def __str__(self) -> str:
        return (
            f"betting:{self.radius:g}@{self.n}"
            if self.radius == float(f"{self.radius:g}")
            else (f"betting:{self.radius!r}@{self.n}")
        )

    @property
    def cap(self) -> int:
        return self.n

    def evidence(
        self, classes: int, top: int, alpha: float, sigma: float, bound: str, variation: float
    ) -> ClassEvidence:
        if bound != "one-sided":
            raise InputError(f"budget betting bets on the top class alone; use bound='one-sided' instead of {bound!r}")
        looks = look_sizes(self.n, 32, 1.125)
        return BettingEvidence(looks, alpha, self.radius, classes, top, sigma, bound, variation)

    @property
    def reported_radii(self) -> tuple[float, ...]:
        return (self.radius,)


@dataclass(frozen=True)
class Planned(Budget):
    """As many samples as the image is worth: planned from its selection samples, then drawn afresh and looked at once.

    Planned is the smallest size whose expected radius is within a fraction, or an absolute loss, of the one expected
    from n samples (:func:`certimed.budgets.planning.planned_size`).

    Guarantee: as for ``Fixed``, Clopper-Pearson at the full alpha, two-sided and best likewise. Proof: the size is a
    function of the selection samples, which are independent of the estimation samples; so given the size the counts are
    binomial (multinomial), and the bound fails with probability at most alpha for every size. The loss of radius is a
    forecast and no part of the guarantee. Source of the idea: Chen et al., AAAI 2022.

    Args:
        fraction: of the expected radius, 0 < fraction < 1.
        absolute: loss that is always accepted, in the units of sigma; None: ``fraction * sigma / 20``, so that only
            images whose radius is next to nothing get few samples for it, and the mean loss keeps to ``fraction`` on
            sets of small radii too.
        n: cap.
    """

    fraction: float = 0.05
    absolute: float | None = None
    n: int = PUBLISHED_N
    kind: ClassVar[str] = "planned"

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction={self.fraction} must lie between 0 and 1; use e.g. 0.05 for 5 %")
        if self.absolute is not None and not (math.isfinite(self.absolute) and self.absolute >= 0):
            raise InputError(f"absolute={self.absolute} must be a radius of at least 0")
        _check_cap(self.n)

    def __str__(self) -> str:
        absolute = "" if self.absolute is None else f",{self.absolute!r}"
        return f"planned:{self.fraction!r}{absolute}@{self.n}"

    @property
    def cap(self) -> int:
        return self.n

    def plan(self, agreeing: int, n0: int, alpha: float, sigma: float) -> int:
        """Estimation samples of an image on which ``agreeing`` of ``n0`` selection samples have the selected class."""
        absolute = self.fraction / 20 if self.absolute is None else self.absolute / sigma
        return planned_size(agreeing, n0, self.n, alpha, self.fraction, absolute)

    def start(
        self, selection: ArrayLike, alpha: float, sigma: float, bound: str = "one-sided", variation: float = 0.0
    ) -> ClassSession:
        counts = _checked_selection(selection)
        _check_setting(alpha, sigma, bound, variation)
        top, n0 = int(counts.argmax()), int(counts.sum())
        agreeing = int(counts[top])
        looks = (self.plan(agreeing, n0, alpha, sigma),)
        evidence = SplitEvidence(looks, (alpha,), counts.size, top, sigma, bound, variation)
        return Session(evidence, AllSamples(looks, planned_from=agreeing))


@dataclass(frozen=True)
class PixelLooks(Budget):
    """Looks at the agreement counts of all pixels, and stops when they are decided; the last look held is what counts.

    Guarantee: with probability at least 1 - alpha no pixel that the last look held certifies has P(class) <= tau, under
    any dependence between pixels and whatever rule decides which look is the last.
    Proof: half of alpha goes to the last look, the rest equally to the others; let a_i be the share of look i. The test
    of look i (Holm's, Bonferroni's) runs over *all* pixels at level a_i, so whether or not the look is held, it would
    certify a wrong pixel with probability at most a_i. By the union bound no look would with probability at least
    1 - alpha; then neither does the one that is last. Giving up on pixels only abstains.

    A finer procedure keeps what earlier looks certified and takes it out of the family. On the demo model it certifies
    at most 0.03 % more of the pixels, and could only be checked with the counts of every look; here the counts of the
    last look, which the certificate holds anyway, are the whole evidence.

    Args:
        sizes: increasing sample sizes; the last one is the cap.
        undecided: stop when at most this share of pixels is neither certified nor given up, 0 <= undecided < 1.
    """

    sizes: tuple[int, ...] = (100, 200, 400, 1_000)
    undecided: float = 0.0
    kind: ClassVar[str] = "pixels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        for size in self.sizes:
            _check_cap(size)
        if not self.sizes or any(a >= b for a, b in pairwise(self.sizes)):
            raise InputError(f"looks must be increasing sample sizes, e.g. 100,200,400, but are {self.sizes}")
        if not 0 <= self.undecided < 1:
            raise InputError(f"undecided={self.undecided} must be a share of pixels, 0 <= undecided < 1")

    def __str__(self) -> str:
        return "pixels:" + ",".join(map(str, self.sizes)) + (f"/{self.undecided!r}" if self.undecided else "")

    @property
    def cap(self) -> int:
        return self.sizes[-1]

    def mask_looks(self) -> tuple[tuple[int, ...], float]:
        return self.sizes, self.undecided

    def value_looks(self) -> tuple[int, ...]:
        return self.sizes


def look_shares(looks: int, alpha: float) -> tuple[float, ...]:
    """Shares of alpha: half for the last look, the rest equally for the others; together at most alpha."""
    if looks == 1:
        return (alpha,)
    return tuple(float(share) for share in alpha_split(alpha, [1.0] * (looks - 1) + [looks - 1.0]))


def _checked_selection(selection: ArrayLike) -> Counts:
    counts = np.asarray(selection)
    if counts.ndim != 1 or counts.size < 2 or counts.dtype.kind not in "iu":
        raise InputError(f"selection must be integer counts of at least 2 classes, but is {selection!r:.80}")
    return counts.astype(np.int64)


def _check_setting(alpha: float, sigma: float, bound: str, variation: float) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"alpha={alpha} is no failure probability; use a value between 0 and 1, e.g. 0.001")
    if not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma={sigma} is no noise level; use a positive number")
    if not 0 <= variation < 1:
        raise InputError(f"variation={variation} is no difference of probabilities; use 0 for noise that is exact")
    if bound not in BOUND_NAMES:
        raise InputError(f"bound must be one of {', '.join(BOUND_NAMES)}, but is {bound!r}")


def _check_cap(n: int, most: int = _MOST_WITH_TABLES) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise InputError(f"n={n!r} must be a whole number of samples from 1 to {most}")


def _checked_radii(radii: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(radius) for radius in radii)
    if not values or any(not (math.isfinite(r) and r >= 0) for r in values):
        raise InputError(f"radii must be finite numbers of at least 0, at least one, but are {radii!r:.80}")
    if any(a >= b for a, b in pairwise(values)):
        raise InputError(f"radii must increase, but are {radii!r:.80}")
    return values


def _join(radii: Sequence[float]) -> str:
    return ",".join(repr(radius) for radius in radii)


def _radii_suffix(radii: tuple[float, ...]) -> str:
    return "" if radii == PUBLISHED_RADII else "/" + _join(radii)
