"""The class of every pixel of an image or volume, all at once (SegCertify; Fischer, Baader, Vechev, ICML 2021)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Agreement, Budget, Outcome, Session, start_mask
from certimed.budgets.pixels import Thresholds
from certimed.certificates import MaskClaim, Share
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseLaw, sample_variation
from certimed.statistics import CORRECTION_NAMES, alpha_split
from certimed.targets.target import FiniteScores, Views, check_scores

_BATCH_BYTES = 48 << 20
_CPU_BATCH_BYTES = 16 << 20  # larger batches leave the cache: a small U-Net at 256x256 then takes 1.5 times as long
_FLOAT_BYTES = 4
_PIECE = 1 << 18


@dataclass(frozen=True)
class Pixels:
    """The most probable class of the noisy image at each pixel.

    Each tau is tested at ``alpha / len(taus)``, so by the union bound all claims hold *together* with probability at
    least ``1 - alpha``. The taus must be fixed beforehand.

    Attributes:
        num_classes: K, at least 2, the background counted.
        taus: probabilities to exceed, each from 0.5 to below 1; each gives a claim of its own.
        correction: ``"holm"`` or ``"bonferroni"``.
        binary_threshold: for two classes and *one* output channel: class 1 where the channel exceeds this value.
        space: shape of the mask, where noise is not on an image of that shape; None: the input's.
    """

    num_classes: int
    taus: tuple[float, ...] = (0.75,)
    correction: str = "holm"
    binary_threshold: float | None = None
    space: tuple[int, ...] | None = None
    kind: ClassVar[str] = MaskClaim.kind
    selects: ClassVar[bool] = True
    reads_image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise InputError(
                f"num_classes={self.num_classes} leaves nothing to decide; count the background, use 2 or more"
            )
        threshold = self.binary_threshold
        if threshold is not None and (self.num_classes != 2 or not math.isfinite(threshold)):
            raise InputError(
                f"binary_threshold={threshold} with num_classes={self.num_classes}: a threshold must be finite and "
                "needs exactly 2 classes; leave it out for models with one channel a class"
            )
        object.__setattr__(self, "taus", tuple(check_tau(tau) for tau in self.taus))
        if not self.taus or len(set(self.taus)) < len(self.taus):
            raise InputError(f"taus={self.taus} must name at least one tau, and each once")
        if self.correction not in CORRECTION_NAMES:
            raise InputError(f"correction={self.correction!r} is unknown; use one of {', '.join(CORRECTION_NAMES)}")

    def answer(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        return winning_class(self._checked(scores), self.binary_threshold)

    def compared(self, scores: Tensor) -> Tensor:
        """See :class:`~certimed.targets.Target`."""
        checked, threshold = self._checked(scores), self.binary_threshold
        return checked if threshold is None else torch.cat([torch.full_like(checked, threshold), checked], dim=1)

    def check(self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None) -> None:
        """See :class:`~certimed.targets.Target`."""
        self._session(shape, budget, alpha, law, views)

    def select(self, shape: tuple[int, ...], device: torch.device, n0: int) -> ModeTally:
        """See :class:`~certimed.targets.Target`."""
        return ModeTally(self, self.space or shape[1:], device, n0)

    def estimate(self, selected: Tensor, device: torch.device, cap: int) -> AgreementTally:
        """See :class:`~certimed.targets.Target`."""
        return AgreementTally(self, selected, cap)

    def start(
        self, selected: Tensor, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None
    ) -> Session[Agreement, Thresholds]:
        """See :class:`~certimed.targets.Target`."""
        return self._session(shape, budget, alpha, law, views)

    def claims(
        self, selected: Tensor, counts: Agreement, outcome: Outcome[Thresholds], alpha: float, law: NoiseLaw
    ) -> Sequence[tuple[MaskClaim, Share, Outcome[Thresholds]]]:
        """See :class:`~certimed.targets.Target`."""
        mask = selected.cpu().numpy()
        found = []
        for place, (tau, share) in enumerate(zip(self.taus, self._shares(alpha))):
            claim = MaskClaim(
                mask=mask,
                agreement=counts.counts,
                threshold=outcome.bound[place],
                num_classes=self.num_classes,
                tau=tau,
                correction=self.correction,
                sigma=law.sigma,
            )
            own = tuple((look[0], look[1 + place]) for look in outcome.looks)
            found.append((claim, share, replace(outcome, looks=own)))
        return found

    def batch_size(self, shape: tuple[int, ...], device: torch.device) -> int:
        """Noise, scores and a copy of them in 48 MiB (CPU: 16), at most 1024 samples."""
        floats = math.prod(shape) + 2 * self.num_classes * math.prod(shape[1:])
        bytes_ = _CPU_BATCH_BYTES if device.type == "cpu" else _BATCH_BYTES
        return max(1, min(1024, bytes_ // (_FLOAT_BYTES * floats)))

    def _session(
        self, shape: tuple[int, ...], budget: Budget, alpha: float, law: NoiseLaw, views: Views = None
    ) -> Session[Agreement, Thresholds]:
        shares = [share.level for share in self._shares(alpha)]
        return start_mask(
            budget,
            self.space or shape[1:],
            self.taus,
            shares,
            self.correction,
            sample_variation(law, math.prod(shape), views),
        )

    def _shares(self, alpha: float) -> list[Share]:
        count = len(self.taus)
        if count == 1:
            return [Share.alone(alpha)]
        return [Share(float(level), float(alpha), count, "taus") for level in alpha_split(alpha, count)]

    def _checked(self, scores: Tensor) -> Tensor:
        channels = 1 if self.binary_threshold is not None else self.num_classes
        if isinstance(scores, Tensor) and scores.ndim > 2 and scores.shape[1] == 1 != channels == 2:
            raise ModelError(
                "the model returned one channel for two classes; state binary_threshold (0 for logits, 0.5 for "
                "probabilities)"
            )
        rows, *space = (0,) if not isinstance(scores, Tensor) else (len(scores), *scores.shape[2:])
        return check_scores(scores, (rows, channels, *space))


class _PixelTally(ABC):
    def __init__(self, target: Pixels, space: tuple[int, ...], device: torch.device) -> None:
        self._target, self._space = target, tuple(space)
        self._finite = FiniteScores(device)

    def add(self, scores: Tensor, copies: Tensor | None = None) -> None:
        """See :class:`~certimed.targets.Tally`."""
        won = self._target.answer(scores)
        check_scores(scores, (*scores.shape[:2], *self._space))
        self._finite.see(scores)
        for sample in won:
            self._count(sample)

    @abstractmethod
    def _count(self, won: Tensor) -> None:
        """Count the classes of one sample."""


class ModeTally(_PixelTally):
    """Most frequent class of each pixel, ties to the lowest class; ``num_classes`` small integers a pixel."""

    def __init__(self, target: Pixels, space: tuple[int, ...], device: torch.device, n0: int) -> None:
        super().__init__(target, space, device)
        kind = torch.uint8 if n0 <= 255 else torch.int32
        self._votes = torch.zeros((target.num_classes, *space), dtype=kind, device=device)
        self._one = torch.ones((1, _PIECE), dtype=kind, device=device)

    def _count(self, won: Tensor) -> None:
        # In pieces: the indices are eight bytes each.
        for votes, classes in zip(
            torch.split(self._votes.flatten(1), _PIECE, dim=1), torch.split(won.flatten(), _PIECE)
        ):
            votes.scatter_add_(0, classes.long().unsqueeze(0), self._one[:, : len(classes)])

    def counts(self) -> Tensor:
        """Small integers ``space``, on the device: the candidate classes."""
        self._finite.require()
        return winning_class(self._votes.unsqueeze(0)).squeeze(0)


class AgreementTally(_PixelTally):
    """How many samples agree with the candidate classes at each pixel: one small integer a pixel."""

    def __init__(self, target: Pixels, mask: Tensor, cap: int) -> None:
        super().__init__(target, tuple(mask.shape), mask.device)
        self._mask, self._n = mask, 0
        kind = torch.int16 if cap < 2**15 else torch.int32
        self._agreement = torch.zeros(mask.shape, dtype=kind, device=mask.device)

    def _count(self, won: Tensor) -> None:
        self._agreement.add_(won == self._mask)
        self._n += 1

    def counts(self) -> Agreement:
        """Samples seen, and int16 or int32 ``space``."""
        self._finite.require()
        agreement: NDArray[np.integer[Any]] = self._agreement.cpu().numpy()
        return Agreement(self._n, agreement)


def winning_class(scores: Tensor, binary_threshold: float | None = None) -> Tensor:
    """Class of each pixel: ``(B, K, *space)`` -> small integers ``(B, *space)``; ties go to the lowest class.

    With a threshold (then K = 1): class 1 where the channel exceeds it. Equal to ``scores.argmax(1)``, which on a CPU
    takes about ten times as long, because it walks the class axis with a stride.
    """
    if binary_threshold is not None:
        return (scores[:, 0] > binary_threshold).to(torch.uint8)
    classes = scores.shape[1]
    kind = torch.uint8 if classes <= 256 else torch.int32
    if scores.device.type != "cpu":
        return scores.argmax(dim=1).to(kind)
    won = torch.empty((len(scores), *scores.shape[2:]), dtype=kind)
    for planes, out in zip(scores, won):
        out.copy_(planes[1] > planes[0])
        if classes > 2:
            best = torch.maximum(planes[0], planes[1])
            for index in range(2, classes):
                out.masked_fill_(planes[index] > best, index)
                torch.maximum(best, planes[index], out=best)
    return won


def check_tau(tau: float) -> float:
    """Return tau, or raise InputError unless 0.5 <= tau < 1 (below one half no radius follows)."""
    if not 0.5 <= tau < 1:
        raise InputError(f"tau={tau} gives no radius; use 0.5 <= tau < 1, e.g. 0.75")
    return float(tau)
