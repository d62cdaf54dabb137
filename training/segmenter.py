"""Train a segmentation network on clean images: geometry and contrast are varied, noise is never added."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

SMP_UNET = {"encoder_name": "resnet18", "encoder_weights": None, "decoder_channels": (128, 64, 48, 32, 16)}


@dataclass(frozen=True)
class SegmenterTraining:
    """Settings of a training.

    Attributes:
        flip: left and right are exchanged at random.
        colour: the channels' gains vary on their own, by up to ``tint``.
        blur: images are softened at random, which is not noise (see the model card).
        turn, zoom: largest rotation in degrees and largest relative change of scale.
    """

    steps: int = 600
    batch: int = 16
    learning_rate: float = 2e-3
    flip: bool = True
    colour: bool = False
    blur: bool = True
    turn: float = 12.0
    zoom: float = 0.15
    tint: float = 0.1
    seed: int = 0


def smp_unet(channels: int, classes: int) -> nn.Module:
    """segmentation_models_pytorch's U-Net with a ResNet-18 encoder, from scratch."""
    import segmentation_models_pytorch as smp

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = smp.Unet(in_channels=channels, classes=classes, **SMP_UNET)
    return model


def train_segmenter(
    model: nn.Module,
    images: NDArray[np.uint8],
    masks: NDArray[np.int64],
    out: Path,
    config: SegmenterTraining,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``model`` on images ``(N, C, H, W)`` and masks ``(N, H, W)``; write ``out/model.safetensors`` and config.

    Every step draws from (seed, step), so a resumed training equals an uninterrupted one.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    start = _resume(checkpoint, model, optimiser)
    model.train()
    pixels, truth = torch.from_numpy(images), torch.from_numpy(masks)
    for step in range(start, config.steps):
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        index = torch.randint(len(pixels), (config.batch,), generator=rng)
        x, y = augment(pixels[index].float() / 255, truth[index], config, rng)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(step, config.steps)
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x)
        loss = segmentation_loss(scores.float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            _save(checkpoint, model, optimiser, step + 1)
            if progress is not None:
                progress(step + 1, float(loss.detach()))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, out / "model.safetensors")
    (out / "training.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


def rate(step: int, steps: int) -> float:
    """Warm-up over a twentieth of the steps, then a cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, steps // 20))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def segmentation_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean soft Dice over the classes."""
    probability = scores.softmax(dim=1)
    wanted = F.one_hot(truth, scores.shape[1]).permute(0, 3, 1, 2).float()
    overlap = (probability * wanted).sum(dim=(0, 2, 3))
    size = (probability + wanted).sum(dim=(0, 2, 3))
    dice = (2 * overlap + 1) / (size + 1)
    return F.cross_entropy(scores, truth) + 1 - dice.mean()


def augment(images: Tensor, masks: Tensor, config: SegmenterTraining, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, turn, scale and shift image and mask; vary the image's contrast, brightness, colour and sharpness."""
    n = len(images)
    draw = torch.rand(n, 8, generator=rng) * 2 - 1
    angle, scale = draw[:, 0] * math.radians(config.turn), 1 + config.zoom * draw[:, 1]
    sign = torch.where(draw[:, 2] < 0, -1.0, 1.0) if config.flip else torch.ones(n)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = sign * torch.cos(angle) / scale, torch.cos(angle) / scale
    matrix[:, 0, 1], matrix[:, 1, 0] = -torch.sin(angle) / scale, sign * torch.sin(angle) / scale
    matrix[:, :, 2] = 0.12 * draw[:, 3:5]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    if config.blur:
        images = _soften(images, rng)
    gamma = torch.exp(0.35 * draw[:, 5]).view(-1, 1, 1, 1)
    gain = (1 + 0.2 * draw[:, 6]).view(-1, 1, 1, 1)
    shift = (0.08 * draw[:, 7]).view(-1, 1, 1, 1)
    if config.colour:
        gain = gain * (1 + config.tint * (torch.rand(n, images.shape[1], 1, 1, generator=rng) * 2 - 1))
    return (images.clamp(0, 1) ** gamma * gain + shift).clamp(0, 1), masks[:, 0].round().long()


def _soften(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blur two images in three: each is mixed with its own Gaussian blur of a width drawn for the batch."""
    width = 0.7 + 2.3 * float(torch.rand(1, generator=rng))
    offsets = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    blurred = F.pad(images, (6, 6, 6, 6), mode="reflect")
    blurred = F.conv2d(blurred, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
    blurred = F.conv2d(blurred, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
    share = (torch.rand(len(images), 1, 1, 1, generator=rng) * 1.5 - 0.5).clamp(0, 1)
    return images + share * (blurred - images)


def _resume(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    return int(content["step"])


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, partial)
    os.replace(partial, path)
