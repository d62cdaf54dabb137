"""From intervals of measurements to one row a measurement and radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from certimed.certificates import IntervalCertificate


def interval_rows(certificates: Sequence[IntervalCertificate]) -> list[dict[str, Any]]:
    """What the intervals of many images amount to, in plain JSON types.

    Args:
        certificates: one an image, of the same measurements and radii.

    Returns:
        for each measurement and radius: ``measurement``, ``unit`` (of the first image; ``"mixed"`` where they differ),
        ``radius``, ``threshold``, ``images``, ``finite`` (images whose interval has two ends), ``median`` and ``width``
        (means: of the defined medians, of the finite intervals; None where there is none), ``below`` and ``above``
        (images proved to lie on that side of the threshold).
    """
    rows = []
    for place, named in enumerate(certificates[0].claim.intervals):
        own = [one.claim.intervals[place] for one in certificates]
        units, medians = {one.unit for one in own}, [one.median for one in own if one.median is not None]
        for index, radius in enumerate(certificates[0].radii):
            widths = [one.upper[index] - one.lower[index] for one in own]
            finite = [width for width in widths if math.isfinite(width)]
            places = [one.place(index) for one in own]
            rows.append(
                {
                    "measurement": named.name,
                    "unit": named.unit if len(units) == 1 else "mixed",
                    "radius": radius,
                    "threshold": named.threshold,
                    "images": len(own),
                    "finite": len(finite),
                    "median": fmean(medians) if medians else None,
                    "width": fmean(finite) if finite else None,
                    "below": places.count("below"),
                    "above": places.count("above"),
                }
            )
    return rows
