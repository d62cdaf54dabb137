"""How long a run will take: a few of its images are certified for real, and the rest follows from what they showed."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.special import betaincinv

from certimed.budgets import Budget, Fixed, as_budget, expected
from certimed.cli import classify, segment
from certimed.data import Dataset
from certimed.errors import ImageError, InputError
from certimed.runs import FAILED, MaskRecord, MaskSettings, Record, RunFolder, data_section
from certimed.runs.classification import certify_one
from certimed.runs.records import ClassRecord
from certimed.runs.segmentation import certify_mask

PILOT_IMAGES = 8
PILOT_SAMPLES = 200
"""Estimation samples of a classification pilot: enough to tell what an adaptive budget will spend on the image."""
PILOT_SECONDS = 60.0
_POINTS = 8  # of the distribution of an image's unknown probability


@dataclass(frozen=True)
class Pilot:
    """What one image of a pilot cost.

    Attributes:
        seconds: all in all: reading, preparing, sampling, statistics, writing.
        copies: noisy copies that were embedded or segmented.
        copy_seconds: for one of them, median over full batches.
        expected_copies: what the image will cost under the run's own budget.
    """

    seconds: float
    copies: int
    copy_seconds: float
    expected_copies: float

    @property
    def overhead(self) -> float:
        """Seconds beside the copies."""
        return max(0.0, self.seconds - self.copies * self.copy_seconds)


@dataclass(frozen=True)
class Forecast:
    """Time of a run, from its pilot.

    Attributes:
        images: of the run.
        copy_seconds, overhead: medians over the pilot.
        copies: mean over the pilot: a few images that cost much more than the others count in full.
        piloted: images of the pilot.
    """

    images: int
    copy_seconds: float
    overhead: float
    copies: float
    piloted: int

    @property
    def seconds(self) -> float:
        """Of the whole run in one process, without loading the model."""
        return self.images * (self.overhead + self.copies * self.copy_seconds)

    @classmethod
    def of(cls, pilots: Sequence[Pilot], images: int) -> Forecast:
        """Put a pilot together; the first image, which also warms caches up, is left out where there are others."""
        counted = pilots[1:] or pilots
        return cls(
            images,
            statistics.median(one.copy_seconds for one in counted),
            statistics.median(one.overhead for one in counted),
            statistics.fmean(one.expected_copies for one in pilots),
            len(pilots),
        )


def expected_samples(budget: Budget, agreeing: int, n: int, alpha: float, sigma: float) -> float:
    """Mean estimation samples of an image of which ``agreeing`` of ``n`` pilot samples gave the selected class.

    Exact for a known probability, averaged over its posterior under Jeffreys' prior. A forecast: no certificate depends
    on it. Budgets without such a forecast count with their cap.
    """
    if isinstance(budget, Fixed):
        return float(budget.cap)
    points = [betaincinv(agreeing + 0.5, n - agreeing + 0.5, (i + 0.5) / _POINTS) for i in range(_POINTS)]
    try:
        return statistics.fmean(expected(budget, min(float(p), 1 - 1e-9), alpha, sigma).samples for p in points)
    except InputError:
        return float(budget.cap)


def classification(job: classify.Job, settings: classify.Settings) -> Forecast:
    """Pilot a classification run: every image with few samples, its own number of them forecast from the counts."""
    comparison = job.comparison(settings.sigma, settings.space, settings.acceleration)
    if isinstance(settings.batch_size, str):
        settings = replace(settings, batch_size=classify.probe(job, comparison))
    few = replace(settings, budget=f"fixed:{min(PILOT_SAMPLES, settings.cap)}")
    streams: dict[str, list[str]] = {}
    for method in comparison.methods:
        streams.setdefault(method.stream, []).append(method.name)

    def certify(index: int, count: Callable[[int], None]) -> Record:
        return certify_one(job.dataset, index, lambda image: classify.certify_image(job, comparison, few, image, count))

    def copies(record: Record) -> float:
        assert isinstance(record, ClassRecord)
        budget, found = as_budget(settings.budget), record.certificates
        costs = {
            name: expected_samples(budget, one.counts[one.prediction], one.n, settings.alpha, settings.sigma)
            for name, one in found.items()
        }
        return sum(settings.n0 + max(costs[name] for name in names) for names in streams.values())

    return _piloted(job.dataset, certify, copies)


def segmentation(job: segment.Job, settings: MaskSettings) -> Forecast:
    """Pilot a segmentation run: images certified as the run will do it."""
    if isinstance(settings.batch_size, str):
        settings = replace(settings, batch_size=segment.mask_certifier(job, settings).probe(job.dataset.load(0)))
    certifier = segment.mask_certifier(job, settings)

    def certify(index: int, count: Callable[[int], None]) -> Record:
        certifier.progress = count
        return certify_mask(job.dataset, index, certifier)

    return _piloted(job.dataset, certify, None)


def _piloted(
    dataset: Dataset,
    certify: Callable[[int, Callable[[int], None]], Record],
    copies: Callable[[Record], float] | None,
) -> Forecast:
    """Certify images spread over the data set into a folder that is thrown away, within the pilot's time."""
    count = min(PILOT_IMAGES, len(dataset))
    pilots: list[Pilot] = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="certimed-plan-") as place:
        folder = RunFolder.create(Path(place) / "run", {"task": "plan", "data": data_section(dataset)})
        with folder:
            for index in (i * len(dataset) // count for i in range(count)):
                clock = _Clock()
                record = certify(index, clock)
                if isinstance(record, MaskRecord):
                    record.write_arrays(folder.path)
                folder.append(record)
                seconds = clock.elapsed()
                if record.status == FAILED:
                    continue
                spent = sum(done for done, _ in clock.batches)
                wanted = float(spent) if copies is None else copies(record)
                pilots.append(Pilot(seconds, spent, clock.copy_seconds(), wanted))
                if time.perf_counter() - begin > PILOT_SECONDS:
                    break
    if not pilots:
        raise ImageError(f"none of {count} images of {dataset.source} could be certified, so there is nothing to time")
    return Forecast.of(pilots, len(dataset))


class _Clock:
    """Counts copies as an engine's progress does, and times the batches."""

    def __init__(self) -> None:
        self.begin = self.last = time.perf_counter()
        self.batches: list[tuple[int, float]] = []

    def __call__(self, done: int) -> None:
        now = time.perf_counter()
        self.batches.append((done, now - self.last))
        self.last = now

    def elapsed(self) -> float:
        return time.perf_counter() - self.begin

    def copy_seconds(self) -> float:
        """Seconds a copy, by the largest batches; the first batch also bears what came before it."""
        largest = max(done for done, _ in self.batches)
        times = [seconds / done for done, seconds in self.batches[1:] or self.batches if done == largest]
        return statistics.median(times or [seconds / done for done, seconds in self.batches])
