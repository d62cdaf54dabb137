"""The published PromptSmooth loop (Hussein et al., MICCAI 2024, on Cohen et al., ICML 2019), written again.

Fixed n, float32 without mixed precision, prompts encoded anew for every batch at the text encoder's full context, one
Python step for every counted sample, tuning through the whole model. Nothing here is shared with the package but the
model's two encoders, so an error in either shows as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from certimed.vlm.protocol import Tokens, VisionLanguageModel

Draw = Callable[[int], Tensor]
"""Number of samples -> that many standard normal noise images, the next of a stream."""


class Result(NamedTuple):
    """What the published loop prints for an image: the class (None where it abstains), the radius, and the counts."""

    prediction: int | None
    radius: float
    selection: list[int]
    estimation: list[int]


class PromptedModel:
    """``[BOS] context class-name . [EOS]`` for every class, encoded at full length in every forward pass."""

    def __init__(self, vlm: VisionLanguageModel, class_names: list[str], initial_context: str) -> None:
        self.vlm = vlm
        self.context = vlm.token_embeddings(torch.tensor(vlm.content_ids(initial_context))).clone()
        self.start = self.context.clone()
        length = vlm.context_length
        self.ids = torch.full((len(class_names), length), vlm.pad_id)
        self.mask = torch.zeros((len(class_names), length), dtype=torch.bool)
        for row, name in enumerate(class_names):
            # The context's own tokens stand where its learnt values will be put.
            tokens = [vlm.bos_id, *vlm.content_ids(initial_context), *vlm.content_ids(name + "."), vlm.eos_id]
            self.ids[row, : len(tokens)] = torch.tensor(tokens)
            self.mask[row, : len(tokens)] = True

    def text_features(self) -> Tensor:
        """``(K, D)``, normalised."""
        first = self.vlm.token_embeddings(self.ids)
        learnt = self.context.expand(len(self.ids), -1, -1)
        embeddings = torch.cat([first[:, :1], learnt, first[:, 1 + learnt.shape[1] :]], dim=1)
        encoded = self.vlm.encode_text(embeddings, Tokens(self.ids, self.mask))
        features: Tensor = encoded / encoded.norm(dim=-1, keepdim=True)
        return features

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)``; the text is encoded here, every time."""
        features: Tensor = self.vlm.encode_image(images)
        features = features / features.norm(dim=-1, keepdim=True)
        return self.vlm.logit_scale * features @ self.text_features().T

    def tune(self, image: Tensor, sigma: float, copies: Tensor, *, lr: float = 5e-3, steps: int = 1) -> None:
        """Zero-shot tuning from the start: entropy of the mean probability over noisy copies, AdamW.

        Args:
            image: ``(C, H, W)``.
            copies: standard normal noise ``(T, C, H, W)``.
        """
        self.context = self.start.clone().requires_grad_()
        optimiser = torch.optim.AdamW([self.context], lr=lr)
        for _ in range(steps):
            log_probability = self(image + sigma * copies).log_softmax(dim=1)
            mean = log_probability.logsumexp(dim=0) - math.log(len(copies))
            loss = -(mean * mean.exp()).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        self.context = self.context.detach()


def certify(
    model: Callable[[Tensor], Tensor],
    classes: int,
    image: Tensor,
    sigma: float,
    noise: tuple[Draw, Draw],
    *,
    n0: int,
    n: int,
    alpha: float,
    batch_size: int,
) -> Result:
    """CERTIFY of Cohen et al.; ``noise`` gives the samples for selection and for estimation."""
    selection = count(model, classes, image, sigma, noise[0], n0, batch_size)
    top = max(range(classes), key=lambda label: selection[label])
    estimation = count(model, classes, image, sigma, noise[1], n, batch_size)
    hits = estimation[top]
    lower = float(stats.beta.ppf(alpha, hits, n - hits + 1)) if hits else 0.0
    if lower <= 0.5:
        return Result(None, 0.0, selection, estimation)
    return Result(top, sigma * float(stats.norm.ppf(lower)), selection, estimation)


def count(
    model: Callable[[Tensor], Tensor], classes: int, image: Tensor, sigma: float, draw: Draw, n: int, batch_size: int
) -> list[int]:
    """How often each class wins, one sample after the other."""
    counts = [0] * classes
    left = n
    with torch.no_grad():
        while left:
            size = min(batch_size, left)
            left -= size
            batch = image.repeat(size, *[1] * image.ndim) + sigma * draw(size)
            for label in model(batch).argmax(dim=1).tolist():
                counts[label] += 1
    return counts
