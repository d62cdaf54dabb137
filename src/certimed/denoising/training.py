"""Train a small denoising diffusion model on a person's own images, in the layout diffusers reads.

An ImageNet diffusion model is out of domain for X-rays or MRI, and large: the denoiser, not the segmenter, is what a
certificate costs. Only the timesteps up to the largest certified sigma are ever used for one-step denoising (Carlini et
al., ICLR 2023), so only those are trained.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from certimed.denoising.loading import SIDECAR_NAME, load_denoiser
from certimed.denoising.one_step import PREDICTION_TYPES
from certimed.denoising.schedule import NoiseSchedule
from certimed.errors import InputError, require
from certimed.models.device import checked_device
from certimed.models.weights import read_content

CHECKPOINT_NAME = "checkpoint.pt"
AUGMENTATIONS = ("none", "flip", "jitter", "affine")
_SHEET_IMAGES = 5


@dataclass(frozen=True)
class DenoiserTraining:
    """Everything that decides the result of a training, and nothing else: the same values give the same weights.

    Attributes:
        widths: channels of each level of the U-Net; every level after the first halves the side.
        patch: side of the pixel blocks folded into channels before the U-Net (1: none). 4 makes a small model about
            four times as fast at the same noise level, at the price of some sharpness.
        layers: residual blocks a level.
        prediction_type: what the network answers: ``"sample"`` (the clean image), ``"epsilon"`` (the noise) or
            ``"v_prediction"`` (Salimans & Ho, ICLR 2022). The clean image is the default: a small network with folded
            pixels cannot reproduce the noise it would have to subtract, and leaves grain (Li & He, arXiv 2511.13720).
        max_sigma: largest noise level trained, in [0, 1] image units.
        steps, batch, learning_rate, warmup: AdamW with a linear warm-up, then a cosine to zero.
        ema: decay of the weight average that is saved.
        augment: ``"none"``, ``"flip"`` (left-right), ``"jitter"`` (small shifts, turns and scalings) or ``"affine"``
            (both). Leave the flip out where left and right mean something, as in a chest X-ray.
        bfloat16: run the network in autocast bfloat16 (the noise and the loss stay float32).
        seed: of the initial weights, the batches, the noise and the augmentation.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    patch: int = 4
    layers: int = 1
    prediction_type: str = "sample"
    max_sigma: float = 1.0
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    ema: float = 0.995
    augment: str = "flip"
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise InputError(f"prediction_type={self.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"augment={self.augment!r} is not one of {', '.join(AUGMENTATIONS)}")
        if not self.widths or any(width % 8 for width in self.widths):
            raise InputError(f"widths={self.widths} must be multiples of 8 (the groups of the normalisation)")
        if min(self.patch, self.layers, self.steps, self.batch) < 1:
            raise InputError("patch, layers, steps and batch must be at least 1")

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this."""
        return int(self.patch * 2 ** (len(self.widths) - 1))


def build_unet(config: DenoiserTraining, channels: int, size: tuple[int, int]) -> nn.Module:
    """The untrained diffusers ``UNet2DModel`` of ``config``, with weights drawn from its seed."""
    diffusers = require("diffusers", "denoise")
    folded = channels * config.patch**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet: nn.Module = diffusers.UNet2DModel(
            sample_size=(size[0] // config.patch, size[1] // config.patch),
            in_channels=folded,
            out_channels=folded,
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            down_block_types=("DownBlock2D",) * len(config.widths),
            up_block_types=("UpBlock2D",) * len(config.widths),
            norm_num_groups=8,
            attention_head_dim=32 if config.widths[-1] % 32 == 0 else 8,
        )
    return unet


def train_denoiser(
    images: NDArray[Any],
    out: str | Path,
    config: DenoiserTraining | None = None,
    *,
    device: str | torch.device = "auto",
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Path:
    """Train a DDPM on ``images`` and write it to ``out`` as a diffusers folder; an interrupted training goes on.

    Every step draws from its own key (seed, step), so a training that was interrupted and resumed ends with the same
    weights as one that was not.

    Args:
        images: ``(N, C, H, W)``, uint8, or float in [0, 1]; sides a multiple of ``config.multiple``.
        out: folder for ``unet/``, ``scheduler/``, ``certimed.json``, ``samples.png`` and ``checkpoint.pt``.
        config: architecture and optimisation; the default is :class:`DenoiserTraining()`.
        device: where to train; ``"auto"``: on a GPU where there is one.
        checkpoint_every: steps between checkpoints.
        stop_after: end this call once that many steps are done in total (the folder can be resumed).
        progress: called with the step and the running loss at every checkpoint.

    Returns:
        ``out``; load it with ``load_denoiser(f"diffusers:{out}")``.

    Raises:
        InputError: images of the wrong shape, size or range, or ``out`` holds another training.
    """
    config = config or DenoiserTraining()
    pool = _as_pool(images, config)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(config, pool, checked_device(device))
    state.resume(folder / CHECKPOINT_NAME)
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    running = 0.0
    while state.step < last:
        loss = state.advance()
        running = loss if running == 0 else 0.98 * running + 0.02 * loss
        if state.step % checkpoint_every == 0 or state.step == last:
            state.save(folder / CHECKPOINT_NAME)
            if progress is not None:
                progress(state.step, running)
    _export(state, folder)
    return folder


class _State:
    """One training: network, average, optimiser and the number of steps done."""

    def __init__(self, config: DenoiserTraining, pool: Tensor, device: torch.device) -> None:
        self.config, self.pool, self.device = config, pool, device
        size = (int(pool.shape[2]), int(pool.shape[3]))
        self.unet = build_unet(config, int(pool.shape[1]), size).to(device).train()
        self.average = {key: value.clone() for key, value in self.unet.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.unet.parameters(), lr=config.learning_rate, weight_decay=1e-4)
        schedule = NoiseSchedule.linear()
        self.timesteps = schedule.timestep_for_sigma(config.max_sigma) + 1
        self.abar = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32)
        self.step = 0

    def advance(self) -> float:
        """One optimiser step, from the randomness of this step's number alone."""
        config = self.config
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        index = torch.randint(len(self.pool), (config.batch,), generator=rng)
        clean = augmented(self.pool[index].float() / 255 * 2 - 1, config.augment, rng)
        clean = F.pixel_unshuffle(clean, config.patch)
        timestep = torch.randint(self.timesteps, (config.batch,), generator=rng)
        noise = torch.randn(clean.shape, generator=rng)
        abar = self.abar[timestep].view(-1, 1, 1, 1)
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        target = training_target(config.prediction_type, clean, noise, abar)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * self._rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
            output = self.unet(noisy.to(self.device), timestep.to(self.device)).sample
        loss = F.mse_loss(output.float(), target.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, min(self.config.warmup, self.config.steps // 4)))
        return warm * 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))

    def _update_average(self) -> None:
        """Exponential average, with a shorter memory at the start so that the first weights are forgotten."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.unet.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)

    def save(self, path: Path) -> None:
        content = {
            "config": json.dumps(asdict(self.config)),
            "shape": list(self.pool.shape),
            "step": self.step,
            "unet": self.unet.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        if not path.exists():
            return
        content = read_content(path)
        if content["config"] != json.dumps(asdict(self.config)) or content["shape"] != list(self.pool.shape):
            raise InputError(
                f"{path} belongs to a training with other settings or images ({content['config']}, images "
                f"{tuple(content['shape'])}); choose another output folder or delete the checkpoint"
            )
        self.unet.load_state_dict(content["unet"])
        self.average = {name: value.to(self.device) for name, value in content["average"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        self.step = int(content["step"])


def training_target(prediction_type: str, clean: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """What the network is asked for: the noise, the clean image, or ``v = sqrt(abar) e - sqrt(1 - abar) y``."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return clean
    return abar.sqrt() * noise - (1 - abar).sqrt() * clean


def _as_pool(images: NDArray[Any], config: DenoiserTraining) -> Tensor:
    """uint8 ``(N, C, H, W)``; training images are kept at 8 bits, a quarter of the memory of floats."""
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(pixels) == 0:
        raise InputError(f"images must have shape (N, C, H, W) with C 1 or 3 and N >= 1, got {pixels.shape}")
    if pixels.shape[2] % config.multiple or pixels.shape[3] % config.multiple:
        raise InputError(
            f"image sides {pixels.shape[2]}x{pixels.shape[3]} must be multiples of {config.multiple} "
            f"(patch {config.patch}, {len(config.widths)} levels); resize or pad the images"
        )
    if pixels.dtype != np.uint8:
        if not np.all(np.isfinite(pixels)) or pixels.min() < 0 or pixels.max() > 1:
            raise InputError("float images must be finite and lie in [0, 1]; divide by the largest grey level")
        pixels = np.round(pixels * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def augmented(batch: Tensor, mode: str, rng: torch.Generator) -> Tensor:
    """Left-right flips; jitter is turns of +-8 degrees, scales of .92 to 1.12 and shifts of +-5 %."""
    n = len(batch)
    if mode in ("flip", "affine"):
        flip = torch.rand(n, generator=rng) < 0.5
        batch = torch.where(flip.view(-1, 1, 1, 1), batch.flip(-1), batch)
    if mode in ("none", "flip"):
        return batch
    draw = torch.rand(n, 4, generator=rng) * 2 - 1
    angle, scale = draw[:, 0] * math.radians(8), 1.02 + 0.1 * draw[:, 1]
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.cos(angle) / scale
    matrix[:, 0, 1], matrix[:, 1, 0] = -torch.sin(angle) / scale, torch.sin(angle) / scale
    matrix[:, :, 2] = 0.1 * draw[:, 2:]
    grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def _export(state: _State, folder: Path) -> None:
    """Write the averaged weights as diffusers reads them, and a sheet of denoised training images."""
    diffusers = require("diffusers", "denoise")
    config = state.config
    trained: Any = build_unet(config, int(state.pool.shape[1]), (int(state.pool.shape[2]), int(state.pool.shape[3])))
    trained.load_state_dict({key: value.cpu() for key, value in state.average.items()})
    trained.eval().save_pretrained(folder / "unet", safe_serialization=True)
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", prediction_type=config.prediction_type
    )
    scheduler.save_pretrained(folder / "scheduler")
    sidecar = {
        "patch": config.patch,
        "channels": int(state.pool.shape[1]),
        "max_sigma": config.max_sigma,
        "steps_done": state.step,
        "training": asdict(config),
    }
    (folder / SIDECAR_NAME).write_text(json.dumps(sidecar, indent=2) + "\n")
    _sample_sheet(folder, state.pool[:_SHEET_IMAGES], config)


def _sample_sheet(folder: Path, clean: Tensor, config: DenoiserTraining) -> None:
    """``samples.png``: columns are images; rows are the image, then noisy and denoised at two noise levels."""
    denoiser = load_denoiser(f"diffusers:{folder}")
    images = clean.float() / 255
    rng = torch.Generator().manual_seed(config.seed)
    rows = [images]
    for sigma in (config.max_sigma / 4, config.max_sigma / 2):
        noisy = images + sigma * torch.randn(images.shape, generator=rng)
        with torch.no_grad():
            rows += [noisy.clamp(0, 1), denoiser.at(sigma)(noisy)]
    lines = [torch.cat(list(row), dim=-1) for row in rows]
    sheet = (torch.cat(lines, dim=-2) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet).save(folder / "samples.png")
