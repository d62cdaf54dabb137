"""Choosing images by a stated rule that depends on nothing but their ids and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from certimed.data.dataset import Dataset
from certimed.errors import InputError


def class_balanced(dataset: Dataset, n: int, seed: int = 0) -> Dataset:
    """At most ``n`` images, as evenly over the classes as they allow.

    Rule: within each class, images are ranked by SHA-256 of seed and id; classes take turns in index order, each
    giving its next image, until n are taken or none is left. The choice does not depend on the order of the data
    set, and the choice for n is part of the choice for n + 1. Unlabelled images form one class. The result keeps the
    data set's order.

    Raises:
        InputError: n < 1.
    """
    if n < 1:
        raise InputError(f"n={n} is not usable: choose at least one image")
    queues = _ranked(dataset, seed, "class-balanced", range(len(dataset)))
    longest = max((len(queue) for queue in queues.values()), default=0)
    turns = [queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue)]
    return dataset.subset(sorted(turns[:n]))


def few_shot_indices(dataset: Dataset, shots: int, seed: int = 0, *, exclude: Collection[str] = ()) -> list[int]:
    """Indices of ``shots`` training images of every class, sorted.

    Rule: within each class, the first ``shots`` by SHA-256 of seed and id. Images whose id is in ``exclude`` (the
    test images) are left out, and so is every image of the same group (patient, sequence) as one of them.

    Raises:
        InputError: shots < 1, unlabelled images, or a class with too few images.
    """
    if shots < 1:
        raise InputError(f"shots={shots} is not usable: choose at least one image a class")
    if not dataset.is_labelled:
        raise InputError(f"few-shot training needs labels and {dataset.source} has images without")
    banned = set(exclude)
    groups = {item.group for item in dataset.items if item.id in banned and item.group is not None}
    allowed = [i for i, item in enumerate(dataset.items) if item.id not in banned and item.group not in groups]
    queues = _ranked(dataset, seed, "few-shot", allowed)
    labels = {item.label for item in dataset.items if item.label is not None}
    names = dataset.class_names
    for label in range(len(names)) if names else sorted(labels):
        found = len(queues.get(label, []))
        if found < shots:
            raise InputError(
                f"shots={shots} needs as many images of every class and {dataset.source} has {found} of "
                f"{names[label] if names else label}{' left beside the test images' if banned else ''}"
            )
    return sorted(index for queue in queues.values() for index in queue[:shots])


def _ranked(dataset: Dataset, seed: int, purpose: str, indices: Collection[int]) -> dict[int, list[int]]:
    """Indices by class (classes in index order, unlabelled as -1), each list in the order of its hashes."""
    queues: dict[int, list[int]] = {}
    for index in indices:
        label = dataset.items[index].label
        queues.setdefault(-1 if label is None else label, []).append(index)

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{purpose}\0{seed}\0{dataset.items[index].id}".encode()).digest()

    return {label: sorted(queues[label], key=rank) for label in sorted(queues)}
