"""certimed: provable robustness for medical-imaging models.

Public names load on first use, so that ``import certimed`` costs next to nothing and does not pull in torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "certimed.api": ("Run", "load_run", "run"),
    "certimed.attacks": ("AttackSpec", "Sandwich", "attack"),
    "certimed.budgets": ("Betting", "Budget", "Fixed", "Grid", "Looks", "PixelLooks", "Planned", "parse_budget"),
    "certimed.certificates": (
        *("Certificate", "ClassCertificate", "IntervalCertificate", "MaskCertificate", "Provenance", "RadiusUnits"),
        "load_certificate",
    ),
    "certimed.classification": ("Prediction", "SmoothedClassifier"),
    "certimed.classifiers": ("ClassificationModel",),
    "certimed.errors": ("CertimedError", "ImageError", "InputError", "MissingExtraError", "ModelError"),
    "certimed.evidence": ("Pack", "check_pack", "pack"),
    "certimed.measurements": ("Measurement", "measurement"),
    "certimed.measuring": ("Median", "SmoothedMeasurement"),
    "certimed.report.comparison": ("Comparison", "compare"),
    "certimed.runs": ("ClassTarget", "DataSpec", "MaskTarget", "MeasureTarget", "RunSpec"),
    "certimed.segmentation": ("SmoothedSegmenter",),
    "certimed.threads": ("use_threads",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'certimed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
