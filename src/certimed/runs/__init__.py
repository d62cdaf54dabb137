"""Run folders: the record of a certification run on disk."""

from certimed.runs.classification import Certifier, certify_dataset
from certimed.runs.folder import RunFolder
from certimed.runs.records import CERTIFIED, FAILED, ClassRecord

__all__ = ["CERTIFIED", "FAILED", "Certifier", "ClassRecord", "RunFolder", "certify_dataset"]
