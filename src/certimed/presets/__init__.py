"""The published protocols as data: class names, templates, sizes, splits, grids, and the folder layouts expected."""

from certimed.presets.layout import Parts, class_entries, expected_layout, open_parts
from certimed.presets.promptsmooth import DATASETS as CLASSIFICATION_DATASETS
from certimed.presets.promptsmooth import (
    MODELS,
    PROTOCOL,
    SWEEPS,
    ClassificationPreset,
    ClassPreset,
    ModelPreset,
    PartNames,
    Protocol,
    classification_preset,
    model_spec,
)
from certimed.presets.segmentation import DATASETS as SEGMENTATION_DATASETS
from certimed.presets.segmentation import PROTOCOL as SEGMENTATION_PROTOCOL
from certimed.presets.segmentation import (
    SegmentationPreset,
    SegmentationProtocol,
    SplitRule,
    segmentation_preset,
)
from certimed.presets.splits import Split, cvc_sequence, split_images

__all__ = [
    "CLASSIFICATION_DATASETS",
    "MODELS",
    "PROTOCOL",
    "SEGMENTATION_DATASETS",
    "SEGMENTATION_PROTOCOL",
    "SWEEPS",
    "ClassPreset",
    "ClassificationPreset",
    "ModelPreset",
    "PartNames",
    "Parts",
    "Protocol",
    "SegmentationPreset",
    "SegmentationProtocol",
    "Split",
    "SplitRule",
    "class_entries",
    "classification_preset",
    "cvc_sequence",
    "expected_layout",
    "model_spec",
    "open_parts",
    "segmentation_preset",
    "split_images",
]
