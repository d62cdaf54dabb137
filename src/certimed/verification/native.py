"""Is the radius at native resolution what the recorded preparation allows?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.verification.shapes import GEOMETRY, PLACE, shape_faults

_LUMA = (0.299, 0.587, 0.114)
_RADIUS_SLACK = Fraction(1, 10**9)
_FLOAT = Fraction(1, 10**15)  # what two roundings of a difference may cost
_ROUNDING = 1e-9  # of eigenvalues in float64, relative
_LOOSE = 1e-4  # how far a bound may lie above the norm
_MOST_VALUES, _MOST_ROWS = 1 << 27, 1 << 13  # 1 GiB, and minutes


def native_faults(data: dict[str, Any]) -> Iterator[str]:
    """Every false statement in a certificate's ``native``, most basic first; none if it holds or is absent.

    Checked: that the recorded preparation ends at the certified input, that ``norm`` is not below the largest singular
    value of its matrix, which is built here from the formulas of the interpolation kernels (the engine pushes basis
    vectors through PyTorch instead), and that the native radius is at most ``radius / norm``. A prepared image need not
    lie on the grid of a law, so under such a law the radius first loses what the image's placement says.

    Args:
        data: a certificate whose fields have been checked.
    """
    native = data["native"]
    if native is None:
        return
    faults = list(shape_faults(native["geometry"], GEOMETRY))
    faults = faults or [fault for fault in _geometry_faults(native["geometry"], data) if fault]
    if faults:
        yield from (f"native: {fault}" for fault in faults)
        return
    norm = _norm(native["geometry"])
    if native["norm"] < norm * (1 - _ROUNDING):
        yield f"native: norm={native['norm']!r} is below the norm of the preparation ({norm:.9g})"
    elif native["norm"] > norm * (1 + _LOOSE):
        yield f"native: norm={native['norm']!r} is not the norm of the preparation ({norm:.9g})"
    product, radius = Fraction(native["radius"]) * Fraction(native["norm"]), Fraction(data["claim"]["radius"])
    radius = max(Fraction(0), radius - Fraction(data["placement"]["rounding"]) - Fraction(data["placement"]["slack"]))
    if product > radius:
        yield f"native: radius={native['radius']!r} is more than radius={float(radius)!r} gives, divided by the norm"
    elif product < radius * (1 - _RADIUS_SLACK) - _FLOAT:
        yield f"native: radius={native['radius']!r} is not radius={float(radius)!r} divided by the norm"


def place_faults(place: Any, certificates: list[Any]) -> Iterator[str]:
    """What is false in where a record says that its image lies.

    Checked: that the matrix can be inverted, that there are as many axes as were certified (but for settings, whose
    shape is not that of an image), and that the sides are those of the native image, where a certificate says them.
    """
    faults = list(shape_faults(place, PLACE))
    if faults:
        yield from faults
        return
    if place["affine"][3] != [0, 0, 0, 1] or not np.linalg.det(np.array(place["affine"], float)):
        yield "its affine is no invertible map"
    for one in certificates:
        shape, native = (one.get(name) if isinstance(one, dict) else None for name in ("shape", "native"))
        geometry = native.get("geometry") if isinstance(native, dict) else None
        axes = geometry.get("axes") if isinstance(geometry, dict) else None
        of_settings = isinstance(one, dict) and one.get("space") == "settings"
        if isinstance(shape, list) and not of_settings and len(shape) - 1 != len(place["shape"]):
            yield f"it has {len(place['shape'])} axes, its certificate {len(shape) - 1}"
        elif isinstance(axes, list) and [axis[0] for axis in axes if isinstance(axis, list)] != place["shape"]:
            yield f"its shape {place['shape']} is not that of the certificate's native image"


def _geometry_faults(geometry: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    if data["space"] == "native":
        yield "a certificate whose space is native has no other native radius"
    wanted = {"repeat": 1, "luma": 3}.get(geometry["channels"], geometry["depth"])
    if geometry["depth"] != wanted:
        yield f"channels {geometry['channels']!r} do not belong to an image of {geometry['depth']}"
    made = [{"same": geometry["depth"], "repeat": 3}.get(geometry["channels"], 1)]
    for native, first, second, resized, left, right in geometry["axes"]:
        if min(native, resized, resized + min(0, left) + min(0, right)) < 1 or min(first, second) < 0:
            yield "an axis of its geometry is impossible"
        padded = native + first + second
        if padded != resized and (padded * resized > _MOST_VALUES or min(padded, resized) > _MOST_ROWS):
            yield f"a resize from {padded} to {resized} pixels is too large to be checked"
        made.append(resized + left + right)
    if made != data["shape"]:
        yield f"its geometry makes images of {made}, not of {data['shape']}"
    resized = any(axis[0] + axis[1] + axis[2] != axis[3] for axis in geometry["axes"])
    if resized and len(geometry["axes"]) != 2 and (len(geometry["axes"]) != 3 or geometry["kernel"] != "bilinear"):
        yield "its geometry resizes something that is no plane, and no volume linearly"


def _norm(geometry: dict[str, Any]) -> float:
    channels = {"repeat": math.sqrt(3), "luma": math.hypot(*_LUMA), "mean": 1 / math.sqrt(geometry["depth"])}
    return math.prod(
        (_axis_norm(tuple(axis), geometry["kernel"]) for axis in geometry["axes"]),
        start=channels.get(geometry["channels"], 1.0),
    )


@lru_cache(maxsize=4096)
def _axis_norm(axis: tuple[int, ...], kernel: str) -> float:
    native, first, second, resized, left, right = axis
    padded = native + first + second
    if padded == resized:
        return 1.0
    matrix = _resize(padded, resized, kernel)[max(0, -left) : resized - max(0, -right), first : first + native]
    gram = matrix @ matrix.T if len(matrix) <= native else matrix.T @ matrix
    return math.sqrt(max(0.0, float(np.linalg.eigvalsh(gram)[-1])))


def _resize(padded: int, resized: int, kernel: str) -> NDArray[np.float64]:
    """Antialiased interpolation ``(resized, padded)``: a kernel stretched by the scale, cut at the edge, normalised."""
    scale = padded / resized
    stretch = max(scale, 1.0)
    support = (2.0 if kernel == "bicubic" else 1.0) * stretch
    matrix = np.zeros((resized, padded))
    for row in range(resized):
        centre = scale * (row + 0.5)
        low, high = max(0, int(centre - support + 0.5)), min(padded, int(centre + support + 0.5))
        weights = _kernel((np.arange(low, high, dtype=np.float64) - centre + 0.5) / stretch, kernel)
        matrix[row, low:high] = weights / weights.sum()
    return matrix


def _kernel(x: NDArray[np.float64], kernel: str) -> NDArray[np.float64]:
    x = np.abs(x)
    if kernel == "bilinear":
        return np.maximum(0.0, 1 - x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
