"""Denoisers by name: a diffusers folder or hub id, a guided-diffusion checkpoint, or any module."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.denoising.one_step import DenoiserOptions, ModuleDenoiser, OneStepDenoiser
from certimed.denoising.schedule import NoiseSchedule
from certimed.errors import InputError, require

SIDECAR_NAME = "certimed.json"


def load_denoiser(
    spec: str | Path | nn.Module,
    device: str | torch.device = "cpu",
    *,
    autocast: torch.dtype | None = None,
    tile: int | None = None,
) -> OneStepDenoiser | ModuleDenoiser:
    """Load a denoiser; ``.at(sigma)`` of it is a module on noisy images in [0, 1].

    Args:
        spec: ``diffusers:FOLDER_OR_HUB_ID`` (a ``UNet2DModel`` with its scheduler, in the ``unet/`` and ``scheduler/``
            folders a ``DDPMPipeline`` writes), ``guided-diffusion:FILE.pt`` (the OpenAI 256x256 layout), a bare folder
            or file recognised by its content, or an ``nn.Module`` that maps noisy images to clean ones.
        device: where the model runs.
        autocast: dtype of the network's own arithmetic, e.g. ``torch.bfloat16``; None for float32.
        tile: side of the largest square denoised at once; None takes the size the model was trained at.

    Raises:
        InputError: the name is not understood, or the folder or file does not hold such a model.
        MissingExtraError: diffusers is not installed.
    """
    if isinstance(spec, nn.Module):
        if isinstance(spec, OneStepDenoiser | ModuleDenoiser):
            return spec.to(device)
        return ModuleDenoiser(spec).to(device)
    kind, _, place = str(spec).partition(":")
    if kind == "guided-diffusion" and place:
        return _guided_diffusion(Path(place), autocast, tile).to(device)
    if kind == "diffusers" and place:
        return _diffusers(place, autocast, tile).to(device)
    return _recognise(Path(str(spec)), autocast, tile).to(device)


def _recognise(path: Path, autocast: torch.dtype | None, tile: int | None) -> OneStepDenoiser:
    if (path / "unet" / "config.json").is_file() or (path / "config.json").is_file():
        return _diffusers(str(path), autocast, tile)
    if path.suffix in (".pt", ".pth") and path.is_file():
        return _guided_diffusion(path, autocast, tile)
    raise InputError(
        f"denoiser {str(path)!r} is not understood; give diffusers:FOLDER_OR_ID (a folder with unet/ and scheduler/) "
        "or guided-diffusion:FILE.pt"
    )


def _diffusers(place: str, autocast: torch.dtype | None, tile: int | None) -> OneStepDenoiser:
    diffusers = require("diffusers", "denoise")
    root = Path(place)
    try:
        if root.is_dir():
            unet_folder = root / "unet" if (root / "unet").is_dir() else root
            unet = diffusers.UNet2DModel.from_pretrained(unet_folder, low_cpu_mem_usage=False)
            scheduler_config = _scheduler_config(root)
        else:
            pipeline = diffusers.DDPMPipeline.from_pretrained(place)
            unet, scheduler_config = pipeline.unet, dict(pipeline.scheduler.config)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no diffusion model could be loaded from {place!r}: {error}") from error
    patch, max_sigma = _sidecar(root)
    return wrap_unet(unet, scheduler_config, patch=patch, max_sigma=max_sigma, autocast=autocast, tile=tile)


def _sidecar(root: Path) -> tuple[int, float | None]:
    """Patch and largest trained sigma from ``certimed.json``; 1 and None for folders others have written."""
    path = root / SIDECAR_NAME
    if not path.is_file():
        return 1, None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        patch, most = int(content.get("patch", 1)), content.get("max_sigma")
        largest = None if most is None else float(most)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore the file") from error
    if patch < 1 or not (largest is None or 0 < largest < math.inf):
        raise InputError(f"{path} says patch={patch} and max_sigma={largest}; both must be positive, restore the file")
    return patch, largest


def _scheduler_config(root: Path) -> dict[str, Any]:
    for candidate in (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json"):
        if candidate.is_file():
            content: dict[str, Any] = json.loads(candidate.read_text())
            return content
    raise InputError(
        f"{root} has no scheduler/scheduler_config.json, so its noise schedule is unknown; add the scheduler"
    )


def wrap_unet(
    unet: Any,
    scheduler_config: dict[str, Any],
    *,
    patch: int = 1,
    max_sigma: float | None = None,
    autocast: torch.dtype | None = None,
    tile: int | None = None,
) -> OneStepDenoiser:
    """A diffusers ``UNet2DModel`` with its scheduler's configuration, as a denoiser.

    Raises:
        InputError: the U-Net's channels are not those of 1- or 3-channel images.
    """
    config = unet.config
    channels, left = divmod(int(config.in_channels), patch**2)
    if left or channels not in (1, 3) or config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise InputError(
            f"the denoiser's network takes {config.in_channels} and answers {config.out_channels} channels; 1- or "
            f"3-channel images with patch={patch} need {patch**2} or {3 * patch**2}, and that or twice that"
        )
    multiple = patch * 2 ** (len(config.block_out_channels) - 1)
    options = DenoiserOptions(
        prediction_type=str(scheduler_config.get("prediction_type", "epsilon")),
        channels=channels,
        patch=patch,
        multiple=multiple,
        tile=tile or _trained_tile(config.sample_size, patch, multiple),
        overlap=min(32, 4 * multiple),
        autocast=autocast,
    )
    return OneStepDenoiser(unet, NoiseSchedule.from_config(scheduler_config), options, max_sigma)


def _trained_tile(sample_size: Any, patch: int, multiple: int) -> int | None:
    """The longer side the model was trained at, in pixels, or None where the folder does not say or it does not fit."""
    if sample_size is None:
        return None
    side = patch * (max(sample_size) if isinstance(sample_size, list | tuple) else int(sample_size))
    return side if side % multiple == 0 and side > 4 * multiple else None


def _guided_diffusion(path: Path, autocast: torch.dtype | None, tile: int | None) -> OneStepDenoiser:
    from certimed.denoising.guided_diffusion import SCHEDULER_CONFIG, load_guided_diffusion

    return wrap_unet(load_guided_diffusion(path), SCHEDULER_CONFIG, autocast=autocast, tile=tile)
