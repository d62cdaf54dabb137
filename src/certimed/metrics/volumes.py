"""Slices of volumes put together again: what is certified of each volume, and how surely all of it at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from certimed.metrics.segmentation import MaskCounts

_SLICE = re.compile(r"(?P<volume>.+)#\d{4,}", re.DOTALL)


@dataclass(frozen=True)
class CutVolume:
    """The slices of one volume.

    Attributes:
        name: of the volume, as its slices' ids begin.
        slices: positions of the slices with a certificate, among the ids that were given.
        failed: how many slices have none.
    """

    name: str
    slices: tuple[int, ...]
    failed: int


def by_volume(items: Sequence[str], failed: Iterable[str] = ()) -> list[CutVolume]:
    """Slices by their volume, in the order of their ids (``VOLUME#NNNN``); what is no slice is a volume of its own.

    Args:
        items: ids of the slices with a certificate.
        failed: ids of those without one; a volume that could not be read at all is one of them.

    >>> by_volume(["a.nii#0001", "a.nii#0002", "b.nii#0000"], ["a.nii#0000"])[0]
    CutVolume(name='a.nii', slices=(0, 1), failed=1)
    """
    found: dict[str, list[int]] = {}
    lost: dict[str, int] = {}
    for place, item in enumerate(items):
        found.setdefault(volume_of(item), []).append(place)
    for item in failed:
        name = volume_of(item)
        found.setdefault(name, [])
        lost[name] = lost.get(name, 0) + 1
    return [CutVolume(name, tuple(places), lost.get(name, 0)) for name, places in found.items()]


def all_at_once(alphas: Iterable[float]) -> float:
    """Probability, rounded up, with which any of several statements fails: at most the sum of their own (union bound).

    Guarantee: a change of a volume that is shorter than a radius is no longer in any slice, so with probability at
    least one minus this sum *every* slice's certificate holds for it at once. The sum is exact before it is rounded.

    >>> all_at_once([0.25, 0.25]), all_at_once([0.6, 0.6])
    (0.5, 1.0)
    """
    total = sum((Fraction(alpha) for alpha in alphas), Fraction(0))
    nearest = float(total)
    return min(1.0, nearest if Fraction(nearest) >= total else math.nextafter(nearest, math.inf))


def summed(counts: Sequence[MaskCounts]) -> MaskCounts:
    """Pixel counts of several slices as those of their volume; at least one."""
    return MaskCounts(
        true_positive=np.sum([one.true_positive for one in counts], axis=0),
        predicted=np.sum([one.predicted for one in counts], axis=0),
        truth=np.sum([one.truth for one in counts], axis=0),
        abstained=np.sum([one.abstained for one in counts], axis=0),
        pixels=sum(one.pixels for one in counts),
    )


def volume_of(item: str) -> str:
    """The volume that a slice's id begins with; of what is no slice its own id."""
    found = _SLICE.fullmatch(item)
    return found["volume"] if found else item
