"""Any classifier as a model for certification; its scores are its embedding, so the prompt machinery serves it."""

from certimed.classifiers.loading import load_classifier, load_prompted
from certimed.classifiers.model import ClassificationModel

__all__ = ["ClassificationModel", "load_classifier", "load_prompted"]
