"""Dice, IoU and accuracy of certified masks: as published, and as the interval that their certificates prove."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import MaskCertificate
from certimed.certificates.fields import Fields
from certimed.errors import InputError
from certimed.metrics.intervals import MeanInterval, mean_interval, with_failed
from certimed.statistics import certified_accuracy_lower

EMPTY_NAMES = ("one", "zero", "skip")
FOREGROUND = "foreground mean"
ALL_CLASSES = "mean of all classes"
WHOLE_IMAGE = "whole image"

DICE_PUBLISHED = "certified Dice (published)"
DICE_LOW = "guaranteed Dice"
DICE_HIGH = "best-case Dice"
IOU_PUBLISHED = "certified IoU (published)"
IOU_LOW = "guaranteed IoU"
IOU_HIGH = "best-case IoU"
ACCURACY_LOW = "certified accuracy"
ACCURACY_HIGH = "best-case accuracy"
SHARE_CERTIFIED = "share certified"


@dataclass(frozen=True, eq=False)
class MaskCounts:
    """Pixel counts of one image against its truth: all the scores depend on. Arrays are int64 ``(num_classes,)``.

    Attributes:
        true_positive: certified as the class and truly of it (TP).
        predicted: certified as the class (Q).
        truth: truly of the class, abstained pixels included (P).
        abstained: abstained and truly of the class (A_c); the abstained pixels of other classes (A_n) are the rest.
        pixels: pixels scored.
    """

    true_positive: NDArray[np.int64]
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]
    abstained: NDArray[np.int64]
    pixels: int

    @property
    def abstained_others(self) -> NDArray[np.int64]:
        """A_n of each class: abstained and not truly of it."""
        return np.asarray(self.abstained.sum() - self.abstained)


def count_pixels(
    mask: NDArray[Any],
    certified: NDArray[np.bool_] | None,
    truth: NDArray[Any],
    num_classes: int,
    *,
    ignore: int | None = None,
) -> MaskCounts:
    """Count one image.

    Args:
        mask: integers ``space``, predicted classes.
        certified: boolean ``space``; None: all pixels count as certified (a plain prediction).
        truth: integers ``space``, true classes.
        num_classes: number of classes.
        ignore: a value of ``truth`` whose pixels are left out.

    Raises:
        InputError: shapes that differ, class ids outside 0..num_classes-1, no pixel left.
    """
    predicted, true = np.asarray(mask), np.asarray(truth)
    kept = np.ones(true.shape, dtype=bool) if ignore is None else true != ignore
    sure = np.ones(true.shape, dtype=bool) if certified is None else np.asarray(certified, dtype=bool)
    if not predicted.shape == true.shape == sure.shape:
        raise InputError(f"mask {predicted.shape}, certified {sure.shape} and truth {true.shape} differ in shape")
    if not kept.any():
        raise InputError("the truth has no pixel to score")
    predicted, true, sure = predicted[kept], true[kept], sure[kept]
    for name, values in (("mask", predicted), ("truth", true)):
        if values.dtype.kind not in "iub" or int(values.min()) < 0 or int(values.max()) >= num_classes:
            raise InputError(
                f"{name} holds {values.dtype} values {values.min()}..{values.max()}; use class ids 0..{num_classes - 1}"
            )

    def tally(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(values, minlength=num_classes)

    true, predicted = true.astype(np.int64), predicted.astype(np.int64)
    return MaskCounts(
        true_positive=tally(true[sure & (predicted == true)]),
        predicted=tally(predicted[sure]),
        truth=tally(true),
        abstained=tally(true[~sure]),
        pixels=int(true.size),
    )


@dataclass(frozen=True)
class MaskScores:
    """Scores of one image.

    Attributes:
        item: id of the image.
        per_class: metric name -> one value a class; NaN where the image is left out for that class.
        whole: metric name -> value of the whole image.
        empty: the convention for classes absent from truth and prediction.
        alpha: failure probability of the certificate behind the guaranteed values.
    """

    item: str
    per_class: dict[str, tuple[float, ...]]
    whole: dict[str, float]
    empty: str
    alpha: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN becomes null."""
        per_class = {name: [None if math.isnan(v) else v for v in row] for name, row in self.per_class.items()}
        return {"item": self.item, "empty": self.empty, "per_class": per_class, "whole": dict(self.whole)}

    @classmethod
    def from_dict(cls, data: object, alpha: float) -> MaskScores:
        """Inverse of :meth:`to_dict`, given what the certificate knows; raises InputError naming what is wrong."""
        fields = Fields(data, "mask scores")
        per_class = fields.mapping("per_class")
        for name, row in per_class.items():
            if not isinstance(row, list) or not all(v is None or isinstance(v, int | float) for v in row):
                raise InputError(f"scores {name!r:.40} must be a list of numbers or nulls")
        numbers = Fields(fields.mapping("whole"), "mask scores of the whole image")
        return cls(
            item=fields.string("item"),
            per_class={k: tuple(math.nan if v is None else float(v) for v in row) for k, row in per_class.items()},
            whole={name: numbers.number(name) for name in fields.mapping("whole")},
            empty=fields.string("empty"),
            alpha=alpha,
        )


def mask_scores(
    certificate: MaskCertificate,
    truth: NDArray[Any],
    *,
    plain: Mapping[str, Sequence[NDArray[Any]]] | None = None,
    empty: str = "one",
    ignore: int | None = None,
) -> MaskScores:
    """Score one certified mask against its truth.

    Guarantee of the "guaranteed" and "best-case" values: with probability at least ``1 - alpha`` of the certificate,
    the smoothed segmenter's Dice, IoU and accuracy stay between them under every perturbation with L2 norm below its
    radius. Certified pixels cannot change; abstained ones may become anything. With TP, Q, P, A_c, A_n as in
    :class:`MaskCounts`:

        Dice in [2 TP / (P + Q + A_n), 2 (TP + A_c) / (P + Q + A_c)]
        IoU  in [TP / (P + Q - TP + A_n), (TP + A_c) / (P + Q - TP)]

    both attained by some filling of the abstained pixels (for one class; several classes cannot all be at their worst
    at once, so a mean over classes is bounded but perhaps not attained).

    The "published" values, 2 TP / (P + Q) and TP / (P + Q - TP), treat abstention as one more predicted class:
    abstained background never counts as a false positive, so they are *not* lower bounds under attack.

    Args:
        certificate: the certified mask.
        truth: integers ``space``, true classes.
        plain: other masks to score beside it, e.g. ``{"clean": [...], "noisy": [...]}``; their Dice and IoU, means over
            the masks of a name, are called ``"Dice (clean)"`` and so on.
        empty: the 0/0 case. ``"one"`` or ``"zero"``: that value for a class absent from truth and prediction.
            ``"skip"``: images whose *truth* lacks the class are left out for it (a rule no attack can bend; false
            alarms on such images are then not seen).
        ignore: a value of ``truth`` whose pixels are left out.

    Raises:
        InputError: shapes that differ, class ids out of range, an unknown convention.
    """
    classes = certificate.num_classes
    counts = count_pixels(certificate.mask, certificate.certified, truth, classes, ignore=ignore)
    per_class = {name: tuple(values.tolist()) for name, values in overlap_scores(counts, empty).items()}
    correct = int(counts.true_positive.sum())
    abstained = int(counts.abstained.sum())
    whole = {
        ACCURACY_LOW: correct / counts.pixels,
        ACCURACY_HIGH: (correct + abstained) / counts.pixels,
        SHARE_CERTIFIED: 1 - abstained / counts.pixels,
    }
    for name, masks in (plain or {}).items():
        others = [count_pixels(mask, None, truth, classes, ignore=ignore) for mask in masks]
        found = [overlap_scores(other, empty) for other in others]
        for short, metric in (("Dice", DICE_PUBLISHED), ("IoU", IOU_PUBLISHED)):
            means = np.mean([scores[metric] for scores in found], axis=0)
            per_class[f"{short} ({name})"] = tuple(means.tolist())
        whole[f"accuracy ({name})"] = fmean(int(other.true_positive.sum()) / other.pixels for other in others)
    return MaskScores(certificate.item, per_class, whole, empty, certificate.alpha)


def overlap_scores(counts: MaskCounts, empty: str = "one") -> dict[str, NDArray[np.float64]]:
    """Published, guaranteed and best-case Dice and IoU of each class, float64 ``(num_classes,)``; see mask_scores."""
    if empty not in EMPTY_NAMES:
        raise InputError(f"empty={empty!r} is unknown; use one of {', '.join(EMPTY_NAMES)}")
    tp, q, p = counts.true_positive, counts.predicted, counts.truth
    own, others = counts.abstained, counts.abstained_others
    parts = {
        DICE_PUBLISHED: (2 * tp, p + q),
        DICE_LOW: (2 * tp, p + q + others),
        DICE_HIGH: (2 * (tp + own), p + q + own),
        IOU_PUBLISHED: (tp, p + q - tp),
        IOU_LOW: (tp, p + q - tp + others),
        IOU_HIGH: (tp + own, p + q - tp),
    }
    absent = 1.0 if empty == "one" else 0.0
    scores: dict[str, NDArray[np.float64]] = {}
    for name, (above, below) in parts.items():
        values = np.where(below > 0, above / np.maximum(below, 1), absent)
        scores[name] = np.where(p > 0, values, np.nan) if empty == "skip" else values
    return scores


@dataclass(frozen=True)
class MaskSummary:
    """Scores of many images of one method at one sigma.

    Attributes:
        rows: (class name, metric) -> mean with interval. Besides the classes: ``"foreground mean"`` (all but class 0,
            the mean over an image's classes first), ``"mean of all classes"`` and ``"whole image"``.
        lower: (class name, metric) -> lower bound on the mean over *these* images of the true worst case, for the
            guaranteed metrics; it pays for the certificates' own failure probability and holds with ``confidence`` over
            the noise.
        images: images summarised, failed ones included.
        failed: how many failed; see :func:`certimed.metrics.with_failed`.
        empty: the convention for classes absent from truth and prediction.
        confidence: level of the intervals and of ``lower``.
    """

    rows: dict[tuple[str, str], MeanInterval]
    lower: dict[tuple[str, str], float]
    images: int
    empty: str
    confidence: float
    failed: int = 0

    def __getitem__(self, key: tuple[str, str]) -> MeanInterval:
        return self.rows[key]

    def to_rows(self) -> list[dict[str, Any]]:
        """Rows of a table, flat: class, metric, mean, low, high, lower, images, failed, groups, interval, empty."""
        return [
            {
                "class": name,
                "metric": metric,
                "mean": _number(found.mean),
                "low": _number(found.low),
                "high": _number(found.high),
                "lower": self.lower.get((name, metric)),
                "images": found.images,
                "failed": self.failed,
                "groups": found.groups,
                "interval": f"{found.method} {found.confidence:g}",
                "empty": self.empty,
            }
            for (name, metric), found in self.rows.items()
        ]


def summarise_masks(
    scores: Sequence[MaskScores],
    *,
    groups: Sequence[Hashable] | None = None,
    class_names: Sequence[str] | None = None,
    confidence: float = 0.95,
    interval: str = "bootstrap",
    seed: int = 0,
    failed: int = 0,
) -> MaskSummary:
    """Means over images with confidence intervals over images, patients or sequences.

    Args:
        scores: one an image, all scored alike.
        groups: patient or sequence of each image, failed images last; None: images are taken as independent.
        class_names: names of the classes; default their numbers.
        confidence, interval, seed: see :func:`certimed.metrics.mean_interval`.
        failed: images without a mask: one image is one unit, and theirs counts with all scores 0.

    Raises:
        InputError: no scores, scores that do not belong together, lengths that differ.
    """
    if not scores:
        raise InputError("no scored mask to summarise: every image failed or the data set is empty")
    first, classes = scores[0], _classes(scores)
    names = [str(index) for index in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise InputError(f"{len(names)} class names do not fit {classes} classes")
    columns = score_columns(scores, names)
    columns = {key: with_failed(values, failed) for key, values in columns.items()}
    rows = {
        key: mean_interval(values, groups, confidence=confidence, method=interval, seed=seed)
        for key, values in columns.items()
    }
    return MaskSummary(
        rows, _lower_bounds(scores, columns, confidence), len(scores) + failed, first.empty, confidence, failed
    )


def _classes(scores: Sequence[MaskScores]) -> int:
    """How many classes they have; InputError unless all have the same metrics, conventions and classes."""
    first = scores[0]
    classes = len(first.per_class.get(DICE_LOW, ()))
    for other in scores:
        sizes = {len(row) for row in other.per_class.values()}
        told = (set(other.per_class), set(other.whole), other.empty, sizes)
        if not classes or told != (set(first.per_class), set(first.whole), first.empty, {classes}):
            raise InputError(
                f"the scores of {other.item!r:.80} and {first.item!r:.80} have different metrics or conventions"
            )
    return classes


def score_columns(scores: Sequence[MaskScores], names: Sequence[str]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """(class name, metric) -> one value an image, NaN where it is left out; the keys of :attr:`MaskSummary.rows`.

    Args:
        scores: one an image, scored alike.
        names: of the classes.

    Raises:
        InputError: scores that do not belong together.
    """
    _classes(scores)
    columns: dict[tuple[str, str], NDArray[np.float64]] = {}
    for metric in scores[0].per_class:
        table = np.array([score.per_class[metric] for score in scores], dtype=np.float64)
        columns |= {(name, metric): table[:, index] for index, name in enumerate(names)}
        columns[FOREGROUND, metric] = _mean_of_present(table[:, 1:])
        columns[ALL_CLASSES, metric] = _mean_of_present(table)
    for metric in scores[0].whole:
        columns[WHOLE_IMAGE, metric] = np.array([score.whole[metric] for score in scores])
    return columns


def _lower_bounds(
    scores: Sequence[MaskScores], columns: Mapping[tuple[str, str], NDArray[np.float64]], confidence: float
) -> dict[tuple[str, str], float]:
    """A wrong certificate costs its image at most 1, so the bound for shares of images serves means of scores too."""
    alpha = max(score.alpha for score in scores)
    bounds = {}
    for key, values in columns.items():
        counted = values[~np.isnan(values)]
        if key[1] in (DICE_LOW, IOU_LOW, ACCURACY_LOW) and counted.size:
            bounds[key] = certified_accuracy_lower(float(counted.mean()), int(counted.size), alpha, 1 - confidence)
    return bounds


def _mean_of_present(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over an image's classes that are not left out; NaN where all are."""
    present = (~np.isnan(table)).sum(axis=1)
    return np.where(present > 0, np.nansum(table, axis=1) / np.maximum(present, 1), np.nan)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
