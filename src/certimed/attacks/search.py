"""The smallest perturbation that breaks an answer: ascent at a radius, fresh noise as judge, then bisection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certimed.attacks.ascent import Ball, Loss, Perturbed, ascend
from certimed.attacks.goals import BROKEN, AnotherMask, Goal, Judged
from certimed.attacks.grid import survey
from certimed.attacks.smoothed import Attacked, Fresh
from certimed.attacks.spec import BASE_BISECTIONS, GRID, INSIDE, AttackSpec

_CLOSE = 0.005  # a bracket narrower than this part of itself is not bisected


@dataclass(frozen=True)
class Trial:
    """One attack at one radius.

    Attributes:
        goal: ``"class"``, ``"pixel"`` or ``"dice"``.
        radius: of the ball that was searched.
        norm: of the perturbation found, which is judged; at most ``radius``.
        judged: what fresh noise says.
    """

    goal: str
    radius: float
    norm: float
    judged: Judged


@dataclass
class Found:
    """What an attack on one certificate found.

    Attributes:
        trials: in the order made.
        broken: number of the trial with the smallest perturbation that broke the answer, or None.
        base_norm: the smallest perturbation that was found to change the base model's answer, or None.
        base_dice: of masks with a truth, the base model's Dice after an attack on it at the first radius.
        kept: perturbations by name, ``"broken"``, ``"base"``.
    """

    trials: list[Trial] = field(default_factory=list)
    broken: int | None = None
    base_norm: float | None = None
    base_dice: tuple[float, ...] = ()
    kept: dict[str, Perturbed] = field(default_factory=dict)


class Search:
    """Attacks one answer of one method.

    Args:
        attacked: the pipeline.
        ball: the images allowed.
        goals: the first is bisected for; the others are tried at the certified radius, or at the radii asked for.
        spec: settings.
    """

    def __init__(self, attacked: Attacked, ball: Ball, goals: Sequence[Goal], spec: AttackSpec) -> None:
        self.attacked, self.ball, self.goals, self.spec = attacked, ball, tuple(goals), spec
        self.fresh, self.found = Fresh(), Found()
        self.level = spec.alpha / spec.tests(len(self.goals))
        self._best: Tensor | None = None
        self._starts = _generator(spec.seed, attacked)

    def run(self, radius: float) -> Found:
        """Attack a certificate of this radius, then the base model."""
        goal, *others = self.goals
        radii = self.spec.radii or (INSIDE * radius,)
        reach = self.spec.reach * max(radius, self.attacked.engine.law.sigma)
        for at in radii:
            self._trial(goal, at)
        if not self.spec.radii:
            low, high = INSIDE * radius, reach
            if self._broken_norm is not None:
                low, high = 0.0, self._broken_norm
            elif (norm := self._trial(goal, high)) is not None:
                high = norm
            if self._broken_norm is not None:
                _bisect(lambda at: self._trial(goal, at), low, high, self.spec.bisections)
        for other in others:
            for at in radii:
                self._trial(other, at)
        for other in others:
            self._base_dice(other, radii[0])
        self._base(goal, max(self.spec.radii, default=reach))
        return self.found

    @property
    def _broken_norm(self) -> float | None:
        return None if self.found.broken is None else self.found.trials[self.found.broken].norm

    def _trial(self, goal: Goal, radius: float) -> float | None:
        """Attack at one radius; the norm of what broke the answer, or None."""
        spec, start = self.spec, self.fresh.take(self.spec.copies)

        def loss(x: Tensor) -> Tensor:
            return goal.loss(self.attacked.scores(x, start, spec.copies))

        moved = self.ball.put(self._ascent(loss, radius), radius)
        judged = goal.judge(self.attacked, moved.pixels, self.fresh, spec.n, self.level)
        self.found.trials.append(Trial(goal.name, radius, moved.norm, judged))
        if judged.status != BROKEN:
            return None
        if self._broken_norm is None or moved.norm < self._broken_norm:
            self.found.broken = len(self.found.trials) - 1
            self.found.kept["broken"] = moved
            self._best = moved.pixels - self.ball.image
        return moved.norm

    def _ascent(self, loss: Loss, radius: float) -> Tensor:
        """The best of all starting points: the best direction known, then random ones."""
        image = self.ball.image
        if self.spec.search == GRID:
            return survey(loss, self.ball, radius, self._best)
        starts = [torch.zeros_like(image) if self._best is None else self._best]
        for _ in range(self.spec.restarts - 1):
            direction = torch.randn(image.shape, generator=self._starts).to(image.device)
            starts.append(direction * (radius / direction.norm()))
        found = [ascend(loss, self.ball, start, radius, self.spec.steps) for start in starts]
        return max(found, key=lambda one: one[1])[0]

    def _base(self, goal: Goal, reach: float) -> None:
        """Plain PGD on the base model: one copy without noise, and no test, as its answer is what it is."""
        self._best = None

        def loss(x: Tensor) -> Tensor:
            return goal.loss(self.attacked.bare(x))

        def trial(radius: float) -> float | None:
            moved = self.ball.put(self._ascent(loss, radius), radius)
            if not self._base_changed(goal, moved.pixels):
                return None
            if self.found.base_norm is None or moved.norm < self.found.base_norm:
                self.found.base_norm, self.found.kept["base"] = moved.norm, moved
                self._best = moved.pixels - self.ball.image
            return moved.norm

        if self._base_changed(goal, self.ball.image):
            self.found.base_norm = 0.0
        elif (norm := trial(reach)) is not None:
            _bisect(trial, 0.0, norm, self.spec.bisections + BASE_BISECTIONS)

    def _base_dice(self, goal: Goal, radius: float) -> None:
        self._best = None
        delta = self._ascent(lambda x: goal.loss(self.attacked.bare(x)), radius)
        with torch.no_grad():
            answer = self.attacked.target.answer(self.attacked.bare(self.ball.put(delta, radius).pixels))[0]
        if isinstance(goal, AnotherMask):
            self.found.base_dice = goal.base_dice(answer)

    @torch.no_grad()
    def _base_changed(self, goal: Goal, x: Tensor) -> bool:
        return goal.base(self.attacked.target.answer(self.attacked.bare(x))[0])[0]


def _bisect(trial: Callable[[float], float | None], low: float, high: float, most: int) -> None:
    """Halve the bracket between a radius that held and a perturbation that broke."""
    for _ in range(most):
        if high - low <= _CLOSE * high:
            return
        norm = trial((low + high) / 2)
        low, high = (low, norm) if norm is not None else ((low + high) / 2, high)


def _generator(seed: int, attacked: Attacked) -> torch.Generator:
    text = json.dumps(["certimed-attack-1", seed, attacked.item, attacked.method.name])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return torch.Generator().manual_seed(number)
