"""Numbers in narrower types, rounded outwards: a file never claims more than was proved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import shown
from certimed.certificates.rounding import Side

_DECIMAL_STRING = 16


def radii_as_float32(radii: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 of the same shape, none above its float64."""
    narrow = radii.astype(np.float32)
    below: NDArray[Any] = np.nextafter(narrow, np.float32(-np.inf))
    return np.where(narrow > radii, below, narrow)


def decimal_string(value: float, side: Side) -> float:
    """The nearest number on a side that a DICOM decimal string holds (16 characters): never inside of ``value``.

    >>> decimal_string(1 / 3, "lower"), decimal_string(1 / 3, "upper"), decimal_string(0.25, "lower")
    (0.33333333333333, 0.33333333333334, 0.25)
    """
    for digits in range(15, 0, -1):
        found = float(shown(value, side, digits=digits))
        if len(repr(found)) <= _DECIMAL_STRING:
            return found
    raise AssertionError("one digit and an exponent fit")
