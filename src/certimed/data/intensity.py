"""From stored values to [0, 1], with the sentence that says so; shared by all readers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certimed.data.images import ReadOptions

_UNPACKED_FREELY = 1 << 30
_MOST_EXPANSION = 600


class UnreadableError(Exception):
    """A reader's reason for giving up on a file; the caller adds the file's name and makes it an ImageError."""


def check_size(height: int, width: int, options: ReadOptions) -> None:
    """Refuse an image before it is decoded, going by what its header says.

    Raises:
        UnreadableError: a side is not positive, or there are more than ``options.max_pixels`` pixels.
    """
    if height < 1 or width < 1:
        raise UnreadableError(f"its header says {width} x {height} pixels")
    if height * width > options.max_pixels:
        raise UnreadableError(
            f"its header says {width} x {height} pixels, more than max_pixels={options.max_pixels}; raise max_pixels "
            "if the file is meant to be that large"
        )


def check_expansion(stored: int, unpacked: int) -> None:
    """Refuse a compressed file that would unpack to far more than images do, before unpacking it.

    Images and masks shrink a few hundredfold at most; a file of nothing but one byte, a thousandfold.

    Raises:
        UnreadableError: more than 1 GiB and more than 600 times the stored bytes.
    """
    if unpacked > _UNPACKED_FREELY and unpacked > _MOST_EXPANSION * stored:
        raise UnreadableError(
            f"its {stored} stored bytes would unpack to {unpacked / 2**30:.1f} GiB, which no image does; store it "
            "uncompressed if it is meant"
        )


def check_finite(values: NDArray[np.generic]) -> None:
    """Refuse NaN and infinity, which no window can place.

    Raises:
        UnreadableError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise UnreadableError("it holds values that are not finite (NaN or infinity)")


def to_unit(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] linearly to [0, 1] and clip, in float64, rounded to float32 once at the end."""
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def apply_window(values: NDArray[np.generic], window: tuple[float, float]) -> tuple[NDArray[np.float32], str]:
    """The window a person asked for: centre +- width/2 becomes 0 to 1, clipped.

    Raises:
        UnreadableError: a value is not finite.
    """
    check_finite(values)
    centre, width = window
    low, high = centre - width / 2, centre + width / 2
    return to_unit(values, low, high), f"window centre {centre:g}, width {width:g} as asked for, clipped"
