"""Certified accuracy and its companions, from certificates and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE, ClassCertificate
from certimed.errors import InputError
from certimed.statistics import certified_accuracy_lower, proportion_interval

PUBLISHED_RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
"""Radii at which the PromptSmooth release reports certified accuracy."""


@dataclass(frozen=True)
class ClassificationSummary:
    """What a set of certificates amounts to. All shares are fractions of ``images``.

    Attributes:
        images: certificates summarised; failed images are not among them and are to be reported beside it.
        radii: L2 radii, in the certificates' units.
        certified_accuracy: share correct and certified with radius > r, for each r (Cohen et al. 2019); at r = 0 this
            is the share correct and not abstained. For unlabelled images None.
        intervals: confidence interval of each over the population the images were drawn from.
        accuracy_lower: lower bound on the share of *these* images that are truly robust at r, which pays for the
            certificates' own failure probability (Cohen et al. 2019, section 4), at the same confidence, one-sided.
        certified_share: share certified, right or wrong, with radius > r.
        clean_accuracy: base model on clean images; an upper bound on nothing, for comparison.
        noisy_accuracy: base model on single noisy copies (mean over the estimation samples).
        too_few_samples, unstable: shares abstained, by reason; they sum to the abstained share.
        mean_radius: mean radius, 0 for abstained or wrong images ("average certified radius"; it misleads alone).
        confidence: level of the intervals.
    """

    images: int
    radii: tuple[float, ...]
    certified_accuracy: tuple[float, ...] | None
    intervals: tuple[tuple[float, float], ...] | None
    accuracy_lower: tuple[float, ...] | None
    certified_share: tuple[float, ...]
    clean_accuracy: float | None
    noisy_accuracy: float | None
    too_few_samples: float
    unstable: float
    mean_radius: float
    confidence: float


def summarise(
    certificates: Sequence[ClassCertificate],
    labels: Sequence[int] | None,
    clean: Sequence[int] | None = None,
    *,
    radii: Sequence[float] = PUBLISHED_RADII,
    confidence: float = 0.95,
) -> ClassificationSummary:
    """Summarise certificates of one method at one sigma.

    Args:
        certificates: one an image.
        labels: true classes in the same order, or None for unlabelled images.
        clean: base model's class on each clean image, or None.
        radii: where to read the certified accuracy curve.
        confidence: of the intervals over images.

    Raises:
        InputError: no certificates, or lists of different lengths.
    """
    total = len(certificates)
    if total == 0:
        raise InputError("no certificate to summarise: every image failed or the data set is empty")
    for name, given in (("labels", labels), ("clean", clean)):
        if given is not None and len(given) != total:
            raise InputError(f"{len(given)} {name} do not fit {total} certificates")
    proved = [[not c.abstained and c.radius > r for c in certificates] for r in radii]
    right = None if labels is None else [c.prediction == y for c, y in zip(certificates, labels, strict=True)]
    hits = None if right is None else [sum(p and ok for p, ok in zip(row, right, strict=True)) for row in proved]
    counted = [c.radius for i, c in enumerate(certificates) if right is None or right[i]]
    alpha = max(c.alpha for c in certificates)
    return ClassificationSummary(
        images=total,
        radii=tuple(float(r) for r in radii),
        certified_accuracy=None if hits is None else tuple(h / total for h in hits),
        intervals=None if hits is None else tuple(_interval(h, total, confidence) for h in hits),
        accuracy_lower=None
        if hits is None
        else tuple(float(certified_accuracy_lower(h / total, total, alpha, 1 - confidence)) for h in hits),
        certified_share=tuple(sum(row) / total for row in proved),
        clean_accuracy=None
        if labels is None or clean is None
        else sum(a == b for a, b in zip(clean, labels, strict=True)) / total,
        noisy_accuracy=None
        if labels is None
        else sum(c.counts[y] / c.n for c, y in zip(certificates, labels, strict=True)) / total,
        too_few_samples=sum(c.abstention == TOO_FEW_SAMPLES for c in certificates) / total,
        unstable=sum(c.abstention == UNSTABLE for c in certificates) / total,
        mean_radius=sum(counted) / total,
        confidence=confidence,
    )


def _interval(hits: int, total: int, confidence: float) -> tuple[float, float]:
    low, high = proportion_interval(hits, total, confidence)
    return float(low), float(high)
