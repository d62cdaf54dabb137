"""Which linear map takes a native image to the model's input: plain numbers, as recorded on certificates.

Preparing an image is separable: channels are mixed, then each spatial axis is padded with zeros, resized, and padded or
cropped, independently of the others. The norm of such a map is the product of the norms of its parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from certimed.errors import InputError

SAME = "same"
REPEAT = "repeat"
LUMA = "luma"
MEAN = "mean"
CHANNELS = {
    SAME: "channels as they are",
    REPEAT: "one channel repeated to three",
    LUMA: "three channels to their luma (ITU-R 601)",
    MEAN: "channels to their mean",
}
KERNELS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Axis:
    """One spatial axis: ``native`` pixels, zeros ``before`` the resize, ``resized`` pixels, then a margin ``after``.

    Attributes:
        native: pixels of the native image.
        before: zeros added at both ends before the resize, not negative.
        resized: pixels after the resize; equal to ``native + sum(before)`` where nothing is resized.
        after: zeros added at both ends after it; negative where pixels are cropped.
    """

    native: int
    before: tuple[int, int]
    resized: int
    after: tuple[int, int]

    @property
    def padded(self) -> int:
        """Pixels that go into the resize."""
        return self.native + sum(self.before)

    @property
    def size(self) -> int:
        """Pixels of the model's input."""
        return self.resized + sum(self.after)


def unchanged(length: int) -> Axis:
    """An axis left as it is."""
    return Axis(length, (0, 0), length, (0, 0))


@dataclass(frozen=True)
class Geometry:
    """The linear map from a native image to a model's input.

    Attributes:
        channels: how channels are mixed: ``"same"``, ``"repeat"`` (1 to 3), ``"luma"`` (3 to 1) or ``"mean"`` (to 1).
        depth: channels of the native image.
        axes: one a spatial axis.
        kernel: ``"bilinear"`` (linear along each axis, also of a volume) or ``"bicubic"`` (a = -1/2, of planes),
            antialiased, where an axis is resized.

    Raises:
        InputError: sizes or names no such map has.
    """

    channels: str
    depth: int
    axes: tuple[Axis, ...]
    kernel: str = "bilinear"

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS or self.kernel not in KERNELS:
            raise InputError(f"channels {self.channels!r:.40} or kernel {self.kernel!r:.40} of a resize is unknown")
        wanted = {REPEAT: 1, LUMA: 3}.get(self.channels, self.depth)
        if self.depth < 1 or self.depth != wanted:
            raise InputError(f"channels {self.channels!r} do not belong to an image of {self.depth}")
        for axis in self.axes:
            kept = axis.resized + sum(min(0, margin) for margin in axis.after)
            if min(axis.native, axis.resized, axis.size, kept) < 1 or min(axis.before) < 0:
                raise InputError(f"{axis} describes no resize")
        many = {"bilinear": (2, 3), "bicubic": (2,)}[self.kernel]
        if not self.axes or (self.resizes and len(self.axes) not in many):
            raise InputError(f"a {self.kernel} resize has {' or '.join(map(str, many))} axes, not {len(self.axes)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, *space)`` of the native image."""
        return (self.depth, *(axis.native for axis in self.axes))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, *space)`` of the model's input."""
        depth = {SAME: self.depth, REPEAT: 3, LUMA: 1, MEAN: 1}[self.channels]
        return (depth, *(axis.size for axis in self.axes))

    @property
    def resizes(self) -> bool:
        """Whether pixels are interpolated at all."""
        return any(axis.resized != axis.padded for axis in self.axes)

    def describe(self) -> str:
        """In words, e.g. ``"3x512x512 to 3x224x224, bicubic with antialiasing"``."""
        sizes = ["x".join(map(str, shape)) for shape in (self.shape, self.input_shape)]
        words = [f"{sizes[0]} to {sizes[1]}" if sizes[0] != sizes[1] else f"{sizes[0]} as it is"]
        words += [f"{self.kernel} with antialiasing"] if self.resizes else []
        words += [CHANNELS[self.channels]] if self.channels != SAME else []
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; each axis as ``[native, before, before, resized, after, after]``."""
        axes = [[axis.native, *axis.before, axis.resized, *axis.after] for axis in self.axes]
        return {"channels": self.channels, "depth": self.depth, "axes": axes, "kernel": self.kernel}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Geometry:
        """Inverse of :meth:`to_dict`; raises InputError where the fields are not those."""
        try:
            numbers = [[_whole(one) for one in axis] for axis in data["axes"]]
            axes = tuple(Axis(n, (p, q), r, (s, t)) for n, p, q, r, s, t in numbers)
            return cls(str(data["channels"]), _whole(data["depth"]), axes, str(data["kernel"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the geometry of a certificate does not have the documented fields: {error}") from error


def native_radius(radius: float, bound: float) -> float:
    """The radius at native resolution that a radius at the model's input implies: ``radius / bound``, rounded down.

    ``||d|| < radius / ||A||`` implies ``||A d|| < radius``: the perturbed native image arrives inside the ball.
    """
    return max(0.0, math.nextafter(radius / bound, 0.0)) if radius > 0 and bound != 1 else radius


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no whole number")
    return value
