"""The models that tests share, most of them known in closed form, and where the shared material lies."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certimed.budgets import Agreement, Budget, Fixed
from certimed.certificates import (
    END_TO_END,
    MODEL_INPUT,
    Circumstances,
    ClassCertificate,
    MaskCertificate,
    Samples,
    certificate_of,
    collect_provenance,
)
from certimed.errors import ModelError
from certimed.noise import NoiseKey, as_law
from certimed.targets import Classes, Pixels
from certimed.vlm.protocol import Tokens, VisionLanguageModel

ROOT = Path(__file__).parents[1]


def shared(*parts: str) -> Path:
    """A file or folder of the shared material: beside the checkout, or where ``CERTIMED_SHARED`` says.

    The test that asks is skipped by name where it is not there.
    """
    path = Path(os.environ.get("CERTIMED_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there; set CERTIMED_SHARED to the folder of shared material")
    return path


# Classifiers and segmenters that are known in closed form.


class Linear:
    """Class 1 where w.(x - x0) > -margin * |w|: at x0 the true certified radius is ``margin``, in any dimension."""

    def __init__(self, shape: tuple[int, ...], margin: float, seed: int = 0) -> None:
        self.x0 = torch.full(shape, 0.5)
        direction = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.direction = (direction / direction.norm()).float()
        self.margin = margin

    def __call__(self, x: Tensor) -> Tensor:
        score = ((x - self.x0) * self.direction).flatten(1).sum(1) + self.margin
        return torch.stack([-score, score], dim=1)


def brightness(x: Tensor) -> Tensor:
    """Scores of "dark" and "light": the mean grey level against one half."""
    level = x.flatten(1).mean(dim=1) - 0.5
    return torch.stack([-level, level], dim=1)


def grey(level: float, shape: tuple[int, ...] = (1, 4, 4)) -> Tensor:
    """A grey square; :func:`brightness` calls it "light" with probability Phi(4 (level - 0.5) / sigma)."""
    return torch.full(shape, level)


def threshold(x: Tensor) -> Tensor:
    """A segmenter: class 1 where the value exceeds one half; one independent decision for each pixel."""
    return torch.cat([torch.zeros_like(x), x - 0.5], dim=1)


def bands(x: Tensor) -> Tensor:
    """A segmenter of three classes by the first channel's value: the nearest of 0.2, 0.5, 0.8."""
    centres = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, *[1] * (x.ndim - 2))
    return -((x[:, :1] - centres) ** 2)


class Shrink(nn.Module):
    """A crude denoiser: pulls values towards grey."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0.7 * (x - 0.5)


class Direct(nn.Module):
    """A model whose embedding is the image itself, flat: for methods whose scores are closed forms."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.identity, self.device = "direct", "d" * 64, torch.device("cpu")
        self.eval()

    def encode_image(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def noisy_copies(
    image: Tensor, sigma: float, seed: int, item: str, phase: str, n: int, *, law: str = "float32"
) -> Tensor:
    """The copies that the engine is to draw, all at once: float32 ``(n, C, *space)``."""
    from certimed.engine import noisy_batches

    return next(noisy_batches(image, as_law(law, sigma), NoiseKey(seed, item, phase), n, batch_size=n))


def counted(model: object, copies: Tensor, classes: int) -> tuple[int, ...]:
    """How often each class wins, by numpy."""
    with torch.no_grad():
        scores = model(copies)  # type: ignore[operator]
    return tuple(np.bincount(scores.numpy().argmax(axis=1), minlength=classes).tolist())


# Certificates of counts that are made up: what the engine would have written, had it counted them.

SHAPE = (3, 24, 24)


def class_certificate(
    counts: Sequence[int] = (40, 960),
    selection: Sequence[int] | None = None,
    *,
    sigma: float = 0.5,
    alpha: float = 1e-3,
    bound: str = "one-sided",
    **about: Any,
) -> ClassCertificate:
    """The certificate of a fixed number of samples, selected by ``selection`` (default: the same counts).

    ``about`` are ``noise`` and fields of the circumstances.
    """
    first = np.asarray(counts if selection is None else selection)
    array, shape = np.asarray(counts), tuple(about.get("shape", SHAPE))
    target, budget = Classes(len(array), bound), Fixed(int(array.sum()))
    law = as_law(about.pop("noise", "float32"), sigma)
    session = target.start(first, shape, budget, alpha, law)
    return _certificate(target, session, first, array, budget, int(first.sum()), alpha, law, about)


def mask_certificate(
    space: tuple[int, ...] = (6, 8),
    *,
    n: int = 100,
    num_classes: int = 3,
    tau: float = 0.75,
    correction: str = "holm",
    sigma: float = 0.25,
    alpha: float = 1e-3,
    **about: Any,
) -> MaskCertificate:
    """The certificate of a mask whose pixels agree in 70 to 100 per cent of the samples."""
    generator = np.random.default_rng(0)
    mask = torch.from_numpy(generator.integers(0, num_classes, size=space))
    agreement = generator.integers(n * 7 // 10, n + 1, size=space)
    target, law = Pixels(num_classes, (tau,), correction), as_law(about.pop("noise", "float32"), sigma)
    about = {"shape": (1, *space)} | about
    session = target.start(mask, about["shape"], Fixed(n), alpha, law)
    return _certificate(target, session, mask, Agreement(n, agreement), Fixed(n), 10, alpha, law, about)


def _certificate(
    target: Any, session: Any, selected: Any, counts: Any, budget: Budget, n0: int, alpha: float, law: Any, about: Any
) -> Any:
    provenance = collect_provenance("cpu", model="ab" * 32, intensity="8 bit, divided by 255")
    known: dict[str, Any] = {
        "item": "a.png",
        "method": "plain",
        "seed": 0,
        "shape": SHAPE,
        "space": MODEL_INPUT,
        "scope": END_TO_END,
    }
    known |= {"provenance": provenance, "placement": law.placement(torch.full(about.get("shape", SHAPE), 0.5))}
    circumstances = Circumstances(**{**known, **about})
    ((claim, share, outcome),) = target.claims(selected, counts, session.finish(counts), alpha, law)
    samples = Samples(n0, outcome.n, str(budget), outcome.looks, outcome.proved_at, outcome.stop)
    return certificate_of(claim, law=law, samples=samples, share=share, about=circumstances)


# A vision-language model of a few hundred weights: linear image encoder, one causal transformer layer for text.

CLASS_NAMES = ("adipose tissue", "mucus", "smooth muscle fibre")
WORDS = [
    "an",
    "h&e",
    "image",
    "patch",
    "of",
    "adipose",
    "tissue",
    "mucus",
    "smooth",
    "muscle",
    "fibre",
    "benign",
    "malignant",
    "a",
    "photo",
    "slide",
    "showing",
    ".",
]


class TinyVLM(VisionLanguageModel):
    """Everything the protocol asks for, in float32 on the CPU, random but reproducible."""

    def __init__(
        self,
        seed: int = 0,
        *,
        image_shape: tuple[int, int, int] = (1, 4, 4),
        embedding_dim: int = 8,
        token_dim: int = 12,
        context_length: int = 24,
        logit_scale: float = 10.0,
        projection: Tensor | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) / shape[-1] ** 0.5)

        self.name = f"tiny:{seed}"
        self.input_shape = image_shape
        self.context_length = context_length
        self.token_dim = token_dim
        self.embedding_dim = embedding_dim
        self.bos_id, self.eos_id, self.pad_id = 0, 1, 2
        self.logit_scale = logit_scale
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.vision = weight(embedding_dim, pixels) if projection is None else nn.Parameter(projection.clone())
        self.table = weight(3 + len(WORDS), token_dim)
        self.positions = weight(context_length, token_dim)
        self.attention = weight(3, token_dim, token_dim)
        self.hidden = weight(2 * token_dim, token_dim)
        self.output = weight(token_dim, 2 * token_dim)
        self.projection = weight(embedding_dim, token_dim)
        self.requires_grad_(False)
        self.eval()
        self.identity, self.identity_complete = fingerprint(self), True
        self.image_calls = 0
        self.text_calls = 0

    def preprocess(self, pixels: Tensor) -> Tensor:
        return pixels

    def encode_image(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.input_shape:
            raise ModelError(f"images of shape {tuple(x.shape[1:])} were given to a model for {self.input_shape}")
        self.image_calls += 1
        return (x - 0.5).flatten(1) @ self.vision.T

    def content_ids(self, text: str) -> list[int]:
        return [3 + WORDS.index(word) for word in re.findall(r"[a-z&]+|\.", text.lower())]

    def token_embeddings(self, ids: Tensor) -> Tensor:
        return self.table[ids]

    def encode_text(self, embeddings: Tensor, tokens: Tokens) -> Tensor:
        self.text_calls += 1
        length = embeddings.shape[1]
        x = embeddings + self.positions[:length]
        query, key, value = (x @ weight.T for weight in self.attention)
        scores = query @ key.transpose(1, 2) / self.token_dim**0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
        x = x + scores.softmax(dim=-1) @ value
        x = x + torch.tanh(x @ self.hidden.T) @ self.output.T
        return x[torch.arange(len(x)), tokens.last] @ self.projection.T


def fingerprint(module: nn.Module) -> str:
    """Hash of every tensor of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def class_images(vlm: TinyVLM, per_class: int, seed: int = 0, spread: float = 0.08) -> tuple[Tensor, Tensor]:
    """Images around one random prototype a class, values in [0, 1], and their labels."""
    prototypes = torch.rand((len(CLASS_NAMES), *vlm.input_shape), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1000 + seed)
    labels = torch.arange(len(CLASS_NAMES)).repeat_interleave(per_class)
    noise = torch.randn((len(labels), *vlm.input_shape), generator=generator) * spread
    return (prototypes[labels] + noise).clamp(0, 1), labels
