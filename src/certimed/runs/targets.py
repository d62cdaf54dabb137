"""Parts of a request that what is loaded needs too: what is certified, and how prompts are tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from certimed.budgets import Goal, goals
from certimed.certificates import ClassClaim, IntervalClaim, MaskClaim, SetClaim
from certimed.errors import InputError
from certimed.metrics import EMPTY_NAMES
from certimed.statistics import BOUND_NAMES, CORRECTION_NAMES
from certimed.targets import check_radii, check_tau


@dataclass(frozen=True)
class ClassTarget:
    """Labels are certified.

    Attributes:
        bound: see :class:`certimed.targets.Classes`.
    """

    bound: str = "one-sided"
    task: ClassVar[str] = ClassClaim.kind

    def check(self) -> None:
        """Refuse what is unknown with InputError."""
        if self.bound not in BOUND_NAMES:
            raise InputError(f"bound {self.bound} is unknown; use one of {', '.join(BOUND_NAMES)}")


@dataclass(frozen=True)
class MaskTarget:
    """Masks are certified.

    Attributes:
        taus, correction: see :class:`certimed.targets.Pixels`.
        empty: Dice of classes absent from truth and answer: ``"one"``, ``"zero"`` or ``"skip"``.
    """

    taus: tuple[float, ...] = (0.75,)
    correction: str = "holm"
    empty: str = "one"
    task: ClassVar[str] = MaskClaim.kind

    def check(self) -> None:
        """Refuse what is unknown or out of range with InputError."""
        if not self.taus:
            raise InputError("no tau is named; name one, e.g. 0.75")
        for tau in self.taus:
            check_tau(tau)
        if len(set(self.taus)) < len(self.taus):
            raise InputError(f"tau {','.join(map(repr, self.taus))} names one twice; name each once")
        for name, value, known in (
            ("correction", self.correction, CORRECTION_NAMES),
            ("empty", self.empty, EMPTY_NAMES),
        ):
            if value not in known:
                raise InputError(f"{name} {value} is unknown; use one of {', '.join(known)}")


@dataclass(frozen=True)
class MeasureTarget:
    """Measurements are certified, and with ``taus`` the masks they are read off too, from the same samples.

    Attributes:
        measurements: spellings, see :func:`certimed.measurements.parse_measurement`.
        radii: L2, rising.
        thresholds: ``"NAME=NUMBER"``: on which side of the number the interval of a measurement lies is asked.
        widths: ``"NAME=NUMBER"``: how narrow an interval is to be at the largest radius.
        spacing: millimetres from pixel to pixel of the image file along each axis, where the files do not say.
        taus, correction, empty: of masks, see :class:`MaskTarget`; no taus, no certificates of masks.
    """

    measurements: tuple[str, ...] = ()
    radii: tuple[float, ...] = ()
    thresholds: tuple[str, ...] = ()
    widths: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    taus: tuple[float, ...] = ()
    correction: str = "holm"
    empty: str = "one"
    task: ClassVar[str] = IntervalClaim.kind

    def check(self) -> None:
        """Refuse what is unknown or out of range with InputError."""
        if not self.measurements or len(set(self.measurements)) < len(self.measurements):
            raise InputError(f"measurements {', '.join(self.measurements) or 'none'}: name at least one, and each once")
        check_radii(self.radii)
        for name in self.goals():
            if name not in self.measurements:
                raise InputError(f"{name} has a threshold or width and is not measured; add it to the measurements")
        if self.spacing is not None and not all(0 < step < math.inf for step in self.spacing):
            raise InputError(f"spacing {self.spacing} must hold lengths above 0, in mm")
        if self.taus:
            self.mask_target.check()

    def goals(self) -> dict[str, Goal]:
        """What is asked of measurements, by name; InputError where it cannot be read."""
        return goals(_assigned("threshold", self.thresholds), _assigned("width", self.widths))

    @property
    def mask_target(self) -> MaskTarget:
        """What is certified of masks."""
        return MaskTarget(self.taus, self.correction, self.empty)


@dataclass(frozen=True)
class SetTarget:
    """Sets of classes are certified, by a calibration.

    Attributes:
        calibration: the file that :func:`certimed.calibrate` made.
    """

    calibration: str = ""
    task: ClassVar[str] = SetClaim.kind

    def check(self) -> None:
        """Refuse a missing calibration with InputError."""
        if not self.calibration:
            raise InputError("sets need a calibration; make one with: certimed calibrate, and name its file")


def _assigned(what: str, texts: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError as error:
            raise InputError(f"{what} {text!r:.80} is not NAME=NUMBER; write e.g. ctr=0.5") from error
    return found


@dataclass(frozen=True)
class Tuning:
    """Per-image tuning of prompts; see :func:`certimed.prompts.prompt_methods`.

    Attributes:
        initial_context: words the learnable context starts from; None takes them from the template.
        copies, steps, lr: noisy copies, steps and learning rate.
    """

    initial_context: str | None = None
    copies: int = 100
    steps: int = 1
    lr: float = 5e-3

    def __post_init__(self) -> None:
        for name, value in (("copies", self.copies), ("steps", self.steps)):
            if value < 1:
                raise InputError(f"{name}={value} of per-image tuning must be 1 or more")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr} of per-image tuning must be a positive number")
