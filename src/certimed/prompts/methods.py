"""The prompt methods that can be compared on one image: what each needs before counting, and its scope."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from certimed.certificates import END_TO_END, PROMPT_FROZEN
from certimed.embeddings import EmbeddingCache, ImageEncoder
from certimed.errors import InputError
from certimed.noise import NoiseKey
from certimed.prompts.learner import PromptLearner
from certimed.prompts.linear_text import LinearText
from certimed.prompts.prompt import Prompt
from certimed.prompts.sound import PerSampleClassifier, split_note, split_sigmas, view_batches
from certimed.prompts.zero_shot import PUBLISHED_COPIES, PUBLISHED_LR, PUBLISHED_STEPS, EntropyTuner
from certimed.sampling import noisy_batches
from certimed.vlm.heads import PromptedClassifier, ZeroShotClassifier
from certimed.vlm.protocol import VisionLanguageModel

Head = Callable[[Tensor], Tensor]
"""Embedded views of one stream, ``(B, ...)`` -> logits ``(B, K)``."""

METHOD_NAMES = ("none", "few-shot", "zero-shot", "both", "pool", "per-sample", "split", "denoised")

# Extra copies of a split's first view live on the tuning stream, beyond any tuning sample; the phases never meet.
_EXTRA_START = {"selection": 1 << 32, "estimation": (1 << 32) + (1 << 31)}


@dataclass(frozen=True, eq=False)
class Subject:
    """One image under certification, and what its methods share.

    Attributes:
        image: float32 ``(C, H, W)`` in the certified space.
        item, seed: key of the noise.
        sigma: certification noise level.
        batch_size: copies a forward pass, or None.
        cache: where embeddings are kept.
        encoders: by stream name, ``"plain"`` and, with a denoiser, ``"denoised"``.
        keep: whether embeddings outlive this certificate; tuning copies are always kept, as two methods may want them.
    """

    image: Tensor
    item: str
    seed: int
    sigma: float
    batch_size: int | None
    cache: EmbeddingCache
    encoders: dict[str, ImageEncoder]
    keep: bool = True

    def stream(self, name: str, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """Embeddings ``(b, D)`` of the noisy copies ``start .. start + n - 1``."""
        key = NoiseKey(self.seed, self.item, phase)
        keep = self.keep or phase == "tuning"
        return self.cache.batches(
            self.encoders[name], self.image, self.sigma, key, n, batch_size=self.batch_size, start=start, keep=keep
        )


@dataclass(frozen=True, eq=False)
class Method(ABC):
    """A way to get text features for an image; subclasses differ in when and on what they tune.

    Attributes:
        name: unique in a comparison.
        scope: what a certificate made with it covers.
        notes: sentences its certificates carry.
        stream: methods with the same stream share embeddings: ``"plain"``, ``"denoised"``, or the method's own.
    """

    name: str
    scope: str = field(default=END_TO_END, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    stream: str = field(default="plain", kw_only=True)

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K."""

    @property
    @abstractmethod
    def settings(self) -> list[Any]:
        """Plain JSON types that tell this method from every other one, for the certificate's model identity."""

    @abstractmethod
    def head(self, subject: Subject) -> Head:
        """What classifies embeddings of this image; tuning on the image happens here, before any counting."""

    def views(self, subject: Subject, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """Embedded noisy views ``start .. start + n - 1``, in batches."""
        return subject.stream(self.stream, phase, n, start)

    def embed(self, encoders: Mapping[str, ImageEncoder], x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` as embedded views, whatever noise they have being all there is."""
        embedded: Tensor = encoders[self.stream](x)
        return embedded

    def clean_view(self, subject: Subject) -> Tensor:
        """The image without noise, as a batch of one embedded view."""
        with torch.no_grad():
            return self.embed(subject.encoders, subject.image.unsqueeze(0).clone())

    def encoder(self, subject: Subject) -> ImageEncoder:
        """What embeds this method's views."""
        return subject.encoders.get(self.stream, subject.encoders["plain"])

    def model_id(self, encoders: Mapping[str, ImageEncoder]) -> str:
        """Hex SHA-256 over encoder (of a comparison's, by stream) and method: over what makes them, not over results.

        Text features are results: another number of threads may round them differently, and be the same model.
        """
        encoder = encoders.get(self.stream, encoders["plain"])
        return hashlib.sha256(json.dumps([encoder.identity, *self.settings]).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class FixedText(Method):
    """Text features settled before the image is seen: none, few-shot, pool, a linear probe, any class list.

    Attributes:
        recipe: what the features were made of, in plain JSON types; without it their own digest identifies them.
    """

    classifier: PromptedClassifier
    recipe: tuple[Any, ...] | None = field(default=None, kw_only=True)

    @property
    def num_classes(self) -> int:
        """See :class:`Method`."""
        return len(self.classifier.text_features)

    @property
    def settings(self) -> list[Any]:
        """See :class:`Method`."""
        return ["fixed", *(self.recipe or (_digest(self.classifier.text_features),))]

    def head(self, subject: Subject) -> Head:
        """See :class:`Method`."""
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
        """See :class:`Method`."""
        return len(self.tuner.learner.class_names)

    @property
    def settings(self) -> list[Any]:
        """See :class:`Method`."""
        return ["per-image", self.tuner.learner.identity, self.copies, self.tuner.steps, self.tuner.lr]

    def head(self, subject: Subject) -> Head:
        """Embeds the tuning copies (or finds them in the cache) and tunes."""
        embedded = torch.cat(list(subject.stream(self.stream, "tuning", self.copies)))
        return self.tuner.tune(embedded).classifier(self.tuner.learner.vlm).logits


@dataclass(frozen=True, eq=False)
class PerSample(Method):
    """Tuning inside the base classifier, on the one noisy sample it is given."""

    classifier: PerSampleClassifier

    @property
    def num_classes(self) -> int:
        """See :class:`Method`."""
        return len(self.classifier.linear.text_features)

    @property
    def settings(self) -> list[Any]:
        """See :class:`Method`."""
        return ["per-sample", self.classifier.linear.identity, self.classifier.steps, self.classifier.lr]

    def head(self, subject: Subject) -> Head:
        """See :class:`Method`."""
        return self.classifier.logits


@dataclass(frozen=True, eq=False)
class Split(PerSample):
    """Tuning on one noisy view and classifying another; costs image-encoder passes of its own.

    Attributes:
        share: of the information that goes to the tuned view.
        copies: further noisy copies of the tuned view to tune on instead of itself; 0: the view itself. Noise added to
            a noisy view is part of the base classifier and costs no radius, only encoder passes.
        extra: noise level of those copies.
    """

    share: float = 0.5
    copies: int = 0
    extra: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "stream", f"split/{self.name}")

    @property
    def settings(self) -> list[Any]:
        """See :class:`Method`."""
        return ["split", *super().settings[1:], self.share, self.copies, self.extra if self.copies else None]

    def head(self, subject: Subject) -> Head:
        """Views are ``(B, 1 + T, D)``: the classified one first."""
        return lambda views: self.classifier.view_logits(views[:, 1:], views[:, 0])

    def views(self, subject: Subject, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """See :class:`Method`; nothing is cached, as no other method sees this noise."""
        encoder, size = subject.encoders["plain"], subject.batch_size
        sigmas = split_sigmas(subject.sigma, self.share)
        done = start
        with torch.no_grad():
            for tuned, classified in view_batches(
                subject.image, sigmas, subject.seed, subject.item, phase, n, batch_size=size, start=start
            ):
                copies = self._copies(subject, tuned, encoder, phase, done)
                done += len(tuned)
                yield torch.cat([encoder(classified).unsqueeze(1), copies], dim=1)

    def embed(self, encoders: Mapping[str, ImageEncoder], x: Tensor) -> Tensor:
        """The same image on both sides."""
        embedded: Tensor = encoders["plain"](x)
        return embedded.unsqueeze(1).expand(-1, 2, -1)

    def _copies(self, subject: Subject, tuned: Tensor, encoder: ImageEncoder, phase: str, done: int) -> Tensor:
        if not self.copies:
            embedded: Tensor = encoder(tuned)
            return embedded.unsqueeze(1)
        key = NoiseKey(subject.seed, subject.item, "tuning")
        start = _EXTRA_START[phase] + done * self.copies
        zero = torch.zeros_like(subject.image)
        total = len(tuned) * self.copies
        extra = noisy_batches(zero, self.extra, key, total, batch_size=self.copies, start=start)
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
        context: initial context of "none", "zero-shot" and the sound variants: the baseline and what is learnt from it
            share one template.
        templates: for "none" and "denoised" instead of the context, each with ``{}`` for the class name.
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
            note = (split_note(split_sigmas(sigma, share)),)
            made.append(
                PerSample(name, inner)
                if name == "per-sample"
                else Split(name, inner, share, split_copies, sigma, notes=note)
            )
        elif name in ("zero-shot", "both"):
            start = few_shot.learner(vlm) if few_shot and name == "both" else learner
            made.append(PerImageText(name, EntropyTuner(start, steps=steps, lr=lr), copies, scope=PROMPT_FROZEN))
        else:
            made.append(_fixed(name, learner, templates, {"few-shot": few_shot, "pool": pool}.get(name)))
    return made


def _fixed(
    name: str, learner: PromptLearner, templates: str | Sequence[str] | None, prompt: Prompt | None
) -> FixedText:
    stream = "denoised" if name == "denoised" else "plain"
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
