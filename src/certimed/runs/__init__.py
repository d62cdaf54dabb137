"""Runs: the request, the loaded job, and the folder on disk that holds its records."""

from certimed.runs.folder import RunFolder
from certimed.runs.job import ClassJob, Job, MaskJob, MeasureJob
from certimed.runs.loading import class_names, load_front, load_job, load_tuned
from certimed.runs.manifest import data_section
from certimed.runs.merging import merge
from certimed.runs.methods import MethodEntry, MethodSpec, Prompting, words_before_name
from certimed.runs.record import CERTIFIED, FAILED, Record
from certimed.runs.redo import as_yaml, redo_command
from certimed.runs.run import Silent, Watcher, execute, remaining
from certimed.runs.sharding import Shard, shard
from certimed.runs.spec import DataSpec, RunSpec
from certimed.runs.targets import ClassTarget, MaskTarget, MeasureTarget, Tuning

__all__ = [
    "CERTIFIED",
    "FAILED",
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
    "Shard",
    "Silent",
    "Tuning",
    "Watcher",
    "as_yaml",
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
    "words_before_name",
]
