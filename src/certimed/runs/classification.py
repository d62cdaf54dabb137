"""Certify a data set image by image into a run folder; one bad image never ends a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from certimed.certificates import ClassCertificate
from certimed.data import Dataset, MedicalImage
from certimed.errors import ImageError, ModelError
from certimed.runs.folder import RunFolder
from certimed.runs.records import CERTIFIED, FAILED, ClassRecord


class Certifier(Protocol):
    """What a classification run needs: clean predictions and certificates of one image, by method."""

    def __call__(self, image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        """Clean predictions and certificates by method name."""


def certify_dataset(
    dataset: Dataset, certifier: Certifier, folder: RunFolder, *, announce: Callable[[str], None] | None = None
) -> Iterator[ClassRecord]:
    """Certify every image of a data set, appending a record to the folder before the next image starts.

    An image that cannot be read, or on which the model breaks its contract, becomes a failed record with the reason.

    Args:
        announce: called with the id of each image before work on it begins.

    Yields:
        the records, as they are written.
    """
    for index, item in enumerate(dataset.ids):
        if announce is not None:
            announce(item)
        record = _certify_one(dataset, index, item, certifier)
        folder.append(record)
        yield record


def _certify_one(dataset: Dataset, index: int, item: str, certifier: Certifier) -> ClassRecord:
    begin = time.perf_counter()
    try:
        image = dataset.load(index)
        clean, certificates = certifier(image)
    except (ImageError, ModelError) as error:
        return ClassRecord(item, FAILED, reason=str(error), seconds=time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return ClassRecord(item, CERTIFIED, image.label, None, seconds, clean, certificates)
