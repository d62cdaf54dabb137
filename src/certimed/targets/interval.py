"""Where a measurement of the mask stays: the median of the number under noise (percentile smoothing)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Budget, Ends, Goal, Outcome, Session, Values, start_interval
from certimed.certificates import IntervalClaim, MeasuredInterval, Share
from certimed.errors import InputError
from certimed.measurements import Measurement, Scene
from certimed.noise import NoiseLaw, sample_variation
from certimed.targets.pixels import Pixels
from certimed.targets.target import FiniteScores, Views, check_scores


@dataclass(frozen=True, eq=False)
class Interval:
    """The interval in which the median under noise of each measurement stays, at each radius.

    All ends of all measurements hold together with probability at least ``1 - alpha``
    (:class:`certimed.budgets.values.ValueEvidence`). Measurements and radii must be fixed beforehand.

    Attributes:
        num_classes: K of the segmenter, the background counted.
        measurements: what is measured, each by a name of its own.
        radii: L2, rising, above 0.
        goals: what is asked of measurements, by name; see :class:`certimed.budgets.Goal`.
        spacing: millimetres along each axis of the certified space; None: not known, lengths are in pixels.
        truth: integers ``space``, for measurements that compare with it.
        binary_threshold, space: see :class:`certimed.targets.Pixels`.
    """

    num_classes: int
    measurements: tuple[Measurement, ...]
    radii: tuple[float, ...]
    goals: dict[str, Goal] | None = None
    spacing: tuple[float, ...] | None = None
    truth: NDArray[Any] | None = None
    binary_threshold: float | None = None
    space: tuple[int, ...] | None = None
    kind: ClassVar[str] = IntervalClaim.kind
    selects: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "measurements", tuple(self.measurements))
        object.__setattr__(self, "radii", check_radii(self.radii))
        names = [one.name for one in self.measurements]
        if not names or len(set(names)) < len(names):
            raise InputError(f"measurements {', '.join(names) or 'none'}: name at least one, and each once")
        for name in self.goals or {}:
            if name not in names:
                raise InputError(
                    f"a width or threshold is given for {name}, which is not measured ({', '.join(names)})"
                )

    @property
    def reads_image(self) -> bool:
        """Whether a measurement looks at the noisy image."""
        return any(one.kind.reads_image for one in self.measurements)

    def answer(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return self._pixels.answer(scores)

    def compared(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return self._pixels.compared(scores)

    def check(self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None) -> None:
        """See :class:`~certimed.targets.Target`."""
        space = self.space or shape[1:]
        for one in self.measurements:
            one.unit(self.spacing, len(space))
            if one.kind.needs_truth and self.truth is None:
                raise InputError(f"{one.name} compares with a true mask, and the image has none")
        if self.truth is not None and self.truth.shape != space:
            raise InputError(f"the truth has shape {self.truth.shape} and the image {space}")
        self.start(space, shape, budget, alpha, law, views)

    def select(self, shape: tuple[int, ...], device: torch.device, n0: int) -> SpaceTally:
        """Nothing is left to choose: the shape of the mask stands in for a choice."""
        return SpaceTally(self.space or shape[1:])

    def estimate(self, selected: tuple[int, ...], device: torch.device, cap: int) -> ValueTally:
        """See :class:`~certimed.targets.Target`."""
        return ValueTally(self, selected, device)

    def start(
        self,
        selected: tuple[int, ...],
        shape: tuple[int, ...],
        budget: Budget,
        alpha: float,
        law: NoiseLaw,
        views: Views = None,
    ) -> Session[Values, Ends]:
        """See :class:`~certimed.targets.Target`."""
        goals = [(self.goals or {}).get(one.name, Goal()) for one in self.measurements]
        shares = [law.probability(radius) for radius in self.radii]
        return start_interval(budget, shares, alpha, goals, sample_variation(law, math.prod(shape), views))

    def claims(
        self, selected: tuple[int, ...], counts: Values, outcome: Outcome[Ends], alpha: float, law: NoiseLaw
    ) -> Sequence[tuple[IntervalClaim, Share, Outcome[Ends]]]:
        """See :class:`~certimed.targets.Target`."""
        found = []
        for one, values, ends in zip(self.measurements, counts.values, outcome.bound):
            goal = (self.goals or {}).get(one.name, Goal())
            defined = np.sort(values[~np.isnan(values)])
            found.append(
                MeasuredInterval(
                    name=one.name,
                    unit=one.unit(self.spacing, len(selected)),
                    values=tuple(defined.tolist()),
                    undefined=counts.n - len(defined),
                    lower=tuple(ends[:, 0].tolist()),
                    upper=tuple(ends[:, 1].tolist()),
                    threshold=goal.threshold,
                    width=goal.width,
                )
            )
        return [(IntervalClaim(tuple(found), self.radii), Share.alone(alpha), outcome)]

    def batch_size(self, shape: tuple[int, ...], device: torch.device) -> int:
        """As of masks."""
        return self._pixels.batch_size(shape, device)

    @property
    def _pixels(self) -> Pixels:
        return Pixels(self.num_classes, binary_threshold=self.binary_threshold)


class SpaceTally:
    """Counts nothing."""

    def __init__(self, space: tuple[int, ...]) -> None:
        self._space = tuple(space)

    def add(self, scores: Tensor, copies: Tensor | None = None) -> None:
        """See :class:`~certimed.targets.Tally`."""

    def counts(self) -> tuple[int, ...]:
        """The shape of the mask."""
        return self._space


class ValueTally:
    """The measurements of every sample: a number each, nothing of the size of an image is kept."""

    def __init__(self, target: Interval, space: tuple[int, ...], device: torch.device) -> None:
        self._target, self._space = target, tuple(space)
        self._finite = FiniteScores(device)
        self._values: list[list[float]] = []

    def add(self, scores: Tensor, copies: Tensor | None = None) -> None:
        """See :class:`~certimed.targets.Tally`."""
        target = self._target
        won = target.answer(scores)
        check_scores(scores, (*scores.shape[:2], *self._space))
        self._finite.see(scores)
        masks = won.cpu().numpy()
        images = None if copies is None else copies.cpu().numpy()
        for place, mask in enumerate(masks):
            scene = Scene(mask, target.spacing, None if images is None else images[place], target.truth)
            self._values.append([one.value(scene) for one in target.measurements])

    def counts(self) -> Values:
        """The values so far, in the order drawn."""
        self._finite.require()
        n = len(self._values)
        return Values(n, np.array(self._values, dtype=np.float64).reshape(n, len(self._target.measurements)).T.copy())


def check_radii(radii: Sequence[float]) -> tuple[float, ...]:
    """Return the radii, or raise InputError unless they are finite, above 0 and rising."""
    found = tuple(float(radius) for radius in radii)
    if not found or not all(0 < radius < math.inf for radius in found) or list(found) != sorted(set(found)):
        raise InputError(f"radii {', '.join(map(repr, found)) or 'none'} must be above 0 and rise; name at least one")
    return found
