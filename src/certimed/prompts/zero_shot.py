"""Tuning without labels: entropy minimisation over noisy copies, per image (as published) or once on a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from certimed.engine import ModelStream, Stream, as_image, check_sigma, embed_copies, noisy_batches
from certimed.errors import InputError
from certimed.noise import DEFAULT_LAW, NoiseKey, NoiseLaw, as_law, content_id
from certimed.prompts.learner import ContextStart, Position, PromptLearner
from certimed.prompts.prompt import Prompt
from certimed.vlm.heads import PromptedClassifier
from certimed.vlm.protocol import VisionLanguageModel

PUBLISHED_COPIES = 100
PUBLISHED_LR = 5e-3
PUBLISHED_STEPS = 1


def entropy_of_mean(logits: Tensor) -> Tensor:
    """Entropy (nats) of the mean probability over copies, then averaged over images.

    ``(T, K)`` for one image, ``(N, T, K)`` for N. The mean runs over the copies *of one image* only: the mean over a
    pool of many classes is close to uniform whatever the prompt, and minimising its entropy would push every image
    towards one class.
    """
    probability = functional.softmax(logits, dim=-1).mean(dim=-2)
    entropy: Tensor = torch.special.entr(probability).sum(dim=-1)
    return entropy.mean()


@dataclass(frozen=True, eq=False)
class Tuned:
    """What one tuning found.

    Attributes:
        context: float32, shaped like the start.
        text_features: float32 ``(K, D)``, normalised.
        entropies: the loss before each step.
    """

    context: Tensor
    text_features: Tensor
    entropies: tuple[float, ...]

    def classifier(self, vlm: VisionLanguageModel) -> PromptedClassifier:
        """``x -> logits`` with this prompt."""
        return PromptedClassifier(vlm, self.text_features)


class EntropyTuner:
    """PromptSmooth's label-free step (Hussein et al., MICCAI 2024), on embeddings of noisy copies.

    Every :meth:`tune` starts from the same context with a new optimiser, so results do not depend on what was tuned
    before. The start's text features and their graph are computed once for all images, so one step costs one backward
    pass of the text encoder and one forward pass for the result.

    Args:
        learner: holds the start: words for zero-shot, a few-shot prompt's context for "both". It is not changed.
        steps, lr: of AdamW; published: 1 step at 5e-3.
    """

    def __init__(self, learner: PromptLearner, *, steps: int = PUBLISHED_STEPS, lr: float = PUBLISHED_LR) -> None:
        if steps < 1 or not lr > 0:
            raise InputError(f"steps={steps}, lr={lr}: tuning needs at least 1 step and a positive learning rate")
        self.learner = learner
        self.steps = steps
        self.lr = lr
        self._start = learner.context.detach().clone().requires_grad_()
        with torch.enable_grad():
            self._features = learner.features(self._start)

    def tune(self, embeddings: Tensor) -> Tuned:
        """Tune on the copies of one image, ``(T, D)``, or of a pool, ``(N, T, D)``; image features, not normalised.

        Where the embeddings require a gradient, so do the text features, by :func:`straight_through`.
        """
        if torch.is_grad_enabled() and embeddings.requires_grad:
            return self._tune_through(functional.normalize(embeddings.float(), dim=-1))
        images = functional.normalize(embeddings.detach().float(), dim=-1)
        context = self._start.detach().clone().requires_grad_()
        optimiser = torch.optim.AdamW([context], lr=self.lr)
        entropies = []
        with torch.enable_grad():
            for step in range(self.steps):
                leaf, features = (self._start, self._features) if step == 0 else (context, None)
                if features is None:
                    features = self.learner.features(context)
                loss, gradient = self._loss(images, features.detach())
                (context.grad,) = torch.autograd.grad(features, leaf, gradient, retain_graph=step == 0)
                optimiser.step()
                entropies.append(loss)
        with torch.no_grad():
            return Tuned(context.detach(), self.learner.features(context), tuple(entropies))

    def _tune_through(self, images: Tensor) -> Tuned:
        """The same steps, each with a gradient towards the images; costs a second backward pass through the text."""
        value = self._start.detach().clone().requires_grad_()
        optimiser = torch.optim.AdamW([value], lr=self.lr)
        context, entropies = self._start, []
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for _ in range(self.steps):
                features = self.learner.features(context)
                loss = entropy_of_mean(self.learner.vlm.logit_scale * images @ features.T)
                (gradient,) = torch.autograd.grad(loss, context, create_graph=True)
                before = value.detach().clone()
                value.grad = gradient.detach().clone()
                optimiser.step()
                update = before - value.detach()
                context = context - straight_through(update, self.lr, gradient)
                entropies.append(float(loss.detach()))
            return Tuned(context.detach(), self.learner.features(context), tuple(entropies))

    def _loss(self, images: Tensor, features: Tensor) -> tuple[float, Tensor]:
        """Entropy and its gradient with respect to the text features."""
        features.requires_grad_()
        loss = entropy_of_mean(self.learner.vlm.logit_scale * images @ features.T)
        (gradient,) = torch.autograd.grad(loss, features)
        return float(loss.detach()), gradient


def straight_through(update: Tensor, lr: float, gradient: Tensor) -> Tensor:
    """An update of AdamW with its own values, and a slope that an attack can climb.

    AdamW's rule is almost a sign: its slope is zero nearly everywhere, and a pipeline that tunes itself by it would
    look unbreakable to a gradient. Backwards it is taken for ``lr * g / (|g| + mean |g|)`` (a backward-pass
    approximation, Athalye et al., ICML 2018).

    Args:
        update: what the rule gives, without a gradient.
        lr: its learning rate.
        gradient: what it was given, on the way to which a gradient is wanted.
    """
    soft = lr * gradient / (gradient.abs() + gradient.detach().abs().mean() + 1e-8)
    return update + (soft - soft.detach())


def zero_shot(
    learner: PromptLearner,
    image: Tensor,
    sigma: float,
    *,
    seed: int = 0,
    item_id: str | None = None,
    copies: int = PUBLISHED_COPIES,
    steps: int = PUBLISHED_STEPS,
    lr: float = PUBLISHED_LR,
    batch_size: int | None = None,
    encoder: Stream | None = None,
    noise: str | NoiseLaw = DEFAULT_LAW,
) -> Tuned:
    """The published per-image prompt: tuned on noisy copies of the image to be certified.

    Scope: a certificate of ``result.classifier(vlm)`` at this image holds for **the prompt frozen at x**
    (:data:`certimed.certificates.FROZEN_AT_X`): an attacked image would be tuned to another prompt. For a statement
    about the whole pipeline use :func:`pool`, few-shot prompts, or the classifiers of :mod:`certimed.prompts.sound`.

    Args:
        learner: the start; pass ``Prompt.learner(vlm)`` of a few-shot prompt for the published "both".
        image: ``(C, H, W)`` floats in [0, 1].
        sigma: noise level of the copies, the one certified at.
        seed, item_id: key of the tuning noise (phase "tuning"), disjoint from all noise that certifies.
        copies, steps, lr: T, K and the learning rate; the defaults are the published ones.
        encoder: what embeds, e.g. with a denoiser in front; default: the learner's model.
        noise: the law of the copies, or its name: that of the run, so that its methods are tuned on the same copies.
    """
    pixels = as_image(image, learner.vlm.device)
    key = NoiseKey(seed, item_id if item_id is not None else content_id(pixels), "tuning")
    stream, size = encoder or ModelStream(learner.vlm), batch_size or _positive(copies)
    drawn = noisy_batches(pixels, as_law(noise, check_sigma(sigma)), key, _positive(copies), batch_size=size)
    with torch.no_grad():
        embedded = torch.cat([stream(batch) for batch in drawn])
    return EntropyTuner(learner, steps=steps, lr=lr).tune(embedded)


def pool(
    vlm: VisionLanguageModel,
    images: Sequence[Tensor] | Tensor,
    class_names: Sequence[str],
    *,
    sigmas: Sequence[float],
    context: ContextStart | Prompt,
    copies: int = PUBLISHED_COPIES,
    steps: int = PUBLISHED_STEPS,
    lr: float = PUBLISHED_LR,
    seed: int = 0,
    position: Position = "end",
    suffix: str = ".",
    batch_size: int | None = None,
    encoder: Stream | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prompt:
    """The same entropy step, taken once on an unlabelled pool; the prompt is then fixed.

    Scope: end-to-end, as long as the pool does not contain the images to be certified (``Prompt.check_disjoint``).
    The loss is the entropy of each image's mean probability over its own copies, averaged over images, see
    :func:`entropy_of_mean`.

    Args:
        images: N unlabelled images ``(C, H, W)`` in [0, 1].
        sigmas: noise levels; the copies of an image are shared out among them in turn, and averaged level by level.
        context: the start; a few-shot :class:`Prompt` is allowed.
        copies: noisy copies of each image, at least one per sigma.
        progress: called with (images embedded, N).
    """
    if len(images) == 0:
        raise InputError("images is empty; a pool needs at least one unlabelled image")
    levels = [check_sigma(sigma) for sigma in sigmas]
    if not levels or copies < len(levels):
        raise InputError(f"copies={copies} is too few for {len(levels)} sigmas; use at least one sigma and a copy each")
    learner = _learner(vlm, class_names, context, position, suffix, seed)
    encoder = encoder or ModelStream(vlm)
    each = copies // len(levels)
    column = torch.tensor(levels).repeat(each)
    bank, items = [], []
    for index, image in enumerate(images):
        pixels = as_image(image, vlm.device)
        items.append(content_id(pixels))
        embedded = embed_copies(encoder, pixels, column, NoiseKey(seed, items[-1], "tuning"), batch_size=batch_size)
        bank.append(embedded.view(each, len(levels), -1).transpose(0, 1))
        if progress is not None:
            progress(index + 1, len(images))
    tuned = EntropyTuner(learner, steps=steps, lr=lr).tune(torch.cat(bank))
    with torch.no_grad():
        learner.context.copy_(tuned.context)
    return Prompt.from_learner(
        learner,
        "pool",
        recipe={"optimiser": "adamw", "steps": steps, "lr": lr, "copies": copies, "images": len(items)},
        sigmas=tuple(levels),
        seed=seed,
        history=tuple({"step": step, "entropy": value} for step, value in enumerate(tuned.entropies)),
        tuned_on=tuple(items),
    )


def _learner(
    vlm: VisionLanguageModel,
    class_names: Sequence[str],
    context: ContextStart | Prompt,
    position: Position,
    suffix: str,
    seed: int,
) -> PromptLearner:
    if isinstance(context, Prompt):
        context.check(vlm, class_names)
        return context.learner(vlm)
    return PromptLearner(vlm, class_names, context, position=position, suffix=suffix, seed=seed)


def _positive(copies: int) -> int:
    if copies < 1:
        raise InputError(f"copies={copies} leaves nothing to tune on; use 1 or more")
    return copies
