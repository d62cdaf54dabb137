"""Certified accuracy and its companions, from certificates and labels; failed images count as wrong everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from certimed.budgets import PUBLISHED_RADII
from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE, ClassCertificate
from certimed.errors import InputError
from certimed.metrics.intervals import with_failed
from certimed.statistics import certified_accuracy_lower, proportion_interval


@dataclass(frozen=True)
class ClassificationSummary:
    """What a set of certificates amounts to. All shares are fractions of ``images``.

    Attributes:
        images: the number all shares are divided by: certificates and failed images.
        failed: images that could not be read or certified; see :func:`certimed.metrics.with_failed`.
        radii: L2 radii, in the certificates' units.
        certified_accuracy: share correct and certified with radius > r, for each r (Cohen et al. 2019); at r = 0 this
            is the share correct and not abstained. For unlabelled images None.
        intervals: confidence interval of each over the population the images were drawn from.
        accuracy_lower: lower bound on the share of *these* images that are truly robust at r, which pays for the
            certificates' own failure probability (Cohen et al. 2019, section 4), at the same confidence, one-sided.
        certified_share: share certified, right or wrong, with radius > r.
        clean_accuracy: base model on clean images; an upper bound on nothing, for comparison.
        noisy_accuracy: base model on single noisy copies (mean over the n0 selection samples, as many for every image).
        too_few_samples, unstable: shares abstained, by reason; they sum to the abstained share.
        mean_radius: mean radius, 0 for abstained or wrong images ("average certified radius"; it misleads alone).
        confidence: level of the intervals.
        mean_samples: mean number of estimation samples of a certified image.
        stops: share of certified images by why their samples ended, e.g. ``{"answered": 0.8, "futile": 0.2}``.
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
    failed: int = 0
    mean_samples: float = 0.0
    stops: Mapping[str, float] = field(default_factory=dict)

    def to_rows(self) -> list[dict[str, Any]]:
        """The certified accuracy curve as rows of a table, one a radius; None where there were no labels."""
        return [
            {
                "radius": radius,
                "certified_accuracy": None if self.certified_accuracy is None else self.certified_accuracy[i],
                "low": None if self.intervals is None else self.intervals[i][0],
                "high": None if self.intervals is None else self.intervals[i][1],
                "lower": None if self.accuracy_lower is None else self.accuracy_lower[i],
                "certified_share": self.certified_share[i],
                "images": self.images,
                "confidence": self.confidence,
            }
            for i, radius in enumerate(self.radii)
        ]


def summarise(
    certificates: Sequence[ClassCertificate],
    labels: Sequence[int] | None,
    clean: Sequence[int] | None = None,
    *,
    radii: Sequence[float] = PUBLISHED_RADII,
    confidence: float = 0.95,
    failed: int = 0,
) -> ClassificationSummary:
    """Summarise certificates of one method at one sigma.

    Args:
        certificates: one an image.
        labels: true classes in the same order, or None for unlabelled images.
        clean: base model's class on each clean image, or None.
        radii: where to read the certified accuracy curve.
        confidence: of the intervals over images.
        failed: images without a certificate, see :func:`certimed.metrics.with_failed`.

    Raises:
        InputError: no certificates, a negative ``failed``, or lists of different lengths.
    """
    if not certificates:
        raise InputError("no certificate to summarise: every image failed or the data set is empty")
    for name, given in (("labels", labels), ("clean", clean)):
        if given is not None and len(given) != len(certificates):
            raise InputError(f"{len(given)} {name} do not fit {len(certificates)} certificates")

    for label, certificate in zip(labels or (), certificates):
        if not 0 <= label < len(certificate.counts):
            count = len(certificate.counts)
            raise InputError(f"label {label!s:.40} is none of the {count} classes of {certificate.item!r:.80}")

    def share(values: Iterable[float]) -> float:
        return float(with_failed(values, failed).mean())

    total = len(certificates) + failed
    right = [True] * len(certificates)
    if labels is not None:
        right = [c.prediction == y for c, y in zip(certificates, labels, strict=True)]
    proved = [[not c.abstained and c.radius > r for c in certificates] for r in radii]
    hits = [sum(p and ok for p, ok in zip(row, right, strict=True)) for row in proved]
    alpha = max(c.alpha for c in certificates)
    return ClassificationSummary(
        images=total,
        radii=tuple(float(r) for r in radii),
        certified_accuracy=None if labels is None else tuple(h / total for h in hits),
        intervals=None if labels is None else tuple(_interval(h, total, confidence) for h in hits),
        accuracy_lower=None
        if labels is None
        else tuple(float(certified_accuracy_lower(h / total, total, alpha, 1 - confidence)) for h in hits),
        certified_share=tuple(share(row) for row in proved),
        clean_accuracy=None
        if labels is None or clean is None
        else share(a == b for a, b in zip(clean, labels, strict=True)),
        noisy_accuracy=None
        if labels is None
        else share(c.claim.selection[y] / c.n0 for c, y in zip(certificates, labels, strict=True)),
        too_few_samples=share(c.abstention == TOO_FEW_SAMPLES for c in certificates),
        unstable=share(c.abstention == UNSTABLE for c in certificates),
        mean_radius=share(c.radius * ok for c, ok in zip(certificates, right, strict=True)),
        confidence=confidence,
        failed=failed,
        mean_samples=sum(c.n for c in certificates) / len(certificates),
        stops={
            stop: count / len(certificates) for stop, count in Counter(c.stop.kind for c in certificates).most_common()
        },
    )


def per_class_rows(
    certificates: Sequence[ClassCertificate],
    labels: Sequence[int],
    class_names: Sequence[str] | None = None,
    *,
    radii: Sequence[float] = PUBLISHED_RADII,
    confidence: float = 0.95,
    failed: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """The summary of each true class as one flat row: which classes hold under noise, and which do not.

    Args:
        certificates: one an image.
        labels: true classes in the same order.
        class_names: names of the classes; default their numbers.
        radii: one column ``"certified at r"`` each, shares of the class's images.
        confidence: of the interval at the first radius.
        failed: true classes of the failed images whose class is known; each counts in its class's denominator. A class
            all of whose images failed has a row of zeros.

    Raises:
        InputError: no certificates, lengths that differ, a label without a name.
    """
    if len(labels) != len(certificates):
        raise InputError(f"{len(labels)} labels do not fit {len(certificates)} certificates")
    rows = []
    for label in sorted({*labels, *failed}):
        if class_names is not None and not 0 <= label < len(class_names):
            raise InputError(f"label {label} has no name among the {len(class_names)} class names")
        chosen = [c for c, y in zip(certificates, labels, strict=True) if y == label]
        lost = sum(y == label for y in failed)
        row: dict[str, Any] = {
            "class": str(label) if class_names is None else class_names[label],
            "images": len(chosen) + lost,
            "failed": lost,
            **{f"certified at {r:g}": 0.0 for r in radii},
        }
        row["low"], row["high"] = _interval(0, lost, confidence) if not chosen else (None, None)
        row |= dict.fromkeys(("noisy_accuracy", "mean_radius", "too_few_samples", "unstable"), 0.0)
        if chosen:
            found = summarise(chosen, [label] * len(chosen), radii=radii, confidence=confidence, failed=lost)
            row |= {f"certified at {r:g}": share for r, share in zip(radii, found.certified_accuracy or ())}
            row["low"], row["high"] = (found.intervals or ((None, None),))[0]
            row |= {"noisy_accuracy": found.noisy_accuracy, "mean_radius": found.mean_radius}
            row |= {"too_few_samples": found.too_few_samples, "unstable": found.unstable}
        rows.append(row)
    return rows


def _interval(hits: int, total: int, confidence: float) -> tuple[float, float]:
    low, high = proportion_interval(hits, total, confidence)
    return float(low), float(high)
