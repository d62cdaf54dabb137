"""Images by content: a prompt is never tuned on an image it will be tested on."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from certimed.data import Dataset, overlap
from certimed.errors import InputError
from certimed.noise import content_id


def content_ids(images: Iterable[Tensor]) -> tuple[str, ...]:
    """Content id of each image, float ``(C, H, W)`` in the certified space."""
    return tuple(content_id(image) for image in images)


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


def refuse_tested(tuning: Dataset, test: Dataset | None) -> None:
    """Refuse to tune on an image of the test set, by the content of its file.

    Raises:
        InputError: says how many images are in both, and names the first.
    """
    if test is not None and (shared := overlap(tuning, test)):
        raise InputError(
            f"{len(shared)} images are both tuned on and certified (the first is {shared[0][0]} of {tuning.source} "
            f"and {shared[0][1]} of {test.source}); take them out of one of the two"
        )
