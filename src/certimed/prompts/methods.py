"""The prompt methods that can be compared on one image: what each needs before counting, and its scope."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from certimed.certificates import FROZEN_AT_X
from certimed.engine import DENOISED, PLAIN, Head, Method, Stream, Subject, noisy_batches
from certimed.errors import InputError
from certimed.noise import SECOND_VIEWS, VIEW_COPIES, Float32Gaussian, NoiseKey
from certimed.prompts.learner import PromptLearner
from certimed.prompts.linear_text import LinearText
from certimed.prompts.prompt import Prompt
from certimed.prompts.sound import PerSampleClassifier, ViewSigmas, split_sigmas
from certimed.prompts.zero_shot import PUBLISHED_COPIES, PUBLISHED_LR, PUBLISHED_STEPS, EntropyTuner
from certimed.vlm.heads import PromptedClassifier, ZeroShotClassifier, cosine_logits
from certimed.vlm.protocol import VisionLanguageModel

METHOD_NAMES = ("plain", "few-shot", "zero-shot", "both", "pool", "per-sample", "split", "denoised")


@dataclass(frozen=True, eq=False)
class FixedText(Method):
    """Text features settled before the image is seen: plain, few-shot, pool, a linear probe, any class list.

    Attributes:
        recipe: what the features were made of, in plain JSON types; without it their own digest identifies them.
    """

    classifier: PromptedClassifier
    recipe: tuple[Any, ...] | None = field(default=None, kw_only=True)

    @property
    def num_classes(self) -> int:
        """See :class:`~certimed.engine.Method`."""
        return len(self.classifier.text_features)

    @property
    def settings(self) -> list[Any]:
        """See :class:`~certimed.engine.Method`."""
        return ["fixed", *(self.recipe or (_digest(self.classifier.text_features),))]

    def head(self, subject: Subject) -> Head:
        """See :class:`~certimed.engine.Method`."""
        return self.classifier.logits


@dataclass(frozen=True, eq=False)
class PerImageText(Method):
    """PromptSmooth's per-image tuning, as published: zero-shot, or "both" from a few-shot context.

    Its certificates hold for the prompt frozen at x.
    """

    tuner: EntropyTuner
    copies: int = PUBLISHED_COPIES

    @property
    def num_classes(self) -> int:
        """See :class:`~certimed.engine.Method`."""
        return len(self.tuner.learner.class_names)

    @property
    def settings(self) -> list[Any]:
        """See :class:`~certimed.engine.Method`."""
        return ["per-image", self.tuner.learner.identity, self.copies, self.tuner.steps, self.tuner.lr]

    def head(self, subject: Subject) -> Head:
        """Embeds the tuning copies (or finds them in the cache) and tunes; for an attack, with a gradient."""
        embedded = torch.cat(list(subject.stream(self.stream, "tuning", self.copies)))
        tuned, vlm = self.tuner.tune(embedded), self.tuner.learner.vlm
        if tuned.text_features.requires_grad:
            return partial(cosine_logits, text_features=tuned.text_features, logit_scale=vlm.logit_scale)
        return tuned.classifier(vlm).logits


@dataclass(frozen=True, eq=False)
class PerSample(Method):
    """Tuning inside the base classifier, on the one noisy sample it is given."""

    classifier: PerSampleClassifier

    @property
    def num_classes(self) -> int:
        """See :class:`~certimed.engine.Method`."""
        return len(self.classifier.linear.text_features)

    @property
    def settings(self) -> list[Any]:
        """See :class:`~certimed.engine.Method`."""
        return ["per-sample", self.classifier.linear.identity, self.classifier.steps, self.classifier.lr]

    def head(self, subject: Subject) -> Head:
        """See :class:`~certimed.engine.Method`."""
        return self.classifier.logits


@dataclass(frozen=True, eq=False)
class Split(PerSample):
    """Tuning on one noisy view and classifying another; costs image-encoder passes of its own.

    Attributes:
        sigmas: noise of the two views.
        copies: further noisy copies of the tuned view to tune on instead of itself; 0: the view itself. Noise added to
            a noisy view is part of the base classifier and costs no radius, only encoder passes.
        extra: noise level of those copies.
    """

    sigmas: ViewSigmas
    copies: int = 0
    extra: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "stream", f"split/{self.name}")

    @property
    def settings(self) -> list[Any]:
        """See :class:`~certimed.engine.Method`."""
        own = [*self.sigmas, self.copies, self.extra if self.copies else None]
        return ["split", *super().settings[1:], *own]

    def head(self, subject: Subject) -> Head:
        """Views are ``(B, 1 + T, D)``: the classified one first."""
        return lambda views: self.classifier.view_logits(views[:, 1:], views[:, 0])

    @property
    def views_of(self) -> tuple[float, float] | None:
        """See :class:`~certimed.engine.Method`."""
        return self.sigmas

    def views(self, subject: Subject, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """See :class:`~certimed.engine.Method`; nothing is cached, as no other method sees this noise.

        The classified view uses the phase's own stream, the tuned one the phase's second view.
        """
        encoder, size, done = subject.streams[PLAIN], subject.batch_size, start
        tuned_views, classified_views = (
            noisy_batches(
                subject.image,
                replace(subject.law, sigma=sigma),  # type: ignore[type-var]
                NoiseKey(subject.seed, subject.item, name),
                n,
                batch_size=size,
                start=start,
            )
            for sigma, name in zip(self.sigmas, (SECOND_VIEWS[phase], phase))
        )
        for tuned, classified in zip(tuned_views, classified_views, strict=True):
            copies = self._copies(subject, tuned, encoder, phase, done)
            done += len(tuned)
            yield torch.cat([encoder(classified).unsqueeze(1), copies], dim=1)

    def view(self, subject: Subject, x: Tensor) -> Tensor:
        """The same input on both sides."""
        embedded: Tensor = subject.streams[PLAIN](x.clone())
        return embedded.unsqueeze(1).expand(-1, 2, -1)

    def _copies(self, subject: Subject, tuned: Tensor, encoder: Stream, phase: str, done: int) -> Tensor:
        if not self.copies:
            embedded: Tensor = encoder(tuned)
            return embedded.unsqueeze(1)
        key = NoiseKey(subject.seed, subject.item, VIEW_COPIES[phase])
        zero = torch.zeros_like(subject.image)
        total, size = len(tuned) * self.copies, self.copies
        extra = noisy_batches(zero, Float32Gaussian(self.extra), key, total, batch_size=size, start=done * self.copies)
        return torch.stack([encoder(view + noise) for view, noise in zip(tuned, extra, strict=True)])


def prompt_methods(
    vlm: VisionLanguageModel,
    class_names: Sequence[str],
    names: Sequence[str],
    *,
    sigma: float,
    context: str | int | Tensor,
    templates: str | Sequence[str] | None = None,
    few_shot: Prompt | None = None,
    pool: Prompt | None = None,
    copies: int = PUBLISHED_COPIES,
    steps: int = PUBLISHED_STEPS,
    lr: float = PUBLISHED_LR,
    share: float = 0.5,
    split_copies: int = 0,
    sound_start: str = "context",
) -> list[Method]:
    """Build methods by name, see :data:`METHOD_NAMES`.

    Args:
        context: initial context of "plain", "zero-shot" and the sound variants: the baseline and what is learnt from it
            share one template.
        templates: for "plain" and "denoised" instead of the context, each with ``{}`` for the class name.
        few_shot: the prompt of "few-shot", and start of "both".
        pool: the prompt of "pool".
        copies, steps, lr: of the per-image tuning; steps and lr also of the sound variants.
        share, split_copies: see :class:`Split`.
        sound_start: ``"context"`` or ``"few-shot"``, where "per-sample" and "split" start.

    Raises:
        InputError: an unknown or repeated name, or a prompt that is needed and not given or made for something else.
    """
    _check_names(names, few_shot, pool, sound_start)
    learner = PromptLearner(vlm, class_names, context)
    for prompt in (few_shot, pool):
        if prompt is not None:
            prompt.check(vlm, learner.class_names)
    linear: LinearText | None = None
    if {"per-sample", "split"}.intersection(names):
        linear = LinearText(few_shot.learner(vlm) if few_shot and sound_start == "few-shot" else learner)
    made: list[Method] = []
    for name in names:
        if name in ("per-sample", "split"):
            assert linear is not None
            inner = PerSampleClassifier(vlm, linear, steps=steps, lr=lr).eval()
            made.append(
                PerSample(name, inner)
                if name == "per-sample"
                else Split(name, inner, split_sigmas(sigma, share), split_copies, sigma)
            )
        elif name in ("zero-shot", "both"):
            start = few_shot.learner(vlm) if few_shot and name == "both" else learner
            made.append(PerImageText(name, EntropyTuner(start, steps=steps, lr=lr), copies, scope=FROZEN_AT_X))
        else:
            made.append(_fixed(name, learner, templates, {"few-shot": few_shot, "pool": pool}.get(name)))
    return made


def _fixed(
    name: str, learner: PromptLearner, templates: str | Sequence[str] | None, prompt: Prompt | None
) -> FixedText:
    stream = DENOISED if name == DENOISED else PLAIN
    if prompt is not None:
        return FixedText(name, prompt.classifier(learner.vlm), stream=stream, recipe=("prompt", prompt.identity))
    if templates is not None:
        made = ZeroShotClassifier(learner.vlm, learner.class_names, templates)
        captions = [templates] if isinstance(templates, str) else list(templates)
        return FixedText(name, made, stream=stream, recipe=("templates", captions, list(learner.class_names)))
    with torch.no_grad():
        settled = PromptedClassifier(learner.vlm, learner.text_features())
        return FixedText(name, settled, stream=stream, recipe=("context", learner.identity))


def _check_names(names: Sequence[str], few_shot: Prompt | None, pool: Prompt | None, sound_start: str) -> None:
    unknown = [name for name in names if name not in METHOD_NAMES]
    if unknown or not names or len(set(names)) != len(names):
        raise InputError(f"methods {list(names)} must be distinct names out of {', '.join(METHOD_NAMES)}")
    if sound_start not in ("context", "few-shot"):
        raise InputError(f"sound_start={sound_start!r} is unknown; use context or few-shot")
    needs_few_shot = [name for name in names if name in ("few-shot", "both")]
    if sound_start == "few-shot":
        needs_few_shot += [name for name in names if name in ("per-sample", "split")]
    if needs_few_shot and few_shot is None:
        raise InputError(f"method {needs_few_shot[0]!r} needs a few-shot prompt; tune one and pass it as few_shot")
    if "pool" in names and pool is None:
        raise InputError("method 'pool' needs a prompt tuned on an unlabelled pool; make one and pass it as pool")


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
