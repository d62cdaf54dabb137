"""Draw some images' noise again with the recorded keys, and compare what the model says now with what was counted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.errors import InputError

LEVEL = 1e-6
"""Level of the consistency test of one image and method: a false alarm in a million."""

_MOST_PAIRS = 200

MaskDraw = tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]
"""Candidate classes, and agreement counts with the recorded classes."""

Recount = Callable[[str], Mapping[str, Sequence[int]]]
"""Item id -> counts of all classes by method, drawn anew with the run's seed and settings."""


@dataclass(frozen=True)
class Comparison:
    """Recorded and redrawn counts of one image and method.

    Attributes:
        item, method: which.
        recorded, redrawn: counts by class.
        equal: whether all counts are equal, as they must be on the same kind of device with the same versions.
        p_value: of the consistency test; 1 where equal.
    """

    item: str
    method: str
    recorded: tuple[int, ...]
    redrawn: tuple[int, ...]
    equal: bool
    p_value: float

    @property
    def consistent(self) -> bool:
        """Whether both could come from the same model and noise: p-value above :data:`LEVEL`."""
        return self.p_value > LEVEL


def choose(items: Sequence[str], m: int, salt: str) -> list[str]:
    """``m`` of the items, by SHA-256 of salt and id: the forger of a run cannot foresee a salt drawn later."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{salt}\0{item}".encode(errors="surrogatepass")).digest())
    return ranked[:m]


def compare_counts(item: str, method: str, recorded: Sequence[int], redrawn: Sequence[int]) -> Comparison:
    """Test whether two counts are of one model, whatever the device.

    With the same noise, model, kind of device and versions all counts are equal. Elsewhere noise or rounding differ,
    and equality is not to be had. The test then: for each of the K classes, Fisher's exact test of "the class has the
    same probability in both", two-sided (twice the smaller tail), times K (Bonferroni); the smallest is the p-value. It
    can show that counts do not belong together; it cannot show that they do, and small forgeries pass it: at n = 10 000
    a share may be off by about 0.04 at p = 1/2.

    Raises:
        InputError: different numbers of classes.
    """
    if len(recorded) != len(redrawn):
        raise InputError(f"{item!r:.80} was counted over {len(recorded)} classes and is now over {len(redrawn)}")
    first, second = tuple(int(v) for v in recorded), tuple(int(v) for v in redrawn)
    if first == second:
        return Comparison(item, method, first, second, True, 1.0)
    smallest = min(_fisher(a, sum(first), b, sum(second)) for a, b in zip(first, second))
    return Comparison(item, method, first, second, False, min(1.0, smallest * len(first)))


@dataclass(frozen=True)
class MaskComparison:
    """Recorded and redrawn candidate classes and agreement counts of one image and method.

    Attributes:
        item, method: which.
        pixels: pixels of the mask.
        moved: pixels whose candidate class or agreement count differs.
        equal: whether none does, as it must be on the same kind of device with the same versions.
        p_value: of the consistency test; 1 where equal.
    """

    item: str
    method: str
    pixels: int
    moved: int
    equal: bool
    p_value: float

    @property
    def consistent(self) -> bool:
        """Whether both could come from the same model and noise: p-value above :data:`LEVEL`."""
        return self.p_value > LEVEL


def compare_masks(item: str, method: str, n: int, recorded: MaskDraw, redrawn: MaskDraw) -> MaskComparison:
    """Test whether two draws of one image's mask are of one model, whatever the device.

    Where they are not equal: for each pixel, Fisher's exact test of "the recorded class has the same probability in
    both", two-sided, times the number of pixels (Bonferroni, valid however pixels depend on each other); the smallest
    is the p-value. It can show that counts do not belong together; it cannot show that they do, and small forgeries
    pass it: over 262 144 pixels at n = 100, 97 recorded agreements are false only where at most 57 are found.

    Args:
        n: estimation samples of each draw.
        recorded, redrawn: (candidate classes, samples that agree with the *recorded* class), integers of one shape.

    Raises:
        InputError: arrays of different shapes.
    """
    shapes = {np.shape(array) for array in (*recorded, *redrawn)}
    if len(shapes) != 1:
        raise InputError(f"the recorded mask of {item!r:.80} and the one redrawn have different shapes: {shapes}")
    classes, counts = (np.asarray(array).ravel().astype(np.int64) for array in recorded)
    new_classes, new_counts = (np.asarray(array).ravel().astype(np.int64) for array in redrawn)
    moved = int(np.count_nonzero((classes != new_classes) | (counts != new_counts)))
    if not moved:
        return MaskComparison(item, method, classes.size, 0, True, 1.0)
    pairs = np.unique(np.stack([counts, new_counts]), axis=1)
    total = pairs.sum(axis=0)
    # The test is run where it may reject: at the pairs furthest apart. Leaving out others can only raise the p-value.
    apart = np.abs(pairs[0] - pairs[1]) / np.sqrt(np.maximum(total * (1 - total / (2 * n)), 0.5))
    furthest = pairs[:, np.argsort(-apart, kind="stable")[:_MOST_PAIRS]]
    smallest = min(_fisher(int(a), n, int(b), n) for a, b in furthest.T)
    return MaskComparison(item, method, classes.size, moved, False, min(1.0, smallest * classes.size))


def resample(
    counts: Mapping[str, Mapping[str, Sequence[int]]], recount: Recount, m: int, salt: str
) -> list[Comparison]:
    """Redraw ``m`` images of a run and compare.

    Args:
        counts: recorded counts by item and method, see :func:`recorded_counts`.
        recount: draws an item's estimation samples again, with the seed and settings of the run's manifest.
        m: how many images; all where the run has fewer.
        salt: any text; decides which images, so draw it when you verify.

    Raises:
        InputError: m < 1, or a method that was recorded is not redrawn.
    """
    if m < 1:
        raise InputError(f"--resample {m} redraws nothing; use 1 or more")
    found = []
    for item in choose(sorted(counts), m, salt):
        redrawn = recount(item)
        for method, recorded in counts[item].items():
            if method not in redrawn:
                raise InputError(f"method {method!r:.40} of {item!r:.80} was recorded and is not redrawn")
            found.append(compare_counts(item, method, recorded, redrawn[method]))
    return found


def recorded_counts(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Counts by item and method out of the JSON objects of a classification run's lines."""
    return {
        record["item"]: {name: list(cert["counts"]) for name, cert in record["certificates"].items()}
        for record in records
        if record["status"] == "certified"
    }


def _fisher(a: int, n: int, b: int, m: int) -> float:
    """Two-sided Fisher test of a of n against b of m: twice the smaller hypergeometric tail."""
    return min(1.0, 2.0 * min(_hypergeometric_tail(a, n, b, m), _hypergeometric_tail(n - a, n, m - b, m)))


def _hypergeometric_tail(a: int, n: int, b: int, m: int) -> float:
    """P(X >= a) where X of the a + b successes fall among the first n of n + m draws."""
    successes = a + b
    high = min(n, successes)
    log = _log_binomial(n, a) + _log_binomial(m, b) - _log_binomial(n + m, successes)
    term = total = 1.0
    for x in range(a, high):
        term *= (n - x) * (successes - x) / ((x + 1) * (m - successes + x + 1))
        total += term
        if term < 1e-20 * total:
            break
    return math.exp(min(0.0, log + math.log(total)))


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
