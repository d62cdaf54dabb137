"""Few-shot tuning: cross-entropy on noisy copies of a few labelled images per class, all noise levels in one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from certimed.engine import ModelStream, Stream, as_image, check_sigma, embed_copies
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, content_id
from certimed.prompts.learner import ContextStart, Position, PromptLearner
from certimed.prompts.prompt import Prompt
from certimed.prompts.shots import refuse_overlap
from certimed.vlm.protocol import VisionLanguageModel

HELD_OUT_COPIES = 4


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a few-shot tuning besides data, context and seed.

    The vision encoder is frozen, so noisy copies are embedded first and the tuning runs on embeddings.

    Attributes:
        name: for the record.
        optimiser: ``"sgd"`` (momentum 0.9, weight decay 5e-4, as CoOp's) or ``"adamw"``.
        lr: peak learning rate; cosine decay over the epochs.
        lr_in_spreads: whether ``lr`` is in units of the standard deviation of the model's token embeddings, which
            differs widely between models (CLIP's is about 0.013).
        warmup_lr: constant rate of the first epoch, or None.
        copies: noisy copies of each image and sigma, all visited in every epoch; None: one fresh copy of each image
            an epoch, at a sigma drawn at random.
        batches: steps an epoch; the order is drawn anew in each. None: batches of ``batch_size``.
        batch_size: copies a step, where ``batches`` is None.
        label_smoothing: of the cross-entropy.
    """

    name: str
    optimiser: str
    lr: float
    lr_in_spreads: bool = False
    warmup_lr: float | None = None
    copies: int | None = None
    batches: int | None = None
    batch_size: int = 32
    label_smoothing: float = 0.0


RECIPES = {
    "published": Recipe("published", "sgd", lr=0.002, warmup_lr=1e-5),
    "default": Recipe("default", "adamw", lr=0.1, lr_in_spreads=True, copies=10, batches=4),
}
"""``published``: CoOp's settings, on which PromptSmooth builds (its own trainer was not released). ``default``: many
cached copies of each image in few large steps of AdamW, so the gradient carries little noise of its own."""


@dataclass(frozen=True)
class TuningProgress:
    """State of a tuning, handed to ``progress``.

    Attributes:
        stage: ``"embedding"`` (done and total count images) or ``"tuning"`` (epochs).
        loss, accuracy: of the epoch on the noisy tuning copies; None while embedding.
        held_out: noisy accuracy on the held-back part by sigma; empty without one.
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    accuracy: float | None = None
    held_out: dict[float, float] | None = None


Report = Callable[[TuningProgress], None]


def few_shot(
    vlm: VisionLanguageModel,
    images: Sequence[Tensor] | Tensor,
    labels: Sequence[int] | Tensor,
    class_names: Sequence[str],
    *,
    shots: int | None = None,
    epochs: int = 50,
    sigmas: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 1.0),
    recipe: str | Recipe = "default",
    context: ContextStart = 5,
    per_class: bool = False,
    position: Position = "end",
    suffix: str = ".",
    seed: int = 0,
    held_out: tuple[Sequence[Tensor] | Tensor, Sequence[int] | Tensor] | None = None,
    early_stop: int | None = None,
    batch_size: int | None = None,
    encoder: Stream | None = None,
    progress: Report | None = None,
) -> Prompt:
    """Learn a context from labelled images under noise (PromptSmooth few-shot, Hussein et al., MICCAI 2024).

    The prompt is fixed before any test image is seen, so certificates made with it are end-to-end. The same arguments
    give the same prompt on the same machine.

    Args:
        vlm: a frozen vision-language model.
        images: the N tuning images ``(C, H, W)`` in [0, 1], in the certified space, drawn with
            :func:`certimed.data.few_shot_indices`.
        labels: N class indices.
        class_names: K names.
        shots: images per class, for the record; where given, the labels must have exactly that many of every class.
        epochs: passes over the tuning images.
        sigmas: noise levels mixed in one run; 0 is the clean image.
        recipe: a name in :data:`RECIPES` or a :class:`Recipe`.
        context, per_class, position, suffix: see :class:`PromptLearner`; by default 5 random tokens.
        seed: of noise, order and random context.
        held_out: images and labels held back; their noisy accuracy is reported every epoch.
        early_stop: end after this many epochs without a better mean held-out accuracy, and keep the best context.
        batch_size: copies an image-encoder pass.
        encoder: what embeds, e.g. with a denoiser in front; default: the model.
        progress: called with a :class:`TuningProgress` after each image and each epoch.

    Raises:
        InputError: an impossible argument, or tuning and held-out images that overlap.
        ModelError: the loss is not finite.
    """
    settings = _recipe(recipe)
    levels = _check(epochs, sigmas, early_stop, held_out is not None)
    learner = PromptLearner(vlm, class_names, context, per_class=per_class, position=position, suffix=suffix, seed=seed)
    truth = _labels(labels, len(images), learner.class_names, shots)
    encoder = encoder or ModelStream(vlm)
    generator = torch.Generator().manual_seed(seed)
    columns = _columns(settings, levels, len(images), epochs, generator)
    bank, items = _embed(encoder, vlm.device, images, columns, seed, batch_size, progress)
    checks = None
    if held_out is not None:
        checks = _embed_held_out(encoder, vlm.device, held_out, learner.class_names, levels, seed, batch_size, items)
    run = _Run(learner, settings, bank, truth, epochs, generator, checks, levels)
    history = run.fit(early_stop, progress)
    return Prompt.from_learner(
        learner,
        "few-shot",
        recipe={**asdict(settings), "epochs": epochs, "initial_context": _describe(context), "early_stop": early_stop},
        sigmas=tuple(levels),
        seed=seed,
        shots=shots,
        accuracies=run.accuracies(columns),
        history=tuple(history),
        tuned_on=tuple(items),
    )


@dataclass
class _HeldOut:
    embeddings: Tensor  # (N, copies * sigmas, D), normalised
    labels: Tensor


class _Run:
    """One optimisation: the cached embeddings and the learner."""

    def __init__(
        self,
        learner: PromptLearner,
        recipe: Recipe,
        bank: Tensor,
        labels: Tensor,
        epochs: int,
        generator: torch.Generator,
        held_out: _HeldOut | None,
        sigmas: list[float],
    ) -> None:
        self.learner = learner
        self.recipe = recipe
        self.bank = functional.normalize(bank, dim=-1)
        self.labels = labels.to(bank.device)
        self.epochs = epochs
        self.generator = generator
        self.held_out = held_out
        self.sigmas = sigmas
        self.peak_rate = recipe.lr * (learner.spread if recipe.lr_in_spreads else 1.0)
        self.optimiser = _optimiser(recipe, learner)

    def fit(self, patience: int | None, progress: Report | None) -> list[dict[str, Any]]:
        """All epochs; leaves the learner at the last context, or at the best where ``patience`` is given."""
        history: list[dict[str, Any]] = []
        best, best_epoch, kept = -1.0, 0, self.learner.context.detach().clone()
        for epoch in range(self.epochs):
            loss, accuracy = self._epoch(epoch)
            held_out = self._held_out_accuracy()
            history.append({"epoch": epoch, "loss": loss, "accuracy": accuracy})
            if held_out is not None:
                history[-1]["held_out"] = {f"{sigma:g}": value for sigma, value in held_out.items()}
            if progress is not None:
                progress(TuningProgress("tuning", epoch + 1, self.epochs, loss, accuracy, held_out))
            if patience is None or held_out is None:
                continue
            mean = sum(held_out.values()) / len(held_out)
            if mean > best:
                best, best_epoch, kept = mean, epoch, self.learner.context.detach().clone()
            elif epoch - best_epoch >= patience:
                break
        if patience is not None:
            with torch.no_grad():
                self.learner.context.copy_(kept)
        return history

    def accuracies(self, columns: Tensor) -> dict[str, dict[str, float]]:
        """Noisy accuracy by part and sigma with the final context."""
        with torch.no_grad():
            hits = (self._scores(self.bank) == self.labels[:, None]).cpu()
        found = {
            f"{sigma:g}": float(hits[columns == torch.tensor(sigma)].float().mean())
            for sigma in self.sigmas
            if bool((columns == torch.tensor(sigma)).any())
        }
        result = {"tuning": found}
        held_out = self._held_out_accuracy()
        if held_out is not None:
            result["held_out"] = {f"{sigma:g}": value for sigma, value in held_out.items()}
        return result

    def _epoch(self, epoch: int) -> tuple[float, float]:
        rows, labels = self._rows(epoch)
        order = torch.randperm(len(rows), generator=self.generator).to(rows.device)
        parts = order.tensor_split(min(self.recipe.batches, len(rows))) if self.recipe.batches else None
        total, hits = 0.0, 0
        for step, part in enumerate(parts if parts is not None else torch.split(order, self.recipe.batch_size)):
            self._set_rate(epoch, step, len(parts) if parts is not None else None)
            logits = self.learner.vlm.logit_scale * rows[part] @ self.learner.text_features().T
            loss = functional.cross_entropy(logits, labels[part], label_smoothing=self.recipe.label_smoothing)
            if not bool(torch.isfinite(loss)):
                raise ModelError(f"the tuning loss is {float(loss)} in epoch {epoch}; use a smaller learning rate")
            (self.learner.context.grad,) = torch.autograd.grad(loss, self.learner.context)
            self.optimiser.step()
            total += float(loss.detach()) * len(part)
            hits += int((logits.argmax(dim=1) == labels[part]).sum())
        return total / len(rows), hits / len(rows)

    def _rows(self, epoch: int) -> tuple[Tensor, Tensor]:
        if self.recipe.copies is None:
            return self.bank[:, epoch], self.labels
        return self.bank.flatten(0, 1), self.labels.repeat_interleave(self.bank.shape[1])

    def _set_rate(self, epoch: int, step: int, steps: int | None) -> None:
        # CoOp's schedule changes once an epoch; with few large steps an epoch it is followed step by step.
        position = epoch + (step / steps if steps else 0.0)
        rate = self.peak_rate * 0.5 * (1 + math.cos(math.pi * position / self.epochs))
        if epoch == 0 and self.recipe.warmup_lr is not None:
            rate = self.recipe.warmup_lr
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _scores(self, embeddings: Tensor) -> Tensor:
        return (embeddings @ self.learner.text_features().T).argmax(dim=-1)

    def _held_out_accuracy(self) -> dict[float, float] | None:
        if self.held_out is None:
            return None
        with torch.no_grad():
            hits = self._scores(self.held_out.embeddings) == self.held_out.labels[:, None]
        by_sigma = hits.view(len(hits), -1, len(self.sigmas)).float().mean(dim=(0, 1))
        return dict(zip(self.sigmas, by_sigma.tolist()))


def _optimiser(recipe: Recipe, learner: PromptLearner) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD([learner.context], lr=recipe.lr, momentum=0.9, weight_decay=5e-4)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW([learner.context], lr=recipe.lr)
    raise InputError(f"optimiser={recipe.optimiser!r} is unknown; use sgd or adamw")


def _columns(recipe: Recipe, sigmas: list[float], images: int, epochs: int, generator: torch.Generator) -> Tensor:
    """Noise level of every copy: float32 ``(N, copies)``."""
    levels = torch.tensor(sigmas)
    if recipe.copies is not None:
        return levels.repeat(recipe.copies).expand(images, -1)
    return levels[torch.randint(len(sigmas), (images, epochs), generator=generator)]


def _embed(
    encoder: Stream,
    device: torch.device,
    images: Sequence[Tensor] | Tensor,
    columns: Tensor,
    seed: int,
    batch_size: int | None,
    progress: Report | None,
) -> tuple[Tensor, list[str]]:
    bank, items = [], []
    for index, image in enumerate(images):
        pixels = as_image(image, device)
        items.append(content_id(pixels))
        key = NoiseKey(seed, items[-1], "tuning")
        bank.append(embed_copies(encoder, pixels, columns[index], key, batch_size=batch_size))
        if progress is not None:
            progress(TuningProgress("embedding", index + 1, len(images)))
    return torch.stack(bank), items


def _embed_held_out(
    encoder: Stream,
    device: torch.device,
    held_out: tuple[Sequence[Tensor] | Tensor, Sequence[int] | Tensor],
    class_names: tuple[str, ...],
    sigmas: list[float],
    seed: int,
    batch_size: int | None,
    tuning: list[str],
) -> _HeldOut:
    images, labels = held_out
    truth = _labels(labels, len(images), class_names, None)
    columns = torch.tensor(sigmas).repeat(HELD_OUT_COPIES).expand(len(images), -1)
    bank, items = _embed(encoder, device, images, columns, seed, batch_size, None)
    refuse_overlap(tuning, items)
    return _HeldOut(functional.normalize(bank, dim=-1), truth.to(bank.device))


def _recipe(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"recipe={recipe!r} is unknown; use one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _check(epochs: int, sigmas: Sequence[float], early_stop: int | None, held_out: bool) -> list[float]:
    if epochs < 1:
        raise InputError(f"epochs={epochs} is not positive; use 1 or more")
    if early_stop is not None and (early_stop < 1 or not held_out):
        raise InputError(f"early_stop={early_stop} needs held_out images and at least 1 epoch of patience")
    levels = [0.0 if sigma == 0 else check_sigma(sigma) for sigma in sigmas]
    if not levels or len(set(levels)) != len(levels):
        raise InputError(f"sigmas={list(sigmas)} must be distinct noise levels, at least one of them")
    return levels


def _labels(labels: Sequence[int] | Tensor, count: int, class_names: tuple[str, ...], shots: int | None) -> Tensor:
    values = torch.as_tensor(labels)
    if values.is_floating_point() or values.shape != (count,) or count == 0:
        raise InputError(f"labels must be {count} whole numbers, one for each image; got shape {tuple(values.shape)}")
    values = values.long().cpu()
    if int(values.min()) < 0 or int(values.max()) >= len(class_names):
        raise InputError(
            f"labels must lie in 0..{len(class_names) - 1}; found {int(values.min())}..{int(values.max())}"
        )
    found = torch.bincount(values, minlength=len(class_names))
    if shots is not None and not bool((found == shots).all()):
        raise InputError(
            f"shots={shots} but the images per class are {found.tolist()}; use certimed.data.few_shot_indices"
        )
    return values


def _describe(context: ContextStart) -> str | int:
    return "given values" if isinstance(context, Tensor) else context
