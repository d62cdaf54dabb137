"""Certify a data set image by image into a run folder; one bad image never ends a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from certimed.certificates import ClassCertificate
from certimed.data import Dataset, MedicalImage
from certimed.errors import ImageError, ModelError
from certimed.executors import Executor, Lost, Work
from certimed.runs.folder import RunFolder
from certimed.runs.mask_records import MaskRecord
from certimed.runs.records import CERTIFIED, FAILED, ClassRecord, Record

C = TypeVar("C")
R = TypeVar("R", bound=Record)


class Certifier(Protocol):
    """What a classification run needs: clean predictions and certificates of one image, by method."""

    def __call__(self, image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        """Clean predictions and certificates by method name."""


def remaining(dataset: Dataset, folder: RunFolder, *, retry_failed: bool = False) -> list[int]:
    """Positions of the images that still need work, in the order of the data set.

    Args:
        dataset: the data set of this folder (of its shard, if it holds one).
        folder: the run.
        retry_failed: take images that failed before as unfinished.
    """
    done = folder.finished(retry_failed=retry_failed)
    return [index for index, item in enumerate(dataset.ids) if item not in done]


def certify_dataset(
    dataset: Dataset,
    certifier: Certifier,
    folder: RunFolder,
    *,
    retry_failed: bool = False,
    announce: Callable[[str], None] | None = None,
) -> Iterator[ClassRecord]:
    """Certify the unfinished images of a data set, appending a record to the folder before the next image starts.

    An image that cannot be read, or on which the model breaks its contract, becomes a failed record with the reason.

    Args:
        retry_failed: do images that failed before again.
        announce: called with the id of each image before work on it begins.

    Yields:
        the new records, as they are written.
    """
    for index in remaining(dataset, folder, retry_failed=retry_failed):
        if announce is not None:
            announce(dataset.items[index].id)
        record = certify_one(dataset, index, certifier)
        folder.append(record)
        yield record


def lost_image(item: str, reason: str) -> ClassRecord:
    """The failed record of an image whose worker ended every time it was tried."""
    return ClassRecord(item, FAILED, reason=reason)


def certify_with(
    executor: Executor,
    work: Work[str, R],
    dataset: Dataset,
    folder: RunFolder,
    *,
    retry_failed: bool = False,
    lost: Callable[[str, str], Record] = lost_image,
) -> Iterator[R | Record]:
    """As :func:`certify_dataset`, the images computed by an executor's workers and written here, as they come.

    Args:
        executor: see :mod:`certimed.executors`.
        work: started once in every worker; turns an item's id into its record: :class:`ClassificationWork`, or
            :class:`certimed.runs.MaskWork` for masks.
        dataset: used for its ids only.
        lost: makes the failed record of an image whose worker ended every time; ``lost_mask`` for masks.

    Yields:
        the new records in the order of completion. An image that ended its worker every time is a failed record.
    """
    items = [dataset.items[index].id for index in remaining(dataset, folder, retry_failed=retry_failed)]
    for item, result in executor.run(work, items):
        record = lost(item, result.reason) if isinstance(result, Lost) else result
        if isinstance(record, MaskRecord):
            record.write_arrays(folder.path)
        folder.append(record)
        yield record


class RunWork(Generic[C, R]):
    """What a worker does: build data set and certifier once, then certify items by id.

    Args:
        one: certifies one image: (data set, position, certifier) -> record.
        make: an importable function (not a lambda) that returns the data set and its certifier.
        arguments: its keyword arguments; they travel to the worker, so plain values, not loaded models.
    """

    def __init__(
        self, one: Callable[[Dataset, int, C], R], make: Callable[..., tuple[Dataset, C]], arguments: dict[str, Any]
    ) -> None:
        self.one = one
        self.make = make
        self.arguments = arguments

    def start(self) -> Callable[[str], R]:
        """Load everything; returns the function that certifies one item."""
        dataset, certifier = self.make(**self.arguments)
        position = {item: index for index, item in enumerate(dataset.ids)}
        return lambda item: self.one(dataset, position[item], certifier)


class ClassificationWork(RunWork[Certifier, ClassRecord]):
    """:class:`RunWork` of a classification run: ``ClassificationWork(make, **arguments of make)``."""

    def __init__(self, make: Callable[..., tuple[Dataset, Certifier]], **arguments: Any) -> None:
        super().__init__(certify_one, make, arguments)


def certify_one(dataset: Dataset, index: int, certifier: Certifier) -> ClassRecord:
    """The record of one image; errors of the image or the model become a failed record."""
    item = dataset.items[index].id
    begin = time.perf_counter()
    try:
        image = dataset.load(index)
        clean, certificates = certifier(image)
    except (ImageError, ModelError) as error:
        return ClassRecord(item, FAILED, reason=str(error), seconds=time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return ClassRecord(item, CERTIFIED, image.label, None, seconds, clean, certificates)
