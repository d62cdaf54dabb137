"""Denoisers by name: a diffusers folder or hub id, a guided-diffusion checkpoint, or any module."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certimed.denoising.guided_diffusion import SCHEDULER_CONFIG, read_guided_diffusion
from certimed.denoising.one_step import DenoiserOptions, ModuleDenoiser, OneStepDenoiser
from certimed.denoising.schedule import SCHEDULE_KEYS, NoiseSchedule
from certimed.errors import InputError, require
from certimed.models.fitting import fit
from certimed.models.forms import DENOISERS
from certimed.models.onnx_network import LIBRARIES, OnnxNetwork
from certimed.models.sources import brief, read_json, resolve_folder
from certimed.models.weights import Weights, find_weights, read_weights
from certimed.usercode import is_user_code, load_user_model

SIDECAR_NAME = "certimed.json"
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_IMAGES = 4  # axes
_HUB_WEIGHTS = (*(f"unet/{name}" for name in _FILES), *_FILES)
_OLD_ATTENTION = re.compile(r"(attentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))$")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_denoiser(
    spec: str | Path | nn.Module,
    device: str | torch.device = "cpu",
    *,
    autocast: torch.dtype | None = None,
    tile: int | None = None,
    allow_code: bool = False,
) -> OneStepDenoiser | ModuleDenoiser:
    """Load a denoiser; ``.at(sigma)`` of it is a module on noisy images in [0, 1].

    Args:
        spec: a form of :data:`certimed.models.forms.DENOISERS`: ``diffusers:FOLDER_OR_ID`` (a ``UNet2DModel`` with its
            scheduler, in the ``unet/`` and ``scheduler/`` folders a ``DDPMPipeline`` writes),
            ``guided-diffusion:FILE`` (the OpenAI 256x256 layout), ``onnx:FILE``; a bare folder or file recognised by
            its content, ``python:MODULE:FACTORY`` (code of your own that returns such a module
            or a :class:`ModuleDenoiser`), or an ``nn.Module`` that maps noisy images to clean ones.
        device: where the model runs.
        autocast: dtype of the network's own arithmetic, e.g. ``torch.bfloat16``; None for float32.
        tile: side of the largest square denoised at once; None takes the size the model was trained at.
        allow_code: consent to run the code of a ``python:`` name; see :mod:`certimed.usercode`.

    Raises:
        InputError: the name is not understood, or the folder or file does not hold such a model.
        ModelError: weights that are damaged, or are not exactly those of the network.
        MissingExtraError: diffusers is not installed.
    """
    if isinstance(spec, nn.Module):
        if isinstance(spec, OneStepDenoiser | ModuleDenoiser):
            return spec.to(device)
        return ModuleDenoiser(spec).to(device)
    if is_user_code(str(spec)):
        return _user_denoiser(str(spec), allow_code).to(device)
    prefix, reference = DENOISERS.split(str(spec)) or (_recognise(Path(spec)), str(spec))
    denoiser: OneStepDenoiser | ModuleDenoiser = DENOISERS.loader(prefix)(reference, autocast, tile)
    return denoiser.to(device)


def _user_denoiser(spec: str, allow_code: bool) -> OneStepDenoiser | ModuleDenoiser:
    user = load_user_model(spec, allow_code=allow_code)
    if not isinstance(user.model, nn.Module):
        raise InputError(
            f"{spec} returned {type(user.model).__name__}; return an nn.Module (noisy images to clean ones), or "
            "ModuleDenoiser(module, sigma=...) where it was trained for one noise level"
        )
    if isinstance(user.model, OneStepDenoiser | ModuleDenoiser):
        return user.model.with_source(user.source_sha256)
    return ModuleDenoiser(user.model).with_source(user.source_sha256)


def _recognise(path: Path) -> str:
    if (path / "unet" / "config.json").is_file() or (path / "config.json").is_file():
        return "diffusers"
    if path.is_file():
        return "guided-diffusion"
    raise DENOISERS.refusal(str(path))


def load_onnx(reference: str, autocast: torch.dtype | None, tile: int | None) -> ModuleDenoiser:
    """An ONNX file from noisy images to clean ones of the same shape, both in [0, 1]."""
    if autocast is not None or tile is not None:
        raise InputError("autocast and tile are of diffusion models; an ONNX denoiser runs in its own precision, whole")
    network = OnnxNetwork(reference, _IMAGES)
    note = f"{network.path.name} does not say which sigma it was trained for; only that one gives its answers a meaning"
    return ModuleDenoiser(network, configuration={"onnx": network.digest}, libraries=LIBRARIES, notes=(note,))


def load_diffusers(place: str, autocast: torch.dtype | None, tile: int | None) -> OneStepDenoiser:
    """A diffusers folder or hub id; see :func:`load_denoiser`."""
    library = require("diffusers", "denoise")
    root = resolve_folder(place, _HUB_WEIGHTS)
    folder = root / "unet" if (root / "unet").is_dir() else root
    config = read_json(folder / "config.json", "the diffusion model's architecture")
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise InputError(
            f"the diffusion model in {folder} is a {kind}, and an unconditional UNet2DModel of pixels is needed; use "
            "another, or train one with: certimed train denoiser"
        )
    scheduler_config = _scheduler_config(root)
    weights = read_weights(find_weights(folder, _FILES, "save the model with save_pretrained"))
    try:
        with torch.random.fork_rng(devices=[]):
            unet = library.UNet2DModel.from_config(config)
    # Model constructors raise whatever their parsing trips over.
    except Exception as error:
        raise InputError(
            f"diffusers cannot build the model that {folder / 'config.json'} describes ({type(error).__name__}: "
            f"{brief(error)}); check the file, or install a newer diffusers"
        ) from error
    filled = fit(unet, _modern(weights), advice="use the config.json saved with these weights")
    patch, max_sigma = _sidecar(root)
    return wrap_unet(
        unet, scheduler_config, patch=patch, max_sigma=max_sigma, autocast=autocast, tile=tile, notes=filled.notes
    )


def _modern(weights: Weights) -> Weights:
    """Attention under the names of today's diffusers; its older versions called the projections otherwise."""
    names = {
        name: _OLD_ATTENTION.sub(lambda found: f"{found[1]}{_ATTENTION[found[2]]}{found[3]}", name)
        for name in weights.tensors
    }
    return replace(weights, tensors={names[name]: value for name, value in weights.tensors.items()})


def _sidecar(root: Path) -> tuple[int, float | None]:
    """Patch and largest trained sigma from ``certimed.json``; 1 and None for folders others have written."""
    path = root / SIDECAR_NAME
    if not path.is_file():
        return 1, None
    content = read_json(path, "patch and max_sigma")
    try:
        patch, most = int(content.get("patch", 1)), content.get("max_sigma")
        largest = None if most is None else float(most)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore the file") from error
    if patch < 1 or not (largest is None or 0 < largest < math.inf):
        raise InputError(f"{path} says patch={patch} and max_sigma={largest}; both must be positive, restore the file")
    return patch, largest


def _scheduler_config(root: Path) -> dict[str, Any]:
    for candidate in (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json"):
        if candidate.is_file():
            return read_json(candidate, "the noise schedule")
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
    notes: Sequence[str] = (),
) -> OneStepDenoiser:
    """A diffusers ``UNet2DModel`` with its scheduler's configuration, as a denoiser.

    Raises:
        InputError: the U-Net's channels are not those of 1- or 3-channel images, or it wants a class label.
    """
    config = unet.config
    conditions = [name for name in ("num_class_embeds", "class_embed_type") if config.get(name) is not None]
    if conditions:
        raise InputError(
            f"the denoiser is a class-conditioned diffusion model ({conditions[0]} is {config[conditions[0]]}), which "
            "must be told what an image shows; use an unconditional one, or train one with: certimed train denoiser"
        )
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
    known: dict[str, Any] | None = None
    if type(unet).__module__.partition(".")[0] == "diffusers":
        stated = {name: scheduler_config.get(name) for name in SCHEDULE_KEYS}
        known = {
            "unet": {name: config[name] for name in config if not name.startswith("_")},
            # False and absent are one.
            "schedule": {name: value for name, value in stated.items() if value is not None and value is not False},
        }
    return OneStepDenoiser(
        unet,
        NoiseSchedule.from_config(scheduler_config),
        options,
        max_sigma,
        configuration=known,
        libraries=None if known is None else ("diffusers", "safetensors"),
        notes=notes,
    )


def _trained_tile(sample_size: Any, patch: int, multiple: int) -> int | None:
    """The longer side the model was trained at, in pixels, or None where the folder does not say or it does not fit."""
    if sample_size is None:
        return None
    side = patch * (max(sample_size) if isinstance(sample_size, list | tuple) else int(sample_size))
    return side if side % multiple == 0 and side > 4 * multiple else None


def load_guided(reference: str, autocast: torch.dtype | None, tile: int | None) -> OneStepDenoiser:
    """A guided-diffusion checkpoint; see :func:`load_denoiser`."""
    unet, notes = read_guided_diffusion(Path(reference))
    return wrap_unet(unet, SCHEDULER_CONFIG, autocast=autocast, tile=tile, notes=notes)
