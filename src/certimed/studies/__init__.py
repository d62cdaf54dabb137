"""The papers' protocols as data, and what runs them: many runs as one study, reproductions, and the demo."""

from certimed.studies.demonstration import Demo, demo
from certimed.studies.layout import Parts, class_entries, expected_layout, open_parts
from certimed.studies.mask_presets import DATASETS as SEGMENTATION_DATASETS
from certimed.studies.mask_presets import PROTOCOL as SEGMENTATION_PROTOCOL
from certimed.studies.mask_presets import (
    SegmentationPreset,
    SegmentationProtocol,
    SplitRule,
    segmentation_preset,
)
from certimed.studies.masks import segmentation
from certimed.studies.prompt_presets import DATASETS as CLASSIFICATION_DATASETS
from certimed.studies.prompt_presets import (
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
from certimed.studies.prompts import promptsmooth
from certimed.studies.splits import Split, cvc_sequence, split_images
from certimed.studies.study import Study, run_study

__all__ = [
    "CLASSIFICATION_DATASETS",
    "MODELS",
    "PROTOCOL",
    "SEGMENTATION_DATASETS",
    "SEGMENTATION_PROTOCOL",
    "SWEEPS",
    "ClassPreset",
    "ClassificationPreset",
    "Demo",
    "ModelPreset",
    "PartNames",
    "Parts",
    "Protocol",
    "SegmentationPreset",
    "SegmentationProtocol",
    "Split",
    "SplitRule",
    "Study",
    "class_entries",
    "classification_preset",
    "cvc_sequence",
    "demo",
    "expected_layout",
    "model_spec",
    "open_parts",
    "promptsmooth",
    "run_study",
    "segmentation",
    "segmentation_preset",
    "split_images",
]
