"""The claim about sets of classes: what one noisy copy scored, and which classes that leaves in at each radius."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from numpy.typing import NDArray

from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.statistics import SCORE_NAMES, class_scores


@dataclass(frozen=True)
class SetClaim:
    """The set of classes that holds the true one with the wanted probability, at each radius.

    The probability is over the calibration images, the test image and both noises, which are taken to be exchangeable
    (:mod:`certimed.statistics.conformal`). It says nothing of this image alone, and not that the set cannot change.

    Attributes:
        probabilities: of all classes on the one noisy copy; no bounds.
        score: one of :data:`certimed.statistics.SCORE_NAMES`.
        radii: L2 in [0, 1] units of the certified space, rising.
        thresholds: for each radius, of each class: it is in the set if its score is at most that.
        calibration: digest of the calibration that the thresholds are from.
    """

    probabilities: tuple[float, ...]
    score: str
    radii: tuple[float, ...]
    thresholds: tuple[tuple[float, ...], ...]
    calibration: str
    kind: ClassVar[str] = "set"
    array_names: ClassVar[tuple[str, ...]] = ()

    @property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """For each radius: the classes in the set, in order; it may be empty."""
        scores = class_scores(self.probabilities, self.score).tolist()
        return tuple(
            tuple(place for place, (own, most) in enumerate(zip(scores, row)) if own <= most) for row in self.thresholds
        )

    @property
    def radius(self) -> float:
        """The largest radius."""
        return self.radii[-1]

    @property
    def abstained(self) -> bool:
        """Whether the set holds every class at every radius, which says nothing."""
        return all(len(one) == len(self.probabilities) for one in self.sets)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See :class:`certimed.certificates.Claim`."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """See :class:`certimed.certificates.Claim`."""
        return {
            "radius": self.radius,
            "radii": list(self.radii),
            "score": self.score,
            "probabilities": list(self.probabilities),
            "thresholds": [list(row) for row in self.thresholds],
            "sets": [list(one) for one in self.sets],
            "calibration": self.calibration,
        }

    @classmethod
    def from_fields(cls, fields: Fields, arrays: Mapping[str, NDArray[Any]]) -> SetClaim:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        found = cls(
            probabilities=fields.numbers("probabilities"),
            score=fields.string("score"),
            radii=fields.numbers("radii"),
            thresholds=rows_of(fields, "thresholds"),
            calibration=fields.string("calibration"),
        )
        check_radii_of(found.radii, fields.number("radius"))
        if fields.get("sets") != [list(one) for one in found.sets]:
            raise InputError("field 'sets' of the claim is not what its scores and thresholds give")
        return found

    def check(self, n0: int, n: int, shape: tuple[int, ...]) -> None:
        """See :class:`certimed.certificates.Claim`."""
        if n0 != 0 or n != 1:
            raise InputError(f"n0={n0}, n={n}: a set is of one noisy copy, and has no selection samples")
        check_radii_of(self.radii, self.radius)
        if self.score not in SCORE_NAMES:
            raise InputError(f"score {self.score!r:.40} is unknown; it is one of {', '.join(SCORE_NAMES)}")
        if len(self.probabilities) < 2 or not all(0 <= p <= 1 for p in self.probabilities):
            raise InputError("probabilities of a set must be numbers from 0 to 1, of two or more classes")
        if len(self.thresholds) != len(self.radii) or any(
            len(row) != len(self.probabilities) or not all(map(math.isfinite, row)) for row in self.thresholds
        ):
            raise InputError("thresholds of a set must be one finite number for each radius and class")


def check_radii_of(radii: Sequence[float], largest: float) -> None:
    """Raise InputError unless radii are finite, at least 0 and rise, the last one being ``largest``."""
    rising = all(a < b for a, b in pairwise(radii))
    good = bool(radii) and rising and radii[0] >= 0 and 0 < radii[-1] < math.inf
    if not good or radii[-1] != largest:
        raise InputError(f"radii {tuple(radii)} must be at least 0 and rise to radius {largest!r}, above 0")


def rows_of(fields: Fields, name: str) -> tuple[tuple[float, ...], ...]:
    """A list of lists of finite numbers; InputError where it is none."""
    listed = fields.get(name)
    if not isinstance(listed, list):
        raise InputError(f"field {name!r} must be a list of lists of numbers")
    return tuple(Fields({"row": row}, name).numbers("row") for row in listed)
