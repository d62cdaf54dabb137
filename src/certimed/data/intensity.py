"""From stored values to [0, 1], with the step that says so; shared by all readers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.images import ReadOptions
from certimed.data.records import Step, step

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
            f"its header says {width} x {height} pixels, more than the {options.max_pixels} that are read at once; "
            "store it smaller or cut it into patches"
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


def replace_nan(
    values: NDArray[np.generic], options: ReadOptions, low: float | None = None
) -> tuple[NDArray[Any], list[Step]]:
    """Values with every NaN replaced as ``options.nan`` says, and the step to record if there was one.

    Args:
        values: numbers of any type.
        options: the policy.
        low: what "min" means; the smallest number among the values when None.

    Raises:
        UnreadableError: infinity, nothing but NaN, or a NaN and the policy "refuse".
    """
    if np.isfinite(values).all():
        return values, []
    missing = np.isnan(values)
    if np.isinf(values).any():
        raise UnreadableError("it holds infinity, which is not finite and which no window can place")
    if options.nan == "refuse":
        raise UnreadableError(
            f"it holds {int(missing.sum())} values that are no number (NaN; not finite); say what they mean with the "
            "option nan (--nan zero or --nan min)"
        )
    if options.nan == "min" and low is None and missing.all():
        raise UnreadableError("it holds nothing but NaN, so it has no smallest number")
    value = 0.0 if options.nan == "zero" else float(np.nanmin(values)) if low is None else low
    filled = np.where(missing, np.asarray(value, values.dtype), values)
    return filled, [step("nan", pixels=int(missing.sum()), value=value, policy=options.nan)]


def to_float(
    values: NDArray[Any], options: ReadOptions, *, colour: bool, bits: int | None = None
) -> tuple[NDArray[np.float32], list[Step]]:
    """Numbers of any type to [0, 1], where nothing but their type says what they mean.

    Unsigned integers of up to 16 bits are divided by the largest storable value; other integers need a window; floats
    in [0, 1] are taken as they are, others need a window. 8-bit and colour images never use the window.

    Raises:
        UnreadableError: values that have no defined place in [0, 1].
    """
    what = "colour" if colour else "grey"
    bits = bits or values.dtype.itemsize * 8
    if values.dtype.kind == "b" or (values.dtype.kind == "u" and bits == 1):
        return values.astype(np.float32), [step("bits")]
    if values.dtype.kind == "u" and bits <= 16 and (colour or bits <= 8 or options.window is None):
        top = 2**bits - 1
        pixels = (values.astype(np.float32) / np.float32(top)).clip(0, 1)
        return pixels, [step("divided", what=f"{bits}-bit {what}", top=top)]
    if values.dtype.kind not in "iuf":
        raise UnreadableError(f"its values are {values.dtype} numbers, which are no intensities")
    values, notes = replace_nan(values, options)
    if options.window is not None and not colour:
        pixels, placed = apply_window(values, options.window)
        return pixels, [*notes, placed]
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return values.astype(np.float32), [*notes, step("unit")]
    kind = "floating-point values" if values.dtype.kind == "f" else "integers of more than 16 bits or with a sign"
    remedy = "scale the colours to [0, 1]" if colour else "give a window (centre, width) to place them"
    raise UnreadableError(f"it holds {kind} from {low:g} to {high:g} without a stated range; {remedy}")


def to_unit(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] linearly to [0, 1] and clip, in float64, rounded to float32 once at the end."""
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def apply_window(values: NDArray[np.generic], window: tuple[float, float]) -> tuple[NDArray[np.float32], Step]:
    """The window a person asked for: centre +- width/2 becomes 0 to 1, clipped."""
    centre, width = window
    pixels = to_unit(values, centre - width / 2, centre + width / 2)
    return pixels, step("window", centre=centre, width=width)
