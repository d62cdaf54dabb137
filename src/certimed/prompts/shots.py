"""Which labelled images a prompt learns from: class-balanced, seeded, and never a test image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from certimed.errors import InputError
from certimed.noise import item_id


def draw_shots(
    labels: ArrayLike, shots: int, seed: int, *, class_names: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Indices of ``shots`` images of every class, drawn without replacement.

    The draw of one class depends on the seed and that class alone, and the first 4 of 16 shots are the 4 shots of the
    same seed, so ablations over the number of shots are nested.

    Args:
        labels: int ``(N,)``, classes 0 .. K-1.
        shots: images per class.
        seed: any integer >= 0.
        class_names: K names; default: as many classes as the largest label says.

    Returns:
        int64 ``(K * shots,)``, sorted.

    Raises:
        InputError: labels that are no class indices, or a class with too few images (named).
    """
    values = np.asarray(labels)
    if values.ndim != 1 or values.size == 0 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"labels must be a list of whole numbers, not {values.dtype} of shape {values.shape}")
    classes = int(values.max()) + 1 if class_names is None else len(class_names)
    if values.min() < 0 or values.max() >= classes:
        raise InputError(f"labels run from {values.min()} to {values.max()} but there are {classes} classes")
    if shots < 1 or seed < 0:
        raise InputError(f"shots={shots}, seed={seed}: use at least 1 shot per class and a seed that is not negative")
    drawn = []
    for label in range(classes):
        members = np.flatnonzero(values == label)
        if len(members) < shots:
            name = f"class {label}" if class_names is None else f"class {class_names[label]!r}"
            raise InputError(f"{name} has {len(members)} images, too few for {shots} shots; use at most that many")
        drawn.append(np.random.default_rng([seed, label]).permutation(members)[:shots])
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def content_ids(images: Iterable[Tensor]) -> tuple[str, ...]:
    """Content id of each image, float ``(C, H, W)`` in the certified space."""
    return tuple(item_id(image) for image in images)


def refuse_overlap(tuning: Iterable[str], test: Iterable[str]) -> None:
    """Refuse to tune on images that will be certified.

    Args:
        tuning, test: content ids, see :func:`content_ids`.

    Raises:
        InputError: says how many images are in both.
    """
    shared = set(tuning).intersection(test)
    if shared:
        raise InputError(
            f"{len(shared)} images are both for tuning and for testing (the first is {min(shared)}); take them out of "
            "one of the two sets"
        )
