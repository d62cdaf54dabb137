"""What certificates claim: a class, the classes of all pixels, intervals. Frozen data, integers and float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from certimed.certificates.arrays import arrays_digest, smallest_unsigned
from certimed.certificates.fields import Fields
from certimed.certificates.intervals import IntervalClaim
from certimed.certificates.sets import SetClaim
from certimed.errors import InputError
from certimed.statistics import BOUND_NAMES, CORRECTION_NAMES, radius_from_lower


class Claim(Protocol):
    """What a certificate needs of its claim, whatever is claimed."""

    kind: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]

    @property
    def radius(self) -> float:
        """L2 in [0, 1] units of the certified space; 0 where nothing is claimed."""

    @property
    def abstained(self) -> bool:
        """Whether nothing at all is claimed."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is kept in a file beside the JSON, by the names in ``array_names``; empty for most claims."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; arrays are represented by their digest."""

    def check(self, n0: int, n: int, shape: tuple[int, ...]) -> None:
        """Raise InputError unless the claim can be of so many samples of inputs of this shape."""


@dataclass(frozen=True)
class ClassClaim:
    """The smoothed classifier's class, and the radius within which it cannot change.

    Attributes:
        prediction: class index chosen on the selection samples. A candidate only where ``abstained`` is True.
        abstained: True where nothing could be proved.
        radius: L2 in [0, 1] units of the certified space; 0 where abstained.
        p_lower: lower confidence bound on the probability of ``prediction`` under noise.
        q_upper: upper confidence bound on every other class's probability, or None for the one-sided bound.
        bound: ``"one-sided"``, ``"two-sided"`` or ``"best"`` (both, each at half the level).
        counts: estimation counts of all classes.
        selection: selection counts of all classes, whose largest (the first of equals) is ``prediction``.
    """

    prediction: int
    abstained: bool
    radius: float
    p_lower: float
    q_upper: float | None
    bound: str
    counts: tuple[int, ...]
    selection: tuple[int, ...]
    kind: ClassVar[str] = "classes"
    array_names: ClassVar[tuple[str, ...]] = ()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`Claim`."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """See :class:`Claim`."""
        return {
            "prediction": self.prediction,
            "abstained": self.abstained,
            "radius": self.radius,
            "p_lower": self.p_lower,
            "q_upper": self.q_upper,
            "bound": self.bound,
            "counts": list(self.counts),
            "selection": list(self.selection),
        }

    @classmethod
    def from_fields(cls, fields: Fields, arrays: Mapping[str, NDArray[Any]]) -> ClassClaim:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        return cls(
            prediction=fields.integer("prediction"),
            abstained=fields.boolean("abstained"),
            radius=fields.number("radius"),
            p_lower=fields.number("p_lower"),
            q_upper=fields.optional_number("q_upper"),
            bound=fields.string("bound"),
            counts=fields.integers("counts"),
            selection=fields.integers("selection"),
        )

    def check(self, n0: int, n: int, shape: tuple[int, ...]) -> None:
        """See :class:`Claim`."""
        if n0 < 1 or not 0 <= self.prediction < len(self.counts):
            raise InputError(
                f"prediction {self.prediction} of {n0} selection samples is no index into the {len(self.counts)} counts"
            )
        if sum(self.counts) != n or min(self.counts) < 0:
            raise InputError(f"the counts {self.counts} are not of n={n} samples")
        if len(self.selection) != len(self.counts) or sum(self.selection) != n0 or min(self.selection) < 0:
            raise InputError(
                f"the selection counts {self.selection} are not of {n0} samples of {len(self.counts)} classes"
            )
        if self.selection.index(max(self.selection)) != self.prediction:
            raise InputError(f"prediction {self.prediction} is not the class that the selection samples chose")
        if self.bound not in BOUND_NAMES:
            raise InputError(f"bound {self.bound!r:.40} is unknown; it is one of {', '.join(BOUND_NAMES)}")
        if not (0 <= self.p_lower <= 1 and (self.q_upper is None or 0 <= self.q_upper <= 1)):
            raise InputError(f"p_lower={self.p_lower} or q_upper={self.q_upper} is no probability")
        if not self.radius >= 0 or self.abstained != (self.radius == 0):
            raise InputError(
                f"radius={self.radius} with abstained={self.abstained}: it is 0 where abstained, else above"
            )


@dataclass(frozen=True, eq=False)
class MaskClaim:
    """The classes of all pixels of one image at once.

    Attributes:
        mask: unsigned ``space``: candidate class of each pixel, chosen on the selection samples. It is certified only
            where ``certified`` is True; abstention is never a class id.
        agreement: unsigned ``space``: how many estimation samples agree with ``mask``.
        threshold: smallest agreement that is certified, or None where no pixel is.
        num_classes: number of classes.
        tau: probability that a certified pixel's class is shown to exceed under noise.
        correction: ``"holm"`` or ``"bonferroni"``.
        sigma: noise standard deviation.
    """

    mask: NDArray[np.unsignedinteger[Any]]
    agreement: NDArray[np.integer[Any]]
    threshold: int | None
    num_classes: int
    tau: float
    correction: str
    sigma: float
    kind: ClassVar[str] = "mask"
    array_names: ClassVar[tuple[str, ...]] = ("mask", "agreement", "certified")

    @cached_property
    def radius(self) -> float:
        """``sigma * Phi^-1(tau)``, rounded down: the L2 radius of every certified pixel."""
        return float(radius_from_lower(self.tau, self.sigma))

    @property
    def abstained(self) -> bool:
        """Whether no pixel is certified."""
        return self.threshold is None

    @cached_property
    def certified(self) -> NDArray[np.bool_]:
        """Boolean ``space``: where the class in ``mask`` is proved. Read-only."""
        certified = np.zeros(self.mask.shape, dtype=bool)
        if self.threshold is not None:
            np.greater_equal(self.agreement, self.threshold, out=certified)
        certified.setflags(write=False)
        return certified

    @property
    def pixels(self) -> int:
        """Number of pixels (voxels) tested."""
        return int(self.mask.size)

    @property
    def share_certified(self) -> float:
        """Share of pixels with a proved class, 0..1."""
        return float(np.count_nonzero(self.certified) / self.pixels)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`Claim`."""
        return {name: getattr(self, name) for name in self.array_names}

    def to_dict(self) -> dict[str, Any]:
        """See :class:`Claim`."""
        return {
            "radius": self.radius,
            "share_certified": self.share_certified,
            "threshold": self.threshold,
            "num_classes": self.num_classes,
            "tau": self.tau,
            "correction": self.correction,
            "sigma": self.sigma,
            "arrays_sha256": arrays_digest({"mask": self.mask, "agreement": self.agreement}),
        }

    @classmethod
    def from_fields(cls, fields: Fields, arrays: Mapping[str, NDArray[Any]]) -> MaskClaim:
        """Inverse of :meth:`to_dict`; InputError names what is wrong."""
        if arrays_digest({name: arrays[name] for name in ("mask", "agreement")}) != fields.string("arrays_sha256"):
            raise InputError("the arrays are not those this mask certificate was written for; restore the file")
        claim = cls(
            mask=arrays["mask"],
            agreement=arrays["agreement"],
            threshold=None if fields.get("threshold") is None else fields.integer("threshold"),
            num_classes=fields.integer("num_classes"),
            tau=fields.number("tau"),
            correction=fields.string("correction"),
            sigma=fields.number("sigma"),
        )
        if not np.array_equal(claim.certified, arrays["certified"]):
            raise InputError("the array 'certified' contradicts agreement and threshold; restore the file")
        if claim.radius != fields.number("radius"):
            raise InputError(f"radius {fields.number('radius')!r} is not sigma * Phi^-1(tau) = {claim.radius!r}")
        return claim

    def __post_init__(self) -> None:
        for name in ("mask", "agreement"):
            given = _whole(name, getattr(self, name))
            largest = self.num_classes - 1 if name == "mask" else int(given.max(initial=0))
            values = np.array(given, dtype=smallest_unsigned(largest), order="C")
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    def check(self, n0: int, n: int, shape: tuple[int, ...]) -> None:
        """See :class:`Claim`."""
        if self.mask.shape != self.agreement.shape or self.mask.shape != tuple(shape[1:]):
            raise InputError(
                f"mask {self.mask.shape}, agreement {self.agreement.shape} and input {tuple(shape)} do not belong "
                "to one image"
            )
        if self.mask.size == 0 or int(self.mask.max()) >= self.num_classes or int(self.agreement.max()) > n:
            raise InputError(f"mask or agreement is empty or exceeds num_classes={self.num_classes} or n={n}")
        if self.correction not in CORRECTION_NAMES:
            raise InputError(f"correction={self.correction!r} is unknown; use one of {', '.join(CORRECTION_NAMES)}")
        if n0 < 1:
            raise InputError(f"n0={n0} selection samples choose no classes")
        if self.threshold is not None and not 1 <= self.threshold <= n:
            raise InputError(f"threshold={self.threshold} is no count of 1..n={n}")

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, MaskClaim) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.threshold, self.tau, self.sigma))


CLAIMS: dict[str, type[ClassClaim] | type[MaskClaim] | type[IntervalClaim] | type[SetClaim]] = {
    one.kind: one for one in (ClassClaim, MaskClaim, IntervalClaim, SetClaim)
}
"""Kinds of claims by the name in a certificate's JSON."""


def _whole(name: str, values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise InputError(f"{name} must hold whole numbers from 0, but has dtype {array.dtype}")
    if array.size and int(array.max()) > np.iinfo(np.uint32).max:
        raise InputError(f"{name} holds {int(array.max())}, which is no class id or count")
    return array
