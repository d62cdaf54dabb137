"""Adapted models as methods of a comparison: fixed ones, with a stream of their own, and LoRA tuned at the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from certimed.adapters.adaptation import Adaptation
from certimed.adapters.parts import Installed, Parts
from certimed.certificates import FROZEN_AT_X
from certimed.engine import Head, Method, Scores, Subject, noisy_batches
from certimed.noise import NoiseKey
from certimed.prompts import FixedText, entropy_of_mean
from certimed.vlm import PromptedClassifier, VisionLanguageModel, cosine_logits

ADAPTED = "adapted"
TEST_TIME = "test-time-lora"


def adapted_method(name: str, learnt: Adaptation, base: Any, adapted: Any, classes: int) -> Method:
    """The method of an adapted model, on the stream :func:`stream_name` gives; its scope is end-to-end.

    Args:
        name: of the method.
        learnt: the adapter.
        base: the model it was learnt on.
        adapted: what :meth:`Adaptation.apply` makes of it.
        classes: number of classes of the run.
    """
    stream = stream_name(name)
    if not isinstance(base, VisionLanguageModel):
        return Scores(name, classes, stream=stream)
    text = PromptedClassifier(adapted, learnt.text_features(base))
    return FixedText(name, text, stream=stream, recipe=("adapter", learnt.identity))


def stream_name(name: str) -> str:
    """Stream of an adapted method: it has an encoder of its own, so it shares embedded copies with no other."""
    return f"{ADAPTED}/{name}"


@dataclass(frozen=True, eq=False)
class TestTimeLora(Method):
    """LoRA tuned on noisy copies of the very image (PromptSmooth++): entropy minimisation, then held fixed.

    The entropy of the mean answer of the copies is lowered, as zero-shot prompts do it, by steps of AdamW. Its
    certificates hold for **the adapter frozen at x**: an attacked image would be tuned to another one.

    Attributes:
        vlm: the frozen model.
        text: its text features, ``(K, D)``.
        captions: what they were made of, in plain JSON types.
        parts: what is tuned.
        copies, steps, lr: noisy copies, steps and learning rate.
    """

    __test__ = False  # no test, whatever pytest makes of the name

    vlm: VisionLanguageModel
    text: Tensor
    captions: tuple[Any, ...]
    parts: Parts = field(default_factory=Parts)
    copies: int = 100
    steps: int = 1
    lr: float = 5e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", FROZEN_AT_X)
        object.__setattr__(self, "stream", f"{TEST_TIME}/{self.name}")

    @property
    def num_classes(self) -> int:
        """See :class:`~certimed.engine.Method`."""
        return len(self.text)

    @property
    def settings(self) -> list[Any]:
        """See :class:`~certimed.engine.Method`."""
        parts = {**asdict(self.parts), "kinds": list(self.parts.kinds)}
        return [TEST_TIME, parts, self.copies, self.steps, self.lr, *self.captions]

    def head(self, subject: Subject) -> Head:
        """Tunes on the image's tuning copies; the head is the whole tuned model, from noisy copies to logits."""
        tuned = self._tuned(subject)
        return partial(_logits, tuned, text=self.text, scale=self.vlm.logit_scale, size=subject.batch_size)

    def views(self, subject: Subject, phase: str, n: int, start: int = 0) -> Iterator[Tensor]:
        """The noisy copies themselves: no other method could share what this image's encoder makes of them."""
        key = NoiseKey(subject.seed, subject.item, phase)
        yield from noisy_batches(subject.image, subject.law, key, n, batch_size=subject.batch_size, start=start)

    def view(self, subject: Subject, x: Tensor) -> Tensor:
        """See :class:`~certimed.engine.Method`."""
        return x.clone()

    def _tuned(self, subject: Subject) -> VisionLanguageModel:
        installed = Installed(self.vlm, self.parts, tuple(subject.image.shape), seed=subject.seed)
        optimiser = torch.optim.AdamW(installed.learnt.values(), lr=self.lr)
        key = NoiseKey(subject.seed, subject.item, "tuning")
        # An attack tunes at the image it has reached, and takes the result for fixed.
        image = subject.image.detach()
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(self.steps):
                copies = noisy_batches(image, subject.law, key, self.copies, batch_size=subject.batch_size)
                features = torch.cat([installed.model.encode_image(one) for one in copies])
                loss = entropy_of_mean(cosine_logits(features, self.text, self.vlm.logit_scale))
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimiser.step()
        tuned: VisionLanguageModel = installed.settle()
        return tuned


def _logits(vlm: VisionLanguageModel, x: Tensor, text: Tensor, scale: float, size: int) -> Tensor:
    return torch.cat([cosine_logits(vlm.encode_image(part), text, scale) for part in torch.split(x, size)])
