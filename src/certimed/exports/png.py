"""A layer of a mask certificate as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from certimed.certificates import MaskCertificate
from certimed.errors import InputError

_PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))
_STEPS = 255


def write_png(path: str | Path, certificate: MaskCertificate, layer: str = "mask") -> float:
    """Write one layer of a 2-D mask as a grey or palette PNG, and what its values mean into its text.

    Args:
        path: of the file.
        layer: ``"mask"`` (class ids, in colours up to 256 classes), ``"certified"`` (255 or 0) or ``"radius"`` (steps
            of the largest radius / 255, rounded down, so that no pixel claims more than was proved).

    Returns:
        What one step of the file's values stands for: a radius, 1 for class ids.

    Raises:
        InputError: an unknown layer, or a volume.
    """
    image, unit, step = _drawn(layer, certificate.layer(layer))
    info = PngInfo()
    info.add_text("certimed:unit", unit)
    image.save(Path(path), format="PNG", pnginfo=info)
    return step


def _drawn(layer: str, values: NDArray[Any]) -> tuple[Image.Image, str, float]:
    if values.ndim != 2:
        raise InputError(f"a PNG holds a 2-D image, but {layer} has shape {values.shape}; write NIfTI or one slice")
    if layer == "radius":
        highest = float(values.max())
        step = highest / _STEPS if highest > 0 else 1.0
        # The quotient may be rounded up to the next whole step; a step too far is taken back.
        steps = np.floor(values / step)
        steps -= steps * step > values
        unit = f"L2 radius in [0, 1] units per step, rounded down: {step!r}"
        return Image.fromarray(steps.astype(np.uint8)), unit, step
    if layer == "certified":
        return Image.fromarray(values * np.uint8(_STEPS)), "255 = certified, 0 = abstained", 1 / _STEPS
    if values.dtype != np.uint8:
        return Image.fromarray(values.astype(np.uint16)), "class id", 1.0
    image = Image.fromarray(values)
    image.putpalette([channel for index in range(256) for channel in _PALETTE[index % len(_PALETTE)]])
    return image, "class id", 1.0
