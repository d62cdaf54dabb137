"""Run folders: the record of a certification run on disk, its shards, and its export."""

from certimed.runs.classification import (
    Certifier,
    ClassificationWork,
    certify_dataset,
    certify_one,
    certify_with,
    remaining,
)
from certimed.runs.export import LoadedRun, load_run
from certimed.runs.folder import RunFolder
from certimed.runs.manifest import data_section
from certimed.runs.mask_records import MaskRecord
from certimed.runs.merging import merge
from certimed.runs.records import CERTIFIED, FAILED, ClassRecord, Record
from certimed.runs.segmentation import (
    DENOISED,
    PLAIN,
    MaskCertifier,
    MaskSettings,
    MaskWork,
    certify_mask,
    certify_masks,
    lost_mask,
)
from certimed.runs.sharding import Shard, shard

__all__ = [
    "CERTIFIED",
    "DENOISED",
    "FAILED",
    "PLAIN",
    "Certifier",
    "ClassRecord",
    "ClassificationWork",
    "LoadedRun",
    "MaskCertifier",
    "MaskRecord",
    "MaskSettings",
    "MaskWork",
    "Record",
    "RunFolder",
    "Shard",
    "certify_dataset",
    "certify_mask",
    "certify_masks",
    "certify_one",
    "certify_with",
    "data_section",
    "load_run",
    "lost_mask",
    "merge",
    "remaining",
    "shard",
]
