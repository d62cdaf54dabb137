"""Linear maps from native images to a model's input: described, applied, and their norm bounded with a proof."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from certimed.operators.geometry import LUMA, MEAN, REPEAT, SAME, Axis, Geometry, native_radius, unchanged

if TYPE_CHECKING:
    from certimed.operators.linear import LUMA_WEIGHTS, Prepare, apply
    from certimed.operators.norm import axis_matrix, matrix_norm_bound, norm_bound

__all__ = [
    "LUMA",
    "LUMA_WEIGHTS",
    "MEAN",
    "REPEAT",
    "SAME",
    "Axis",
    "Geometry",
    "Prepare",
    "apply",
    "axis_matrix",
    "matrix_norm_bound",
    "native_radius",
    "norm_bound",
    "unchanged",
]

# Certificates read geometries without torch; what runs on tensors loads on first use.
_HOMES = {
    "LUMA_WEIGHTS": "linear",
    "Prepare": "linear",
    "apply": "linear",
    "axis_matrix": "norm",
    "matrix_norm_bound": "norm",
    "norm_bound": "norm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'certimed.operators' has no attribute {name!r}")
    return getattr(importlib.import_module(f"certimed.operators.{_HOMES[name]}"), name)
