"""Layers of mask certificates as images, for files and for notebooks."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.certificates.kinds import MaskCertificate

_PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))
_STEPS = 255
_CAPTIONS = {"mask": "class of each pixel", "certified": "certified (white)", "radius": "radius of each pixel"}
_SECTION = 2


def figures(certificate: MaskCertificate) -> str:
    """The layers of a section as HTML figures; of a volume nothing."""
    if certificate.mask.ndim != _SECTION:
        return ""
    found = ""
    for layer, caption in _CAPTIONS.items():
        buffer = io.BytesIO()
        layer_image(layer, certificate.layer(layer))[0].save(buffer, format="PNG")
        address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        found += (
            f'<figure style="display:inline-block"><img src="{address}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return found


def layer_image(layer: str, values: NDArray[Any]) -> tuple[Image.Image, str, float]:
    """A 2-D layer as an image: what its values mean, and what one step of them stands for; InputError for a volume."""
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
    if layer in ("certified", "abstained"):
        other = "abstained" if layer == "certified" else "certified"
        return Image.fromarray(values * np.uint8(_STEPS)), f"255 = {layer}, 0 = {other}", 1 / _STEPS
    if values.dtype != np.uint8:
        return Image.fromarray(values.astype(np.uint16)), "class id", 1.0
    image = Image.fromarray(values)
    image.putpalette([channel for index in range(256) for channel in _PALETTE[index % len(_PALETTE)]])
    return image, "class id", 1.0
