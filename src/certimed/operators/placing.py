"""Where a prepared pixel lies in the native image: the same geometry, as a matrix of indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certimed.operators.geometry import Geometry

_SPACE = 3


def index_map(geometry: Geometry) -> NDArray[np.float64]:
    """``(4, 4)``: takes the index of a pixel of the model's input to the (fractional) index of a native pixel.

    Pixel ``i`` of an axis lies at ``(i - after + 1/2) * padded / resized - 1/2 - before``: pixels are areas, and a
    resize keeps the edges of the padded image. Axes that are not there stay as they are.

    >>> from certimed.operators.geometry import SAME, Axis
    >>> halved = Geometry(SAME, 1, (Axis(8, (0, 0), 4, (0, 0)), Axis(8, (0, 0), 4, (-1, -1))))
    >>> (index_map(halved) @ [0, 0, 0, 1]).tolist()
    [0.5, 2.5, 0.0, 1.0]
    """
    change = np.eye(4)
    for place, axis in enumerate(geometry.axes[:_SPACE]):
        scale = axis.padded / axis.resized
        change[place, place] = scale
        change[place, 3] = (0.5 - axis.after[0]) * scale - 0.5 - axis.before[0]
    return change
