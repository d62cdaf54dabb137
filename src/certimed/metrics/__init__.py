"""Figures over many certificates: certified accuracy curves, Dice and IoU with their guarantees."""

from certimed.budgets import PUBLISHED_RADII
from certimed.metrics.classification import ClassificationSummary, per_class_rows, summarise
from certimed.metrics.intervals import INTERVAL_NAMES, MeanInterval, mean_interval, with_failed
from certimed.metrics.segmentation import (
    EMPTY_NAMES,
    MaskCounts,
    MaskScores,
    MaskSummary,
    count_pixels,
    mask_scores,
    overlap_scores,
    summarise_masks,
)

__all__ = [
    "EMPTY_NAMES",
    "INTERVAL_NAMES",
    "PUBLISHED_RADII",
    "ClassificationSummary",
    "MaskCounts",
    "MaskScores",
    "MaskSummary",
    "MeanInterval",
    "count_pixels",
    "mask_scores",
    "mean_interval",
    "overlap_scores",
    "per_class_rows",
    "summarise",
    "summarise_masks",
    "with_failed",
]
