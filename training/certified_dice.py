"""Guaranteed Dice of a segmentation network, for choosing models while training: one function, no files.

SegCertify (Fischer et al., ICML 2021): the class of each pixel is chosen on ``n0`` noisy copies, its agreement counted
on ``n`` fresh ones, and Holm's threshold decides which pixels are certified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certimed.denoising import Compose
from certimed.statistics import holm_threshold

N0, N, TAU, ALPHA = 10, 100, 0.75, 1e-3


@dataclass(frozen=True)
class CertifiedDice:
    """Means over images of the mean over foreground classes.

    ``clean`` is the network alone on clean images, ``noisy`` the model (denoiser included) on single noisy ones.
    """

    clean: float
    noisy: float
    guaranteed: float
    published: float
    abstained: float


def certified_dice(
    model: nn.Module, images: Tensor, masks: NDArray[np.int64], sigma: float, classes: int, seed: int = 0
) -> CertifiedDice:
    """Certify images ``(N, C, H, W)`` in [0, 1] with masks ``(N, H, W)``; Dice as in Laousy et al. and guaranteed."""
    rows = []
    network = model.model if isinstance(model, Compose) else model
    with torch.inference_mode():
        for number, (image, truth) in enumerate(zip(images, masks)):
            rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
            chosen = _votes(model, image, sigma, N0, classes, rng).argmax(axis=0)
            votes = _votes(model, image, sigma, N, classes, rng)
            agreement = np.take_along_axis(votes, chosen[None], axis=0)[0]
            threshold = holm_threshold(np.bincount(agreement.ravel(), minlength=N + 1), N, TAU, ALPHA)
            certified = agreement >= threshold if threshold is not None else np.zeros_like(truth, dtype=bool)
            clean = network(image[None]).argmax(dim=1)[0].numpy()
            noise = torch.randn(image.shape, generator=rng)
            noisy = model((image + sigma * noise)[None]).argmax(dim=1)[0].numpy()
            everywhere = np.ones_like(certified)
            rows.append(
                [
                    _dice(clean, everywhere, truth, classes)[0],
                    _dice(noisy, everywhere, truth, classes)[0],
                    *_dice(chosen, certified, truth, classes),
                    float(1 - certified.mean()),
                ]
            )
    return CertifiedDice(*(float(value) for value in np.mean(rows, axis=0)))


def _votes(
    model: nn.Module, image: Tensor, sigma: float, n: int, classes: int, rng: torch.Generator
) -> NDArray[np.int64]:
    counts = torch.zeros(classes, *image.shape[1:], dtype=torch.int64)
    for start in range(0, n, 25):
        size = min(25, n - start)
        noisy = image + sigma * torch.randn(size, *image.shape, generator=rng)
        predicted = model(noisy).argmax(dim=1)
        for label in range(classes):
            counts[label] += (predicted == label).sum(dim=0)
    return counts.numpy()


def _dice(
    predicted: NDArray[np.int64], certified: NDArray[np.bool_], truth: NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Guaranteed and published Dice, mean over the foreground classes; a class absent everywhere scores 1."""
    guaranteed, published = [], []
    for label in range(1, classes):
        here, wanted = (predicted == label) & certified, truth == label
        hits, named, true = (here & wanted).sum(), here.sum(), wanted.sum()
        risk = (~certified & ~wanted).sum()
        guaranteed.append(2 * hits / (true + named + risk) if true + named + risk else 1.0)
        published.append(2 * hits / (true + named) if true + named else 1.0)
    return float(np.mean(guaranteed)), float(np.mean(published))
