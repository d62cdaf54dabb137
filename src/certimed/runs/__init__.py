"""Runs: the request, the loaded job, and the folder on disk that holds its records."""

from certimed.runs.calibrating import CalibrationSpec, calibrate
from certimed.runs.calibration import Calibration
from certimed.runs.folder import RunFolder
from certimed.runs.job import ClassJob, Job, MaskJob, MeasureJob
from certimed.runs.loading import class_names, load_front, load_job, load_tuned
from certimed.runs.manifest import data_section
from certimed.runs.merging import merge
from certimed.runs.methods import MethodEntry, MethodSpec, Prompting, words_before_name
from certimed.runs.record import CERTIFIED, FAILED, Record
from certimed.runs.redo import as_yaml, redo_command
from certimed.runs.run import Silent, Watcher, execute, remaining, with_own_calibration
from certimed.runs.sets import SetJob
from certimed.runs.sharding import Shard, shard
from certimed.runs.spec import DataSpec, RunSpec
from certimed.runs.targets import ClassTarget, MaskTarget, MeasureTarget, SetTarget, Tuning

__all__ = [
    "CERTIFIED",
    "FAILED",
    "Calibration",
    "CalibrationSpec",
    "ClassJob",
    "ClassTarget",
    "DataSpec",
    "Job",
    "MaskJob",
    "MaskTarget",
    "MeasureJob",
    "MeasureTarget",
    "MethodEntry",
    "MethodSpec",
    "Prompting",
    "Record",
    "RunFolder",
    "RunSpec",
    "SetJob",
    "SetTarget",
    "Shard",
    "Silent",
    "Tuning",
    "Watcher",
    "as_yaml",
    "calibrate",
    "class_names",
    "data_section",
    "execute",
    "load_front",
    "load_job",
    "load_tuned",
    "merge",
    "redo_command",
    "remaining",
    "shard",
    "with_own_calibration",
    "words_before_name",
]
