"""How long a run will take: a few of its images are certified for real, and the rest follows from what they showed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import betaincinv

from certimed.budgets import Budget, Fixed, as_budget, expected
from certimed.certificates import ClassCertificate
from certimed.errors import ImageError, InputError
from certimed.runs.job import Job
from certimed.runs.record import FAILED, Record
from certimed.runs.targets import MaskTarget
from certimed.targets import Pixels

PILOT_IMAGES = 8
PILOT_SAMPLES = 200
"""Estimation samples of a classification pilot: enough to tell what an adaptive budget will spend on the image."""
PILOT_MASKS = 24
"""The same of masks under a fixed number, which is known beforehand."""
PILOT_SHARE = 0.1
"""A pilot stops once it has taken this share of the time it forecasts."""
_POINTS = 8  # of the distribution of an image's unknown probability


@dataclass(frozen=True)
class Pilot:
    """What one image of a pilot cost.

    Attributes:
        seconds: all in all: reading, preparing, sampling, statistics.
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


def forecast(job: Job) -> Forecast:
    """Pilot a run: images spread over the data set, of classes with few samples each.

    The pilot ends once it has taken a tenth of the time it forecasts (one image at least).

    Raises:
        ImageError: none of the images could be certified.
    """
    few = _short(job)
    count, total = min(PILOT_IMAGES, len(job.dataset)), len(job.dataset)
    pilots: list[Pilot] = []
    begin = time.perf_counter()
    for index in (i * total // count for i in range(count)):
        clock = _Clock()
        record = few.record(index, clock)
        if record.status == FAILED:
            continue
        spent = sum(done for done, _ in clock.batches)
        wanted = _copies(job, record, spent)
        pilots.append(Pilot(clock.elapsed(), spent, clock.copy_seconds(), wanted))
        if time.perf_counter() - begin > PILOT_SHARE * Forecast.of(pilots, total).seconds:
            break
    if not pilots:
        raise ImageError(f"none of {count} images of {job.dataset.source} could be certified: {record.reason}")
    return Forecast.of(pilots, total)


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


def _short(job: Job) -> Job:
    """The job with as few samples as show what an image costs: all, where the budget decides on masks as it goes."""
    spec, target = job.spec, job.target
    if not spec.segments:
        return job.under(f"fixed:{min(PILOT_SAMPLES, spec.cap)}")
    if isinstance(spec.target, MaskTarget) and isinstance(target, Pixels) and isinstance(as_budget(spec.budget), Fixed):
        # Nobody sees these certificates: so few prove something at a tau and an alpha that nobody would ask for.
        return job.pilot(f"fixed:{min(PILOT_MASKS, spec.cap)}", replace(target, taus=(0.5,)), alpha=0.5, n0=2)
    return job


def _copies(job: Job, record: Record, spent: int) -> float:
    """Copies an image will cost: each stream as many as its most demanding method."""
    spec, budget = job.spec, as_budget(job.spec.budget)
    if spec.segments:
        streams = len({method.stream for method in job.engine.methods})
        return float(streams * ((spec.n0 or 0) + budget.cap)) if isinstance(budget, Fixed) else float(spent)
    costs: dict[str, float] = {}
    for method in job.engine.methods:
        one: ClassCertificate = record.certificates[method.name]
        own = expected_samples(budget, one.counts[one.prediction], one.n, spec.alpha, spec.sigma)
        costs[method.stream] = max(costs.get(method.stream, 0.0), own)
    return sum((spec.n0 or 0) + cost for cost in costs.values())


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
