"""Means over images with a confidence interval that respects patients and sequences."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from certimed.errors import InputError

INTERVAL_NAMES = ("bootstrap", "t")
_RESAMPLES = 2_000


def with_failed(values: Iterable[float], failed: int) -> NDArray[np.float64]:
    """Values of the images that have a certificate, then a 0 for each image that failed: what every mean is taken of.

    The one rule for denominators: a failed image stays in, as not certified, as wrong, with radius 0, and with Dice,
    IoU, accuracy and share of pixels 0, in best cases too, as it has no answer at all. The published protocols divide
    by all test images.

    Args:
        values: one an image, shares or scores where 0 is the worst; NaN stays.
        failed: number of failed images; 0 leaves failures out.

    Raises:
        InputError: a negative ``failed``.

    >>> with_failed([1, 0.5], 2).mean()
    np.float64(0.375)
    """
    if failed < 0:
        raise InputError(f"failed={failed} is negative; pass the number of failed images")
    return np.concatenate([np.fromiter(values, dtype=np.float64), np.zeros(failed)])


@dataclass(frozen=True)
class MeanInterval:
    """A mean over images and its confidence interval over the population they came from.

    Attributes:
        mean: the mean, NaN without any value.
        low, high: the interval; NaN where fewer than two groups leave it unknown.
        images: values averaged (left-out images not counted).
        groups: independent groups (patients, sequences) among them.
        confidence: level of the interval.
        method: ``"bootstrap"`` or ``"t"``.
    """

    mean: float
    low: float
    high: float
    images: int
    groups: int
    confidence: float
    method: str


def mean_interval(
    values: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    method: str = "bootstrap",
    seed: int = 0,
) -> MeanInterval:
    """Mean of scores in [0, 1] with a confidence interval; images of one group are never treated as independent.

    * ``"bootstrap"``: the mean over images; percentiles of 2 000 resamples of whole *groups* with replacement (cluster
      bootstrap; Efron 1979, Davison and Hinkley 1997, section 3.8). Approximate, too short with few groups.
    * ``"t"``: the mean of the *group means*, so that every patient weighs the same; Student's t interval on them,
      cut to [0, 1]. Exact for normal group means.

    Args:
        values: one score an image; NaN marks an image that is left out.
        groups: the group (patient, sequence) of each image; None: every image is a group of its own.
        confidence: strictly between 0 and 1.
        method: see above.
        seed: of the bootstrap; the global random state is not touched.

    Raises:
        InputError: lengths that differ, an unknown method, a confidence outside (0, 1).

    >>> mean_interval([0.8, 0.9, 1.0], method="t").high
    1.0
    """
    scores = np.asarray(values, dtype=np.float64).ravel()
    if groups is not None and len(groups) != scores.size:
        raise InputError(f"{len(groups)} groups do not fit {scores.size} values; name one group an image")
    if method not in INTERVAL_NAMES:
        raise InputError(f"method={method!r} is unknown; use one of {', '.join(INTERVAL_NAMES)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence} must lie strictly between 0 and 1")
    kept = ~np.isnan(scores)
    labels = [group for group, keep in zip(groups or range(scores.size), kept) if keep]
    scores = scores[kept]
    sums, sizes = _by_group(scores, labels)
    if scores.size == 0:
        mean = low = high = float("nan")
    elif method == "t":
        mean, low, high = _student(sums / sizes, confidence)
    else:
        mean, low, high = float(sums.sum() / sizes.sum()), *_bootstrap(sums, sizes, confidence, seed)
    return MeanInterval(mean, low, high, int(scores.size), int(sums.size), confidence, method)


def _by_group(scores: NDArray[np.float64], labels: Sequence[Hashable]) -> tuple[NDArray[Any], NDArray[Any]]:
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
    return np.bincount(index, weights=scores, minlength=len(numbers)), np.bincount(index, minlength=len(numbers))


def _student(means: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    mean = float(means.mean())
    if means.size < 2:
        return mean, float("nan"), float("nan")
    quantile = float(special.stdtrit(means.size - 1, 0.5 + confidence / 2))
    half = quantile * float(means.std(ddof=1)) / float(np.sqrt(means.size))
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def _bootstrap(
    sums: NDArray[np.float64], sizes: NDArray[np.int64], confidence: float, seed: int
) -> tuple[float, float]:
    if sums.size < 2:
        return float("nan"), float("nan")
    # Multiplicities of the groups in each resample: (resamples, groups) small integers instead of indices and gathers.
    shares = np.full(sums.size, 1 / sums.size)
    drawn = np.random.default_rng(seed).multinomial(sums.size, shares, size=_RESAMPLES)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
