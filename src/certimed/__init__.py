"""certimed: provable robustness for medical-imaging models.

Public names load on first use, so that ``import certimed`` costs next to nothing and does not pull in torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certimed.budgets import Betting, Budget, Fixed, Grid, Looks, Precision, parse_budget
    from certimed.certificates import ClassCertificate, MaskCertificate, Provenance, RadiusUnits
    from certimed.classification import Prediction, SmoothedClassifier
    from certimed.classifiers import ClassificationModel
    from certimed.errors import CertimedError, ImageError, InputError, MissingExtraError, ModelError
    from certimed.runs import load_run
    from certimed.segmentation import SmoothedSegmenter
    from certimed.threads import use_threads

__version__ = "0.1.0"

_HOMES = {
    "Betting": "certimed.budgets",
    "Budget": "certimed.budgets",
    "CertimedError": "certimed.errors",
    "ClassCertificate": "certimed.certificates",
    "ClassificationModel": "certimed.classifiers",
    "Fixed": "certimed.budgets",
    "Grid": "certimed.budgets",
    "ImageError": "certimed.errors",
    "InputError": "certimed.errors",
    "Looks": "certimed.budgets",
    "MaskCertificate": "certimed.certificates",
    "MissingExtraError": "certimed.errors",
    "ModelError": "certimed.errors",
    "Precision": "certimed.budgets",
    "Prediction": "certimed.classification",
    "Provenance": "certimed.certificates",
    "RadiusUnits": "certimed.certificates",
    "SmoothedClassifier": "certimed.classification",
    "SmoothedSegmenter": "certimed.segmentation",
    "load_run": "certimed.runs",
    "parse_budget": "certimed.budgets",
    "use_threads": "certimed.threads",
}

__all__ = [
    "Betting",
    "Budget",
    "CertimedError",
    "ClassCertificate",
    "ClassificationModel",
    "Fixed",
    "Grid",
    "ImageError",
    "InputError",
    "Looks",
    "MaskCertificate",
    "MissingExtraError",
    "ModelError",
    "Precision",
    "Prediction",
    "Provenance",
    "RadiusUnits",
    "SmoothedClassifier",
    "SmoothedSegmenter",
    "__version__",
    "load_run",
    "parse_budget",
    "use_threads",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'certimed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
