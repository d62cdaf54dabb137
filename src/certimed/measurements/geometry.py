"""The functions themselves: ``(scene, groups of classes) -> float``; NaN where a number is not defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from certimed.measurements.scene import Scene, within

Groups = Sequence[Sequence[int]]


def size(scene: Scene, groups: Groups) -> float:
    """Area (of a plane) or volume of the classes; 0 where there is none."""
    return scene.pixels(groups[0]) * scene.pixel


def count(scene: Scene, groups: Groups) -> float:
    """Connected components of the classes, pixels that touch at a corner counting as connected."""
    return float(_components(scene.inside(groups[0]))[1])


def diameter(scene: Scene, groups: Groups) -> float:
    """Largest distance between two points of one connected component, its pixels' corners included; undefined if empty.

    It is attained at two corners of the convex hull, and the hull is that of the ends of all rows. Components are tried
    from the largest box on, until no later box has room for more than what was found.
    """
    inside = scene.inside(groups[0])
    labels, _ = _components(inside)
    steps = np.asarray(scene.steps)
    boxes = [(box, place) for place, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    rooms = [float(np.linalg.norm([(s.stop - s.start) * step for s, step in zip(box, steps)])) for box, _ in boxes]
    longest = math.nan
    for index in np.argsort(rooms)[::-1]:
        if rooms[index] <= longest:
            break
        box, place = boxes[index]
        points = _corners(labels[box] == place) * steps
        hull = points[ConvexHull(points).vertices] if points.shape[1] > 1 else points
        longest = max(float(pdist(hull).max()), 0.0 if math.isnan(longest) else longest)
    return longest


def ratio_of_widths(scene: Scene, groups: Groups) -> float:
    """Extent of the first classes along the last axis over that of the second; undefined where either is empty."""
    inner, outer = (_width(scene.inside(group)) for group in groups)
    return inner / outer if inner and outer else math.nan


def centroid(axis: int) -> Any:
    """Mean position along an axis, counted from the end (-1: columns), from the first pixel's centre; NaN if empty."""

    def position(scene: Scene, groups: Groups) -> float:
        inside = scene.inside(groups[0])
        if -axis > inside.ndim:
            return math.nan
        weights = inside.sum(axis=tuple(other for other in range(inside.ndim) if other != inside.ndim + axis))
        total = int(weights.sum())
        return float(weights @ np.arange(len(weights))) / total * scene.steps[axis] if total else math.nan

    return position


def mean_intensity(scene: Scene, groups: Groups) -> float:
    """Mean of the noisy image (all channels) inside the classes; undefined where there is none."""
    assert scene.image is not None
    inside = scene.inside(groups[0])
    return float(scene.image[:, inside].mean(dtype=np.float64)) if inside.any() else math.nan


def dice(scene: Scene, groups: Groups) -> float:
    """2 |A and T| / (|A| + |T|) of the classes against the truth; undefined where both are empty."""
    both, answer, truth = _overlap(scene, groups)
    return 2 * both / (answer + truth) if answer + truth else math.nan


def iou(scene: Scene, groups: Groups) -> float:
    """|A and T| / |A or T| of the classes against the truth; undefined where both are empty."""
    both, answer, truth = _overlap(scene, groups)
    return both / (answer + truth - both) if answer + truth else math.nan


def _overlap(scene: Scene, groups: Groups) -> tuple[int, int, int]:
    assert scene.truth is not None
    answer, truth = scene.inside(groups[0]), within(scene.truth, groups[0])
    return int(np.count_nonzero(answer & truth)), int(np.count_nonzero(answer)), int(np.count_nonzero(truth))


def _components(inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    labels, found = ndimage.label(inside, structure=np.ones((3,) * inside.ndim, dtype=bool))
    return labels, int(found)


def _width(inside: NDArray[np.bool_]) -> int:
    columns = np.flatnonzero(inside.any(axis=tuple(range(inside.ndim - 1))))
    return int(columns[-1] - columns[0] + 1) if columns.size else 0


def _corners(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Corners of the first and last pixel of every row: all that a convex hull needs."""
    rows = np.argwhere(inside.any(axis=-1))
    lines = inside[tuple(rows.T)]
    first, last = lines.argmax(axis=1), lines.shape[1] - lines[:, ::-1].argmax(axis=1)
    shifts = [np.asarray(shift, dtype=np.int64) for shift in product((0, 1), repeat=rows.shape[1])]
    ends = [np.column_stack([rows + shift, column]) for shift in shifts for column in (first, last)]
    return np.concatenate(ends).astype(np.float64)
