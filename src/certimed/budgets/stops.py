"""Why an image's samples ended, as data; sentences are made from it by :mod:`certimed.certificates.words`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from certimed.errors import InputError

StopKind = Literal["answered", "futile", "cap reached", "interrupted"]
STOP_KINDS: tuple[StopKind, ...] = get_args(StopKind)


@dataclass(frozen=True)
class Stop:
    """Why no more samples were drawn.

    Attributes:
        kind: ``"answered"``; ``"futile"``, where the budget gave up, which only abstains; ``"cap reached"``; or
            ``"interrupted"``.
        above: the largest reported radius that is proved to be exceeded, or None.
        below: the smallest reported radius that is not proved. That it is out of reach is a forecast, and no part of
            the guarantee.
        agreeing: of a planned number of samples: how many selection samples agreed, which the plan was made from.
        undecided: of a mask: number of pixels neither certified nor given up. A forecast too.
    """

    kind: StopKind
    above: float | None = None
    below: float | None = None
    agreeing: int | None = None
    undecided: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in STOP_KINDS:
            raise InputError(f"stop {self.kind!r:.40} is unknown; it is one of {', '.join(STOP_KINDS)}")
        for name, kind in (("above", float), ("below", float), ("agreeing", int), ("undecided", int)):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, kind) and 0 <= value < math.inf):
                raise InputError(f"{name}={value!r:.40} of a stop must be a number of at least 0, or left out")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}
