"""A small U-Net in plain torch, so that the demo needs no segmentation library.

The architecture is that of Ronneberger et al. (MICCAI 2015) with batch normalisation, padded convolutions and
nearest-neighbour upsampling; blocks of pixels may be folded into channels first, which is several times faster.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from certimed.errors import InputError, ModelError
from certimed.models.fitting import fit
from certimed.models.sources import read_json
from certimed.models.weights import read_weights

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
ARCHITECTURE = "SmallUNet"


class SmallUNet(nn.Module):
    """``(B, channels, H, W)`` in [0, 1] -> logits ``(B, classes, H, W)``; H and W multiples of ``multiple``.

    Args:
        channels: image channels.
        classes: classes, background included.
        widths: channels of each level; every level after the first halves the side.
        patch: side of the pixel blocks folded into channels on the way in and unfolded on the way out (1: none).

    Attributes:
        multiple: image sides must be a multiple of it.
        notes: what had to be decided when it was loaded, in sentences to show.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...] = (24, 48, 96), patch: int = 2) -> None:
        super().__init__()
        if channels < 1 or classes < 2 or not widths or patch < 1:
            raise InputError(
                "SmallUNet needs channels >= 1, classes >= 2, a width and patch >= 1, got "
                f"{channels}, {classes}, {widths}, {patch}"
            )
        self.channels, self.classes, self.widths, self.patch = channels, classes, tuple(widths), patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        inputs = (channels * patch**2, *widths[:-1])
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in zip(inputs, widths))
        self.up = nn.ModuleList(_double_conv(a + b, a) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[0], classes * patch**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel.

        Raises:
            ModelError: the sides of ``x`` do not halve often enough.
        """
        if x.ndim != 4 or x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ModelError(
                f"SmallUNet takes (B, C, H, W) with sides a multiple of {self.multiple}, got {tuple(x.shape)}"
            )
        x = F.pixel_unshuffle(x, self.patch)
        levels: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(levels[-1], 2) if levels else x)
            levels.append(x)
        for block, skip in zip(reversed(self.up), reversed(levels[:-1])):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1))
        return F.pixel_shuffle(self.head(x), self.patch)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, classes={self.classes}, widths={self.widths}, patch={self.patch}"

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        config = {
            "architecture": ARCHITECTURE,
            "channels": self.channels,
            "classes": self.classes,
            "widths": list(self.widths),
            "patch": self.patch,
        }
        (place / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
        save_file({key: value.contiguous() for key, value in self.state_dict().items()}, place / WEIGHTS_NAME)


def load_small_unet(folder: str | Path) -> SmallUNet:
    """The network a folder written by :meth:`SmallUNet.save` holds, in eval mode, without gradients.

    Raises:
        InputError: the folder does not describe such a network. ModelError: weights that do not fit.
    """
    place = Path(folder)
    config = read_json(place / CONFIG_NAME, "the architecture")
    if config.get("architecture") != ARCHITECTURE:
        raise InputError(f"{place / CONFIG_NAME} describes {config.get('architecture')!r}, not {ARCHITECTURE!r}")
    try:
        sizes = (
            int(config["channels"]),
            int(config["classes"]),
            tuple(map(int, config["widths"])),
            int(config["patch"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{place / CONFIG_NAME} gives no channels, classes, widths and patch; restore the file"
        ) from error
    with torch.random.fork_rng(devices=[]):
        model = SmallUNet(*sizes)
    filled = fit(
        model, read_weights(place / WEIGHTS_NAME), advice=f"restore {CONFIG_NAME} and {WEIGHTS_NAME} as they were saved"
    )
    model.notes = filled.notes
    return model.eval().requires_grad_(False)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
