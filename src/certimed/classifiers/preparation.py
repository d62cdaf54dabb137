"""A library's own preparation of images as a linear map in float, and the check that it is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certimed.errors import InputError
from certimed.vlm.preprocessing import Preprocess

_TOLERANCE = 2.5 / 255  # the library rounds to 8 bits, once an axis, and we do not


def confirm(preparation: Preprocess, channel_order: str, library: Callable[[Any], Tensor], what: str) -> None:
    """Refuse a preparation that is not, up to 8-bit rounding, what the library makes of an image.

    Both prepare one image of random pixels, larger than the input and not square. Its values keep away from black and
    white, where the library clips what bicubic interpolation overshoots.

    Args:
        preparation: ours.
        channel_order: of the network.
        library: a Pillow image to the network's input ``(C, H, W)``, normalised.
        what: whose preparation it is, for the message.

    Raises:
        InputError: they differ by more than rounding, or the library cannot prepare the image.
    """
    from PIL import Image

    height, width = preparation.size
    shape = (height + height // 3 + 1, width + width // 2 + 1, 3)
    pixels = np.random.default_rng(0).integers(64, 192, shape, dtype=np.uint8)
    image = Image.fromarray(pixels if preparation.channels == 3 else pixels[..., 0])
    ours = preparation(torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1).float() / 255)
    try:
        theirs = library(image).float()
    # Libraries refuse images each in their own way.
    except Exception as error:
        raise InputError(f"{what} cannot prepare an image ({type(error).__name__}: {error})") from error
    theirs = theirs * torch.tensor(preparation.std).view(-1, 1, 1) + torch.tensor(preparation.mean).view(-1, 1, 1)
    theirs = theirs.flip(0) if channel_order == "bgr" else theirs
    if theirs.shape != ours.shape:
        apart = f"makes images of {tuple(theirs.shape)}, not {tuple(ours.shape)}"
    elif (difference := float((theirs - ours).abs().max())) > _TOLERANCE:
        apart = f"gives values up to {difference:.3g} apart"
    else:
        return
    raise InputError(
        f"{what} does more than resize, crop and normalise ({apart} than '{preparation.describe()}'); load the model "
        "in code of your own (python:MODULE:FACTORY) with a certimed.ClassificationModel that states its preparation"
    )
