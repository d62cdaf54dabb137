"""What decides a tuning besides its data: recipes, and the losses they weigh."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from certimed.denoising.training import AUGMENTATIONS
from certimed.errors import InputError

_ENTROPY = 0.5  # eta of Jeong and Shin
_SMOOTH = 1.0  # pixels added to both sides of a Dice, so that an absent class has one


@dataclass(frozen=True)
class AdapterRecipe:
    """Steps of AdamW on noisy copies, and the weight of each loss; one at least must be above 0.

    Attributes:
        name: for the record.
        steps, batch: optimiser steps, and noisy copies in each.
        lr: peak learning rate: up over the first ``warm`` of the steps, then a cosine to zero.
        context_lr: peak rate of a joint context, in units of the spread of the model's token embeddings.
        copies: noisy copies, at one noise level, of each image of a step.
        labels: cross-entropy with the labels, on the frozen text side (of masks: of every pixel).
        dice: one minus the soft Dice, of masks.
        answers: divergence from the frozen model's own answers to the clean image; needs no label.
        features: one minus the cosine with the frozen model's features of the clean image; needs no label.
        consistency: of an image's copies with each other (Jeong and Shin, NeurIPS 2020); needs ``copies`` of 2 or more.
        augment: of the images, one of :data:`certimed.denoising.training.AUGMENTATIONS`.
        weight_decay: of AdamW.

    Raises:
        InputError: a number that makes no sense.
    """

    name: str = "default"
    steps: int = 400
    batch: int = 32
    lr: float = 2e-3
    warm: float = 0.3
    context_lr: float = 0.1
    copies: int = 1
    labels: float = 1.0
    dice: float = 0.0
    answers: float = 0.0
    features: float = 0.0
    consistency: float = 0.0
    augment: str = "none"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.labels, self.dice, self.answers, self.features, self.consistency)
        if min(weights) < 0 or not any(weights) or not all(map(math.isfinite, (*weights, self.lr, self.context_lr))):
            raise InputError(f"the losses of recipe {self.name} weigh {weights}; give one at least a weight above 0")
        if min(self.steps, self.batch, self.copies) < 1 or not self.lr > 0 or not 0 <= self.warm < 1:
            raise InputError(
                f"steps={self.steps}, batch={self.batch}, copies={self.copies}, lr={self.lr:g} and warm={self.warm:g} "
                "of a recipe must be positive, and warm below 1"
            )
        if self.copies > self.batch or (self.consistency and self.copies < 2):
            raise InputError(f"copies={self.copies} does not fit: at most batch={self.batch}, and 2 for consistency")
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"augment={self.augment!r} is not one of {', '.join(AUGMENTATIONS)}")

    @property
    def labelled(self) -> bool:
        """Whether a label is used."""
        return bool(self.labels or self.dice)

    @property
    def distils(self) -> bool:
        """Whether the frozen model's answer to the clean image is used."""
        return bool(self.answers or self.features)

    def rate(self, step: int) -> float:
        """Learning rate of a step, as a share of the peak."""
        rising = max(1.0, self.warm * self.steps)
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, self.steps - rising)))


RECIPES = {
    "default": AdapterRecipe(),
    "consistent": AdapterRecipe("consistent", copies=2, consistency=5.0),
    "distilled": AdapterRecipe("distilled", features=1.0),
    "unlabelled": AdapterRecipe("unlabelled", labels=0.0, answers=1.0, features=1.0),
    "masks": AdapterRecipe("masks", batch=8, dice=1.0),
}
"""``default``: labels alone. ``consistent``: and consistency. ``distilled``: and clean-to-noisy features.
``unlabelled``: no label at all. ``masks``: of segmentation networks."""


@dataclass(frozen=True)
class Seen:
    """One batch, as the losses see it.

    Attributes:
        logits: ``(B, K, *space)`` of the noisy copies; the copies of an image follow each other.
        features: ``(B, D)``, normalised; of models without features, the logits.
        truth: int64 ``(B, *space)``.
        clean_logits, clean_features: the frozen model's, of the clean images; None where no loss asks.
    """

    logits: Tensor
    features: Tensor
    truth: Tensor
    clean_logits: Tensor | None = None
    clean_features: Tensor | None = None


def loss_of(recipe: AdapterRecipe, seen: Seen) -> Tensor:
    """The weighted sum of a recipe's losses."""
    losses: dict[str, Callable[[], Tensor]] = {
        "labels": lambda: functional.cross_entropy(seen.logits, seen.truth),
        "dice": lambda: _dice_loss(seen.logits, seen.truth),
        "answers": lambda: _divergence(seen.clean_logits, seen.logits),
        "features": lambda: 1 - _alike(seen.features, seen.clean_features),
        "consistency": lambda: _inconsistency(seen.logits, recipe.copies),
    }
    return torch.stack([getattr(recipe, name) * one() for name, one in losses.items() if getattr(recipe, name)]).sum()


def _alike(features: Tensor, clean: Tensor | None) -> Tensor:
    """Mean cosine with the clean image's features."""
    assert clean is not None
    return functional.cosine_similarity(features, clean, dim=1).mean()


def _divergence(wanted: Tensor | None, logits: Tensor) -> Tensor:
    """KL from the wanted answers, averaged over images and pixels."""
    assert wanted is not None
    target = wanted.log_softmax(dim=1)
    terms = target.exp() * (target - logits.log_softmax(dim=1))
    return terms.sum(dim=1).mean()


def _inconsistency(logits: Tensor, copies: int) -> Tensor:
    """Mean KL from the copies' mean answer to each copy's, plus half the entropy of that mean."""
    each = logits.log_softmax(dim=1).view(-1, copies, *logits.shape[1:])
    mean = each.exp().mean(dim=1, keepdim=True)
    log_mean = mean.clamp_min(1e-12).log()
    divergence = (mean * (log_mean - each)).sum(dim=2).mean()
    entropy: Tensor = -(mean * log_mean).sum(dim=2).mean()
    return divergence + _ENTROPY * entropy


def _dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft Dice of the foreground classes, over the batch."""
    shares = logits.softmax(dim=1).transpose(0, 1).flatten(1)[1:]
    wanted = functional.one_hot(truth, logits.shape[1]).movedim(-1, 0).flatten(1)[1:].to(shares.dtype)
    dice = (2 * (shares * wanted).sum(dim=1) + _SMOOTH) / (shares.sum(dim=1) + wanted.sum(dim=1) + _SMOOTH)
    return 1 - dice.mean()
