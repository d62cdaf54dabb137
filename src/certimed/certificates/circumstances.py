"""What surrounds a claim: how samples were drawn, with what alpha is shared, and about which image by which model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from certimed.budgets import Stop, parse_budget
from certimed.certificates.fields import Fields
from certimed.certificates.provenance import Provenance
from certimed.certificates.scope import END_TO_END, SCOPES, SETTINGS, SPACES
from certimed.certificates.settings import VariedSettings
from certimed.errors import InputError
from certimed.noise import Placement


@dataclass(frozen=True)
class Samples:
    """How the samples were drawn.

    Attributes:
        n0, n: selection and estimation samples.
        budget: how many estimation samples the image could get, as :func:`certimed.budgets.parse_budget` reads it; it
            says which test the counts were put to.
        looks: the integers of every look. Classes: samples, how many agree, the strongest rival's count. Masks:
            samples, and the smallest agreement that is certified (0: no pixel is). Measurements: samples.
        proved_at: number of the look, from 0, that the claim is of.
        stop: why no more samples were drawn.
    """

    n0: int
    n: int
    budget: str
    looks: tuple[tuple[int, ...], ...]
    proved_at: int
    stop: Stop

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        looks = [list(look) for look in self.looks]
        return {**asdict(self), "looks": looks, "stop": self.stop.to_dict()}

    @classmethod
    def from_fields(cls, fields: Fields) -> Samples:
        """Inverse of :meth:`to_dict`; InputError names the field that is wrong."""
        looks = fields.get("looks")
        if not isinstance(looks, list) or not looks:
            raise InputError("field 'looks' of the samples must be a list of one or more looks")
        stop = fields.mapping("stop")
        try:
            reason = Stop(**stop)
        except TypeError as error:
            raise InputError(f"field 'stop' of the samples does not have the documented fields: {error}") from error
        counts = tuple(Fields({"look": look}, "samples").integers("look") for look in looks)
        budget, proved_at = fields.string("budget"), fields.integer("proved_at")
        found = cls(fields.integer("n0"), fields.integer("n"), budget, counts, proved_at, reason)
        if str(parse_budget(budget)) != budget:
            raise InputError(f"budget {budget!r:.80} must be spelt {str(parse_budget(budget))!r}")
        seen = [0, *(look[0] if look else 0 for look in counts)]
        left = found.n - seen[-1]  # samples after the last look, where it was interrupted
        if (
            found.n0 < 0
            or any(b <= a for a, b in pairwise(seen))
            or left < 0
            or (left and reason.kind != "interrupted")
        ):
            raise InputError(f"n0={found.n0} and n={found.n} do not belong to looks at {seen[1:]} samples")
        if not 0 <= proved_at < len(counts):
            raise InputError(f"proved_at={proved_at} is none of the {len(counts)} looks")
        return found


@dataclass(frozen=True)
class Share:
    """Failure probability, and with what it is shared.

    Attributes:
        level: spent on this claim, all looks together.
        total: of all claims that share it, together.
        of: number of claims that share it.
        why: ``"alone"``, ``"taus"`` (several radii from the same samples) or ``"methods"`` (several models compared).
    """

    level: float
    total: float
    of: int = 1
    why: str = "alone"

    WHYS = ("alone", "taus", "methods")

    @classmethod
    def alone(cls, alpha: float) -> Share:
        """All of alpha for one claim."""
        return cls(float(alpha), float(alpha))

    @classmethod
    def from_fields(cls, fields: Fields) -> Share:
        """Read from JSON; InputError names the field that is wrong."""
        found = cls(fields.number("level"), fields.number("total"), fields.integer("of"), fields.string("why"))
        good = 0 < found.level <= found.total < 1 and found.of >= 1 and found.why in cls.WHYS
        if not good or (found.of == 1) != (found.why == "alone"):
            raise InputError(f"alpha {asdict(found)} is no share of a failure probability")
        return found


@dataclass(frozen=True)
class Circumstances:
    """About which image, by which model, in which space, with which randomness.

    Attributes:
        item: id of the image; with ``seed`` it is the key of the noise.
        method: name of the method within its run.
        seed: the run's seed.
        shape: ``(C, *space)`` of the certified input.
        space, scope: where the radius lives and what is covered; see :mod:`certimed.certificates.scope`.
        provenance: model identity, precision, device, versions.
        placement: where the image lies among those the noise law speaks of.
        chosen_from: names of the methods, or noise levels, among which this one was picked by looking at the image.
        views: noise of the view that is tuned on and of the view that is classified, where a sample consists of two.
        settings: what was varied, where the space is "settings".
    """

    item: str
    method: str
    seed: int
    shape: tuple[int, ...]
    space: str
    scope: str
    provenance: Provenance
    placement: Placement
    chosen_from: tuple[str, ...] = ()
    views: tuple[float, float] | None = None
    settings: VariedSettings | None = None

    @property
    def answered(self) -> tuple[int, ...]:
        """``(C, *space)`` of the image that is answered for: the certified input itself, unless settings are."""
        return self.shape if self.settings is None else self.settings.image

    def check(self) -> None:
        """Raise InputError for words that are unknown, or a choice whose scope does not say so."""
        if self.scope not in SCOPES or self.space not in SPACES:
            raise InputError(f"scope {self.scope!r} or space {self.space!r} is unknown to this version of certimed")
        if self.chosen_from and self.scope == END_TO_END:
            raise InputError("a certificate that was chosen by looking at the image cannot be end-to-end")
        if (self.space == SETTINGS) != (self.settings is not None):
            raise InputError(f"space {self.space!r} and the settings that were varied do not belong together")
        if self.settings is not None:
            self.settings.check(self.shape)
