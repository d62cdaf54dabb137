"""How an attack is made, as data: everything that decides its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from certimed.errors import InputError

INSIDE = 0.99
"""Part of a certified radius at which every attack is tried first; it must not succeed there."""

BASE_BISECTIONS = 4
"""Bisections of the attack on the base model beyond those of the smoothed one; they cost one copy each."""

GRADIENT, GRID = "gradient", "grid"
SEARCHES = (GRADIENT, GRID)
"""Ways to look for a perturbation."""


@dataclass(frozen=True)
class AttackSpec:
    """Settings of an attack.

    Attributes:
        radii: attack at these L2 radii alone. Empty: at 0.99 of the certified radius, then at the largest radius (see
            ``reach``), then bisect for the smallest perturbation that breaks the answer.
        steps: of projected gradient ascent at each radius, each of ``2.5 radius / steps`` (at most ``radius``).
        copies: noisy copies whose mean probability is attacked, the same ones through all steps at one radius.
        restarts: starting points at each radius: the best perturbation so far, then random ones.
        bisections: at most so many.
        reach: the largest radius tried, in units of sigma or of the certified radius, whichever is larger.
        n: fresh samples of each PREDICT.
        alpha: probability that any PREDICT of one attack calls it successful and is wrong, all of them together.
        seed: of starting points and noise. The noise of a run and of its attacks is never the same, whatever the seed.
        clip: keep the perturbed image in [0, 1]. A certificate does not need it, so without it attacks are stronger.
        search: ``"gradient"``, or ``"grid"``, directions all around: for up to three settings of a workflow.

    Raises:
        InputError: an impossible setting.
    """

    radii: tuple[float, ...] = ()
    steps: int = 20
    copies: int = 32
    restarts: int = 1
    bisections: int = 8
    reach: float = 3.0
    n: int = 1000
    alpha: float = 1e-3
    seed: int = 0
    clip: bool = False
    search: str = GRADIENT

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        for name in ("steps", "copies", "restarts", "n"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} of an attack must be 1 or more")
        if self.bisections < 0 or not self.reach > 1:
            raise InputError(f"bisections={self.bisections}, reach={self.reach}: use 0 or more, and a reach above 1")
        if self.search not in SEARCHES:
            raise InputError(f"search={self.search!r:.40} is unknown; use one of {', '.join(SEARCHES)}")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha={self.alpha} is no failure probability; use a value between 0 and 1, e.g. 0.001")
        if any(not radius > 0 for radius in self.radii) or len(set(self.radii)) < len(self.radii):
            raise InputError(f"radii {self.radii} must be positive, each named once")

    def tests(self, goals: int = 1) -> int:
        """How often PREDICT may be asked in one attack, by which ``alpha`` is divided."""
        planned = len(self.radii) or 2 + self.bisections
        return planned + (goals - 1) * (len(self.radii) or 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "radii": list(self.radii)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttackSpec:
        """Inverse of :meth:`to_dict`; InputError names what is wrong."""
        known = {one.name for one in fields(cls)}
        if set(data) != known:
            raise InputError(f"the settings of an attack are {', '.join(sorted(known))}, not {', '.join(sorted(data))}")
        try:
            return cls(**{**data, "radii": tuple(data["radii"])})
        except TypeError as error:
            raise InputError(f"the settings of an attack have a wrong type: {error}") from error
