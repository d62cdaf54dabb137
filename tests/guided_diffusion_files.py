"""Checkpoints of guided diffusion as released, small and random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from certimed.denoising import GuidedDiffusionConfig

SMALL = GuidedDiffusionConfig(
    image_size=32,
    model_channels=32,
    channel_mult=(1, 1, 2),
    num_res_blocks=2,
    attention_levels=(1, 2),
    head_channels=16,
)


def random_checkpoint(config: GuidedDiffusionConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names and shapes the released code gives them."""
    rng = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, shape in released_layers(config):
        offset, fan = (1.0, 100) if len(shape) == 1 else (0.0, math.prod(shape[1:]))
        weights[f"{name}.weight"] = offset + torch.randn(shape, generator=rng) / math.sqrt(fan)
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=rng)
    return weights


def released_layers(config: GuidedDiffusionConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Name and weight shape of every layer; a normalisation has one dimension."""
    layers: list[tuple[str, tuple[int, ...]]] = []

    def layer(name: str, *shape: int) -> None:
        layers.append((name, shape))

    base = config.model_channels

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * outputs, 4 * base)
        layer(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    layer("time_embed.0", 4 * base, base)
    layer("time_embed.2", 4 * base, 4 * base)
    layer("input_blocks.0.0", base, config.image_channels, 3, 3)
    width, widths, number = base, [base], 1
    for level, mult in enumerate(config.channel_mult):
        for _ in range(config.num_res_blocks):
            residual(f"input_blocks.{number}.0", width, base * mult)
            width = base * mult
            if level in config.attention_levels:
                attention(f"input_blocks.{number}.1", width)
            widths.append(width)
            number += 1
        if level + 1 < len(config.channel_mult):
            residual(f"input_blocks.{number}.0", width, width)
            widths.append(width)
            number += 1
    residual("middle_block.0", width, width)
    attention("middle_block.1", width)
    residual("middle_block.2", width, width)
    number = 0
    for level in reversed(range(len(config.channel_mult))):
        for block in range(config.num_res_blocks + 1):
            residual(f"output_blocks.{number}.0", width + widths.pop(), base * config.channel_mult[level])
            width = base * config.channel_mult[level]
            place = 1
            if level in config.attention_levels:
                attention(f"output_blocks.{number}.1", width)
                place = 2
            if level and block == config.num_res_blocks:
                residual(f"output_blocks.{number}.{place}", width, width)
            number += 1
    layer("out.0", width)
    layer("out.2", 2 * config.image_channels, width, 3, 3)
    return layers
