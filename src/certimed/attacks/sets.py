"""Attacks on sets: push the true class out of the set, without seeing the noise of the test image.

For each calibrated radius, gradient ascent in its ball (:func:`certimed.attacks.ascend`, in expectation over noise)
raises the share of noisy copies whose set misses the true class. The copies are of the attack's own noise. Then the
*deployed* noise decides, the one copy that the certificate itself was made of: the set holds the true class
(``"kept"``) or not (``"broken"``). Fresh copies beside it say how often it would.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.attacks.ascent import Ball, ascend
from certimed.attacks.goals import BROKEN, KEPT, SET, Judged
from certimed.attacks.search import Found, Trial
from certimed.attacks.smoothed import Attacked, Fresh
from certimed.attacks.spec import INSIDE, AttackSpec
from certimed.certificates import SetClaim
from certimed.statistics import class_scores
from certimed.targets import ProbabilityTally

_STEEP = 10.0  # of the smooth step that stands in for "ranks at least as high", in units of log probability
_PULL = 0.05  # of the plain loss, which has a gradient where all copies are far from the threshold


class SetSearch:
    """Attacks one set at each of its radii.

    Args:
        attacked: the pipeline.
        ball: the images allowed.
        claim: what is attacked.
        label: the true class.
        spec: settings; ``radii`` are those of the claim.
    """

    def __init__(self, attacked: Attacked, ball: Ball, claim: SetClaim, label: int, spec: AttackSpec) -> None:
        self.attacked, self.ball, self.claim, self.label, self.spec = attacked, ball, claim, label, spec
        self.fresh, self.found = Fresh(), Found()

    def run(self) -> Found:
        """One trial for each radius above 0, from small to large, each starting from the last perturbation too."""
        start: Tensor | None = None
        for place, radius in enumerate(self.claim.radii):
            if radius > 0:
                start = self._trial(place, INSIDE * radius, start)
        return self.found

    def _trial(self, place: int, radius: float, before: Tensor | None) -> Tensor:
        spec, first = self.spec, self.fresh.take(self.spec.copies)
        threshold = self.claim.thresholds[place][self.label]

        def loss(x: Tensor) -> Tensor:
            return missing(self.attacked.scores(x, first, spec.copies), self.label, self.claim.score, threshold)

        zero = torch.zeros_like(self.ball.image)
        ends = [ascend(loss, self.ball, start, radius, spec.steps) for start in (zero, before) if start is not None]
        delta = max(ends, key=lambda one: one[1])[0]
        moved = self.ball.put(delta, radius)
        judged = self._judge(place, moved.pixels)
        self.found.trials.append(Trial(SET, radius, moved.norm, judged))
        least = None if self.found.broken is None else self.found.trials[self.found.broken].norm
        if judged.status == BROKEN and (least is None or moved.norm < least):
            self.found.broken = len(self.found.trials) - 1
            self.found.kept["broken"] = moved
        return delta

    @torch.no_grad()
    def _judge(self, place: int, x: Tensor) -> Judged:
        """By the deployed copy; ``counts``: fresh copies whose set holds the true class, and misses it."""
        n, start = self.spec.n, self.fresh.take(self.spec.n)
        tally = ProbabilityTally(len(self.claim.probabilities), x.device)
        rows = self.attacked.count(x, start, n, tally).values
        held = sum(self._holds(place, row) for row in rows)
        own = ProbabilityTally(len(self.claim.probabilities), x.device)
        own.add(self.attacked.deployed(x))
        kept = self._holds(place, own.counts().values[0])
        return Judged(KEPT if kept else BROKEN, self.label, None, (held, n - held), start)

    def _holds(self, place: int, probabilities: NDArray[np.float64]) -> bool:
        scores = class_scores(probabilities, self.claim.score)
        return bool(scores[self.label] <= self.claim.thresholds[place][self.label])


def missing(scores: Tensor, label: int, score: str, threshold: float) -> Tensor:
    """A smooth share of copies whose set misses a class; larger is worse for the set.

    LAC: how far the class's log odds are below those of the threshold. APS: how far the mass of what ranks at least as
    high, made smooth, is above it.
    """
    logs = torch.log_softmax(scores.double(), dim=1)
    own = logs[:, label]
    odds = own - torch.log1p(-own.exp().clamp(max=1 - 1e-12))
    if score == "lac":
        wanted = min(max(1.0 - threshold, 1e-9), 1 - 1e-9)
        short = math.log(wanted / (1 - wanted)) - odds
    else:
        above = torch.sigmoid(_STEEP * (logs - own.unsqueeze(1)))
        short = _STEEP * ((logs.exp() * above).sum(dim=1) - threshold)
    return (torch.sigmoid(short) - _PULL * odds).mean()
