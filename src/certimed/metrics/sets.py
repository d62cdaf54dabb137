"""From sets of classes to one row a radius: how large they are, and how many hold the true class."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from certimed.certificates import SetCertificate
from certimed.statistics import proportion_interval


def set_rows(
    certificates: Sequence[SetCertificate], labels: Sequence[int] | None, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """What the sets of many images amount to, in plain JSON types.

    Args:
        certificates: one an image, of one calibration.
        labels: true classes in the same order; None where one is not known.
        confidence: of the Clopper-Pearson interval of the coverage, over new images at *this* calibration.

    Returns:
        for each radius: ``radius``, ``images``, ``target`` (1 - alpha), ``size`` (mean), ``empty``, ``single`` and
        ``full`` (images whose set has no class, one, all), ``covered`` (images whose set holds the true class),
        ``coverage``, ``low`` and ``high``; the last four None without labels.
    """
    rows = []
    first = certificates[0]
    for index, radius in enumerate(first.radii):
        sets = [one.sets[index] for one in certificates]
        sizes = [len(one) for one in sets]
        covered = None if labels is None else sum(label in one for label, one in zip(labels, sets, strict=True))
        low = high = None
        if covered is not None:
            low, high = (float(end) for end in proportion_interval(covered, len(sets), confidence))
        rows.append(
            {
                "radius": radius,
                "images": len(sets),
                "target": 1.0 - first.alpha,
                "size": fmean(sizes),
                "empty": sizes.count(0),
                "single": sizes.count(1),
                "full": sizes.count(len(first.claim.probabilities)),
                "covered": covered,
                "coverage": None if covered is None else covered / len(sets),
                "low": low,
                "high": high,
            }
        )
    return rows
