"""The OpenAI guided-diffusion checkpoints, mapped onto the U-Net of diffusers.

Layout read from the released code (openai/guided-diffusion, Dhariwal & Nichol, NeurIPS 2021). What has to agree:

* time embedding: cosines first, frequencies ``10000^(-i / half)`` (``flip_sin_to_cos``, ``freq_shift=0``);
* residual blocks: ``norm(h) * (1 + scale) + shift``, scale first; GroupNorm of 32 groups, eps 1e-5; resampling inside
  residual blocks (average pooling down, nearest neighbour up);
* attention: heads of 64 channels, and the "legacy" order of the joint projection: heads outermost, q, k, v within;
* six output channels: the noise, then the interpolation weights of the learned variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certimed.errors import ModelError, require
from certimed.models.fitting import compare, fit, unwrapped
from certimed.models.weights import read_weights

SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "prediction_type": "epsilon",
    "variance_type": "learned_range",
}

_ANCHORS = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight")
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}


@dataclass(frozen=True)
class GuidedDiffusionConfig:
    """Architecture of a checkpoint; the default is ``256x256_diffusion_uncond.pt``.

    Attributes:
        image_size: side of the training images.
        model_channels: width of the first level.
        channel_mult: width of every level, in multiples of ``model_channels``.
        num_res_blocks: residual blocks a level.
        attention_levels: levels with attention (levels 3, 4, 5 of 256 are resolutions 32, 16, 8).
        head_channels: channels of one attention head.
        image_channels: channels of the images.
        groups: groups of every normalisation (32 in all released checkpoints).
    """

    image_size: int = 256
    model_channels: int = 256
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = (3, 4, 5)
    head_channels: int = 64
    image_channels: int = 3
    groups: int = 32

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    def unet_config(self) -> dict[str, Any]:
        """Arguments of diffusers' ``UNet2DModel``."""
        attends = [level in self.attention_levels for level in range(self.levels)]
        return {
            "sample_size": self.image_size,
            "in_channels": self.image_channels,
            "out_channels": 2 * self.image_channels,
            "block_out_channels": tuple(self.model_channels * mult for mult in self.channel_mult),
            "layers_per_block": self.num_res_blocks,
            "down_block_types": tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends),
            "up_block_types": tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
            "attention_head_dim": self.head_channels,
            "norm_num_groups": self.groups,
            "attn_norm_num_groups": self.groups,
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }


def load_guided_diffusion(path: str | Path, config: GuidedDiffusionConfig | None = None) -> Any:
    """A diffusers ``UNet2DModel`` with the weights of a guided-diffusion checkpoint, on the CPU, in eval mode.

    The file is looked at first: a network of another kind or size is refused before anything is built.

    Args:
        path: the file, read without unpickling anything.
        config: its architecture; by default that of ``256x256_diffusion_uncond.pt``.

    Raises:
        InputError: there is no such file. ModelError: it is no guided-diffusion checkpoint, or a tensor is missing,
            unknown or of another shape.
    """
    return read_guided_diffusion(path, config)[0]


def read_guided_diffusion(path: str | Path, config: GuidedDiffusionConfig | None = None) -> tuple[Any, tuple[str, ...]]:
    """As :func:`load_guided_diffusion`, with the notes on the file: what had to be decided, in sentences to show."""
    config = config or GuidedDiffusionConfig()
    weights = read_weights(path, mapped=True)
    tensors, beside, notes = unwrapped(weights, dict.fromkeys(_ANCHORS))
    absent = [name for name in _ANCHORS if name not in tensors]
    if absent:
        held = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(weights.tensors.items())[:3])
        raise ModelError(
            f"{path} is no guided-diffusion checkpoint: it has no {absent[0]}, but {len(weights.tensors)} tensors such "
            f"as {held}; load a network of your own in code (python:MODULE:FACTORY)"
        )
    mapped = replace(weights, tensors=map_weights(tensors | beside, config), notes=notes)
    kind = require("diffusers", "denoise").UNet2DModel
    advice = f"only the architecture {config} is known"
    with torch.device("meta"):
        sketch = kind(**config.unet_config())
    compare(sketch, mapped, advice)
    with torch.random.fork_rng(devices=[]):
        unet = kind(**config.unet_config())
    return unet.eval(), fit(unet, mapped, advice=advice).notes


def convert_guided_diffusion(path: str | Path, out: str | Path, config: GuidedDiffusionConfig | None = None) -> Path:
    """Write a guided-diffusion checkpoint as a diffusers folder (``unet/`` in safetensors, ``scheduler/``).

    Returns:
        ``out``; load it with ``load_denoiser(f"diffusers:{out}")``.

    Raises:
        InputError, ModelError: as :func:`load_guided_diffusion`.
    """
    unet = load_guided_diffusion(path, config)
    folder = Path(out)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    arguments = {key: value for key, value in SCHEDULER_CONFIG.items() if not key.startswith("_")}
    require("diffusers", "denoise").DDPMScheduler(**arguments).save_pretrained(folder / "scheduler")
    return folder


def map_weights(weights: dict[str, Tensor], config: GuidedDiffusionConfig) -> dict[str, Tensor]:
    """The checkpoint's weights under diffusers' names.

    Raises:
        ModelError: a key of the checkpoint has no place in the architecture.
    """
    prefixes = dict(_block_prefixes(config))
    mapped: dict[str, Tensor] = {}
    for key, value in weights.items():
        prefix = next(
            (p for p in (key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)) if p in prefixes), None
        )
        if prefix is None:
            raise ModelError(f"checkpoint key {key!r} has no place in the architecture {config}")
        mapped.update(_map_one(key, key[len(prefix) + 1 :], prefixes[prefix], value, config))
    return mapped


def _map_one(key: str, rest: str, target: str, value: Tensor, config: GuidedDiffusionConfig) -> dict[str, Tensor]:
    """One weight: ``rest`` is its name inside the block that diffusers calls ``target``."""
    layer, _, kind = rest.rpartition(".")
    if not layer:
        return {f"{target}.{kind}": value}
    if layer == "skip_connection":
        return {f"{target}.conv_shortcut.{kind}": value}
    if layer in _RESIDUAL:
        return {f"{target}.{_RESIDUAL[layer]}.{kind}": value}
    if layer == "norm":
        return {f"{target}.group_norm.{kind}": value}
    if layer == "proj_out":
        return {f"{target}.to_out.0.{kind}": value.squeeze(-1)}
    if layer == "qkv" and value.shape[0] % (3 * config.head_channels) == 0:
        joint = value.squeeze(-1)
        parts = joint.reshape(-1, 3, config.head_channels, *joint.shape[1:]).unbind(1)
        return {f"{target}.{name}.{kind}": part.flatten(0, 1) for name, part in zip(("to_q", "to_k", "to_v"), parts)}
    raise ModelError(f"checkpoint key {key!r} of shape {tuple(value.shape)} has no place in the architecture {config}")


def _block_prefixes(config: GuidedDiffusionConfig) -> Iterator[tuple[str, str]]:
    """Pairs (prefix in the checkpoint, module of diffusers), in the order the released code builds the blocks."""
    yield "time_embed.0", "time_embedding.linear_1"
    yield "time_embed.2", "time_embedding.linear_2"
    yield "input_blocks.0.0", "conv_in"
    number = 1
    for level in range(config.levels):
        for layer in range(config.num_res_blocks):
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}"
            if level in config.attention_levels:
                yield f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}"
            number += 1
        if level + 1 < config.levels:
            yield f"input_blocks.{number}.0", f"down_blocks.{level}.downsamplers.0"
            number += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    number = 0
    for step, level in enumerate(reversed(range(config.levels))):
        for layer in range(config.num_res_blocks + 1):
            yield f"output_blocks.{number}.0", f"up_blocks.{step}.resnets.{layer}"
            attends = level in config.attention_levels
            if attends:
                yield f"output_blocks.{number}.1", f"up_blocks.{step}.attentions.{layer}"
            if level and layer == config.num_res_blocks:
                yield f"output_blocks.{number}.{1 + attends}", f"up_blocks.{step}.upsamplers.0"
            number += 1
    yield "out.0", "conv_norm_out"
    yield "out.2", "conv_out"
