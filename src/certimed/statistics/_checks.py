"""Input checks shared by the statistics room: a wrong count must be an error, never a wrong bound."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certimed.errors import InputError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

MAX_SAMPLES = 10**9


def integers(name: str, values: ArrayLike) -> IntArray:
    """``values`` as int64; floats and booleans are refused, because a rounded count is no longer a count."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or (array.size and array.max() > np.iinfo(np.int64).max):
        raise InputError(
            f"{name} must hold integers, but has dtype {array.dtype} ({_show(array)}); convert it to int first"
        )
    return array.astype(np.int64)


def floats(name: str, values: ArrayLike) -> FloatArray:
    """``values`` as float64 without NaN."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a real number or an array of them, but is {values!r}") from None
    if np.isnan(array).any():
        raise InputError(f"{name} holds NaN; pass finite numbers")
    return array


def sample_size(n: ArrayLike, name: str = "n") -> IntArray:
    """Numbers of samples: integers from 1 to one thousand million (the range the rounding margins are tested for)."""
    array = integers(name, n)
    _require(array, (array >= 1) & (array <= MAX_SAMPLES), name, f"lie between 1 and {MAX_SAMPLES}")
    return array


def trials(k: ArrayLike, n: ArrayLike) -> tuple[IntArray, IntArray]:
    """Counts and sample sizes broadcast to one shape, with 0 <= k <= n."""
    counts, sizes = pair(integers("k", k), sample_size(n), "k and n")
    _require(counts, (counts >= 0) & (counts <= sizes), "k", "satisfy 0 <= k <= n")
    return counts, sizes


def open_unit(name: str, values: ArrayLike) -> FloatArray:
    """Numbers strictly between 0 and 1 (a failure probability, a threshold on a probability)."""
    array = floats(name, values)
    _require(array, (array > 0.0) & (array < 1.0), name, "lie strictly between 0 and 1")
    return array


def unit(name: str, values: ArrayLike) -> FloatArray:
    """Numbers from 0 to 1 (a probability, a p-value)."""
    array = floats(name, values)
    _require(array, (array >= 0.0) & (array <= 1.0), name, "lie between 0 and 1")
    return array


def positive(name: str, values: ArrayLike) -> FloatArray:
    """Finite numbers above 0 (a noise level, a radius)."""
    array = floats(name, values)
    _require(array, (array > 0.0) & np.isfinite(array), name, "be finite and above 0")
    return array


def lower_bound(values: ArrayLike, name: str = "p_lower") -> FloatArray:
    """Numbers from 0 to below 1: lower bounds of a probability, as finitely many samples never prove p = 1."""
    array = floats(name, values)
    _require(array, (array >= 0.0) & (array < 1.0), name, f"satisfy 0 <= {name} < 1")
    return array


def scalar_open_unit(name: str, value: float) -> float:
    """One number strictly between 0 and 1."""
    return _scalar(name, open_unit(name, value))


def scalar_positive(name: str, value: float) -> float:
    """One finite number above 0."""
    return _scalar(name, positive(name, value))


def scalar_count(name: str, value: int, minimum: int = 1) -> int:
    """One integer, at least ``minimum``."""
    array = integers(name, value)
    number = int(_scalar(name, array))
    if number < minimum:
        raise InputError(f"{name} must be at least {minimum}, but is {number}")
    return number


def _scalar(name: str, array: FloatArray | IntArray) -> float:
    if array.ndim:
        raise InputError(f"{name} must be a single number, but has shape {array.shape}")
    return array.item()


def pair(first: IntArray, second: IntArray, names: str = "the two counts") -> tuple[IntArray, IntArray]:
    try:
        left, right = np.broadcast_arrays(first, second)
    except ValueError:
        raise InputError(f"{names} do not broadcast together: shapes {first.shape} and {second.shape}") from None
    return left, right


def _require(array: FloatArray | IntArray, ok: NDArray[np.bool_], name: str, rule: str) -> None:
    if not ok.all():
        raise InputError(f"{name} must {rule}, but holds {array[~ok].flat[0]}")


def _show(array: NDArray[np.generic]) -> str:
    return repr(array.flat[0].item()) if array.size else "none"
