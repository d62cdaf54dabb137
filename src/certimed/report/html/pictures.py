"""Pictures inside the page: bounded thumbnails, and a picture of how large a radius is."""

from __future__ import annotations

import base64
import io
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from certimed.certificates import NATIVE, SETTINGS, Certificate
from certimed.data import MedicalImage
from certimed.noise import NoiseKey
from certimed.operators import apply
from certimed.report.html.numbers import plain
from certimed.segmenters.native import resized_truth

if TYPE_CHECKING:
    from certimed.report.html.part import Line

Pixels = NDArray[np.float32]
THUMBNAIL = 176
AMPLIFIED = 8
_INSIDE = 0.999


class Budget:
    """Bytes the page may still spend on pictures; what does not fit is left out, and the page says so."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.refused = 0

    def spend(self, text: str) -> str | None:
        """The text, or None where it no longer fits."""
        if len(text) > self.left:
            self.refused += 1
            return None
        self.left -= len(text)
        return text


def thumbnail(image: MedicalImage, edge: int = THUMBNAIL) -> str:
    """A JPEG of at most ``edge`` pixels a side as a data address; for looking at, not for measuring."""
    picture = Image.fromarray(eight_bits(image.pixels))
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return address(picture, "JPEG", quality=82, optimize=True)


def base_picture(pixels: Pixels) -> str:
    """A JPEG of the certified image at its own size, below the overlays."""
    return address(Image.fromarray(eight_bits(pixels)), "JPEG", quality=88, optimize=True)


def packed(values: NDArray[Any]) -> str:
    """Small whole numbers as base64 of deflated little-endian bytes; the page inflates them without loss."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """``(C, H, W)`` floats as 8-bit ``(H, W)`` or ``(H, W, 3)``, clipped: for showing only."""
    values = np.asarray(np.rint(np.clip(pixels, 0, 1) * 255), dtype=np.uint8)
    return values[0] if values.shape[0] == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


@dataclass(frozen=True)
class WorkedPicture:
    """An image, the same image moved by a random perturbation just inside the radius, and their difference.

    Attributes:
        image, perturbed, difference: PNG data addresses; the difference is amplified around middle grey.
        norm: L2 norm of the perturbation, below the radius.
        largest: largest change of a single value, grey levels.
    """

    image: str
    perturbed: str
    difference: str
    norm: float
    largest: float
    amplified: int = AMPLIFIED


def worked_picture(pixels: Pixels, radius: float, item: str, seed: int) -> WorkedPicture:
    """Draw one random perturbation whose L2 norm is 0.999 of the radius.

    Args:
        pixels: float ``(C, H, W)`` of the certified space.
        radius: certified radius, positive.
        item, seed: key of the draw (phase "probe"), so that the picture is always the same.
    """
    generator = NoiseKey(seed, item, "probe").generator(0)
    direction = torch.randn(pixels.shape, generator=generator, dtype=torch.float64).numpy()
    change = direction * (_INSIDE * radius / np.linalg.norm(direction))
    shown = eight_bits(np.asarray(0.5 + AMPLIFIED * change, dtype=np.float32))
    return WorkedPicture(
        image=_png(eight_bits(pixels)),
        perturbed=_png(eight_bits(np.asarray(pixels + change, dtype=np.float32))),
        difference=_png(shown),
        norm=float(np.linalg.norm(change)),
        largest=255 * float(np.abs(change).max()),
    )


def worked_example(
    what: str, certificate: Certificate[Any], line: Line, image: MedicalImage | None, budget: Budget
) -> dict[str, Any] | None:
    """A radius of a series, drawn, with its units; None where the image is not there, the page is full, or noise is on
    settings."""
    if image is None or certificate.real_radius == 0 or certificate.space == SETTINGS:
        return None
    pixels, _ = certified_space(image, certificate)
    drawn = worked_picture(pixels, certificate.real_radius, certificate.item, certificate.seed)
    if budget.spend(drawn.image + drawn.perturbed + drawn.difference) is None:
        return None
    return {
        "what": what,
        "certificate": certificate,
        "line": line,
        "item": plain(certificate.item),
        "units": certificate.units(),
        "flips": pixels_to_flip(certificate.radius, certificate.shape[0]),
        "picture": drawn,
        "statement": plain(certificate.statement(line.of.class_names), 2000),
    }


def pixels_to_flip(radius: float, channels: int) -> int:
    """How many pixels may turn from black to white, in all channels, by a change shorter than the radius.

    >>> pixels_to_flip(1.0, 1), pixels_to_flip(2.0, 3)
    (0, 1)
    """
    return max(0, math.ceil(radius * radius / channels) - 1)


def certified_space(image: MedicalImage, certificate: Certificate[Any]) -> tuple[Pixels, NDArray[np.int64] | None]:
    """Image and truth as the certificate speaks of them: by the map it records; else shortest edge resized, centre
    cropped (the truth, nearest pixels, where nothing is cropped).

    Without a recorded map the model's own preprocessing may crop or interpolate a little differently; the size of a
    perturbation drawn on it does not depend on that.
    """
    native, (channels, *size) = certificate.native, certificate.about.answered
    pixels, truth = torch.from_numpy(image.pixels), image.mask
    if native is not None and native.shape == image.pixels.shape:
        pixels = apply(native.geometry, pixels)
    elif certificate.space not in (NATIVE, SETTINGS) and len(size) == len(pixels.shape) - 1 == 2:
        height, width = size
        if channels == 1 and pixels.shape[0] > 1:
            pixels = pixels.mean(dim=0, keepdim=True)
        scale = max(height / pixels.shape[1], width / pixels.shape[2])
        edges = [max(edge, round(side * scale)) for edge, side in zip((height, width), pixels.shape[1:])]
        if list(pixels.shape[1:]) != edges:
            pixels = functional.interpolate(pixels[None], edges, mode="bicubic", antialias=True)[0]
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        pixels = pixels[:, top : top + height, left : left + width]
    if channels > pixels.shape[0]:
        pixels = pixels.expand(channels, *pixels.shape[1:])
    return np.asarray(pixels, dtype=np.float32), None if truth is None else resized_truth(truth, size)


def _png(values: NDArray[np.uint8]) -> str:
    return address(Image.fromarray(values), "PNG", optimize=True)


def address(picture: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a data address."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
