"""What an attack wants, and when it has it: another class, another class at a certified pixel, a worse mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.attacks.smoothed import Attacked, Fresh
from certimed.certificates import MaskClaim
from certimed.metrics.segmentation import DICE_HIGH, count_pixels, overlap_scores
from certimed.noise import sample_variation
from certimed.statistics import count_threshold, p_value_more, predict_p_value, upper_more
from certimed.targets import Classes, Pixels

KEPT = "kept"
ABSTAINED = "abstained"
BROKEN = "broken"

CLASS = "class"
PIXEL = "pixel"
DICE = "dice"
SET = "set"

_TINY = 1e-12
_SELECTION = 10  # one in so many samples of a mask selects its candidates
_STEEP = 16.0


@dataclass(frozen=True)
class Judged:
    """What fresh noise says of a perturbed image.

    Attributes:
        status: ``"kept"``: PREDICT answers the certified class. ``"broken"``: it answers another one, at the attack's
            level. ``"abstained"``: neither. Masks: all certified pixels keep their class, at least one has another one,
            or neither.
        answer: the most frequent class; of sets, the true class; of masks, how many certified pixels have changed.
        p_value: of PREDICT; None for masks.
        counts: of all classes; of masks, empty; of sets, fresh copies whose set holds the true class, and the others.
        start: first of the samples of the phase "attack".
        dice: of masks with a truth, the reached Dice of each class, rounded in the model's favour.
    """

    status: str
    answer: int
    p_value: float | None
    counts: tuple[int, ...]
    start: int
    dice: tuple[float, ...] = ()


class Goal(Protocol):
    """What is attacked."""

    @property
    def name(self) -> str:
        """``"class"``, ``"pixel"`` or ``"dice"``."""

    def loss(self, scores: Tensor) -> Tensor:
        """To be raised: scores of the copies -> a number."""

    def judge(self, attacked: Attacked, x: Tensor, fresh: Fresh, n: int, level: float) -> Judged:
        """Ask the smoothed model about a perturbed image, on ``n`` fresh samples."""

    def base(self, answer: Tensor) -> tuple[bool, int]:
        """Whether the base model's answer to one image is another one than is attacked, and what it is."""


@dataclass(frozen=True)
class AnotherClass:
    """The smoothed class is to change.

    The loss is SmoothAdv's (Salman et al., NeurIPS 2019): minus the logarithm of the mean probability of the certified
    class over the noisy copies. Scores are first divided by the mean distance, over these copies, between the class and
    its best rival, so that models whose probabilities are all 0 or 1 have a gradient too.

    Success is PREDICT's (Cohen et al., ICML 2019): where the smoothed class at the perturbed image still is the
    certified one, another class is answered with probability at most ``level`` (its p-value raised for the noise law's
    variation). Failing to be answered at the run's own alpha is an abstention.

    Attributes:
        reference: the certified class.
        alpha: the run's, at which an answer counts as kept.
    """

    reference: int
    alpha: float
    name: str = CLASS

    def loss(self, scores: Tensor) -> Tensor:
        """See :class:`Goal`; scores ``(B, K)``."""
        lost: Tensor = _minus_log_mean(scores, torch.tensor(self.reference, device=scores.device))
        return lost

    def judge(self, attacked: Attacked, x: Tensor, fresh: Fresh, n: int, level: float) -> Judged:
        """See :class:`Goal`."""
        target, start = attacked.target, fresh.take(n)
        assert isinstance(target, Classes)
        counts = attacked.count(x, start, n, target.select(tuple(x.shape), x.device, n))
        variation = sample_variation(attacked.engine.law, x.numel(), attacked.method.views_of)
        answer, p_value = predict(counts, variation)
        kept = answer == self.reference
        status = KEPT if kept and p_value <= self.alpha else BROKEN if not kept and p_value <= level else ABSTAINED
        return Judged(status, answer, p_value, tuple(int(count) for count in counts), start)

    def base(self, answer: Tensor) -> tuple[bool, int]:
        """See :class:`Goal`."""
        found = int(answer)
        return found != self.reference, found


def predict(counts: NDArray[np.int64], variation: float = 0.0) -> tuple[int, float]:
    """PREDICT's class and its p-value, from the counts of all classes; ties go to the lowest class."""
    order = np.argsort(-np.asarray(counts), kind="stable")
    p_value = predict_p_value(int(counts[order[0]]), int(counts[order[1]]))
    return int(order[0]), float(p_value_more(p_value, int(np.sum(counts)), variation))


@dataclass(frozen=True, eq=False)
class AnotherMask:
    """A certified pixel is to change its class, or the mask is to lose its Dice.

    The loss of the goal "pixel" is the largest of AnotherClass's over the certified pixels; of "dice" the
    share, made smooth, of pixels whose true class's mean probability is below one half: pixels that are lost or out of
    reach get little of the perturbation.

    Success is judged like a certificate: a tenth of the samples selects each pixel's candidate class, the rest test
    "its probability is at most one half", all pixels together (Holm). With probability at least ``1 - level`` every
    pixel so decided has the smoothed segmenter's class. A certified pixel decided for another class is broken; the
    reached Dice takes undecided pixels for whatever suits the model best, so the true Dice there is at most that.

    Attributes:
        claim: the certified mask.
        truth: int64 ``space``, or None.
        empty: convention for absent classes, as in the run.
        name: ``"pixel"`` or ``"dice"``.
    """

    claim: MaskClaim
    truth: NDArray[np.int64] | None
    empty: str = "one"
    name: str = PIXEL
    _kept: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def loss(self, scores: Tensor) -> Tensor:
        """See :class:`Goal`; scores ``(B, K, *space)``."""
        wanted, weight = self._wanted(scores.device)
        lost: Tensor = _minus_log_mean(scores, wanted)
        if self.name == DICE:
            return torch.sigmoid(_STEEP * (lost - math.log(2))).mean()
        return lost[weight].max()

    def judge(self, attacked: Attacked, x: Tensor, fresh: Fresh, n: int, level: float) -> Judged:
        """See :class:`Goal`."""
        target, shape = attacked.target, tuple(x.shape)
        assert isinstance(target, Pixels)
        n0 = max(1, n // _SELECTION)
        start = fresh.take(n0)
        candidates = attacked.count(x, start, n0, target.select(shape, x.device, n0))
        found = attacked.count(x, fresh.take(n - n0), n - n0, target.estimate(candidates, x.device, n - n0))
        variation = sample_variation(attacked.engine.law, x.numel(), attacked.method.views_of)
        null = float(upper_more(0.5, variation))
        threshold = count_threshold(np.bincount(found.counts.ravel(), minlength=n - n0 + 1), n - n0, null, level)
        mask = candidates.cpu().numpy()
        decided = found.counts >= threshold if threshold is not None else np.zeros(mask.shape, dtype=bool)
        certified, changed = self.claim.certified, mask != self.claim.mask
        broken = int(np.count_nonzero(certified & decided & changed))
        kept = bool((decided & ~changed)[certified].all())
        dice = () if self.truth is None else reached_dice(mask, decided, self.truth, self.claim.num_classes, self.empty)
        return Judged(BROKEN if broken else KEPT if kept else ABSTAINED, broken, None, (), start, dice)

    def base(self, answer: Tensor) -> tuple[bool, int]:
        """See :class:`Goal`."""
        changed = int(np.count_nonzero((answer.cpu().numpy() != self.claim.mask) & self.claim.certified))
        return changed > 0, changed

    def base_dice(self, answer: Tensor) -> tuple[float, ...]:
        """Dice of each class of the base model's mask; empty without a truth."""
        if self.truth is None:
            return ()
        mask = answer.cpu().numpy()
        return reached_dice(mask, np.ones(mask.shape, dtype=bool), self.truth, self.claim.num_classes, self.empty)

    def _wanted(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Class of each pixel, and which pixels are certified."""
        if not self._kept:
            truth = self.truth if self.name == DICE else None
            classes = self.claim.mask if truth is None else truth
            self._kept["classes"] = torch.from_numpy(classes.astype(np.int64)).to(device)
            self._kept["certified"] = torch.from_numpy(np.array(self.claim.certified)).to(device)
        return self._kept["classes"], self._kept["certified"]


def reached_dice(
    mask: NDArray[Any], decided: NDArray[np.bool_], truth: NDArray[Any], classes: int, empty: str
) -> tuple[float, ...]:
    """Dice of each class, undecided pixels filled as suits it best; NaN (a skipped class) is passed on."""
    counts = count_pixels(mask, decided, truth, classes)
    return tuple(float(value) for value in overlap_scores(counts, empty)[DICE_HIGH])


def _minus_log_mean(scores: Tensor, wanted: Tensor) -> Tensor:
    """``(B, K, *space)`` and classes ``space`` -> minus the log of the copies' mean probability, ``space``."""
    index = wanted.expand(len(scores), 1, *scores.shape[2:]) if wanted.ndim else wanted.expand(len(scores), 1)
    own = scores.gather(1, index)
    rival = scores.scatter(1, index, -math.inf).amax(dim=1, keepdim=True)
    scale = (own - rival).detach().abs().mean(dim=0, keepdim=True).clamp_min(_TINY)
    log_own = torch.log_softmax(scores / scale, dim=1).gather(1, index).squeeze(1)
    return math.log(len(scores)) - torch.logsumexp(log_own, dim=0)
