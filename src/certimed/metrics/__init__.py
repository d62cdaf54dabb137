"""Figures over many certificates: certified accuracy curves, Dice and IoU with their guarantees."""

from certimed.metrics.classification import PUBLISHED_RADII, ClassificationSummary, summarise

__all__ = ["PUBLISHED_RADII", "ClassificationSummary", "summarise"]
