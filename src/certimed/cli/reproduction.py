"""The work behind ``certimed reproduce promptsmooth``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certimed.certificates import END_TO_END
from certimed.cli import classify, inputs, tuning
from certimed.cli.ablation import Ablation, Entry
from certimed.cli.console import out, printable
from certimed.cli.prompting import Prompting
from certimed.cli.tables import print_intervals
from certimed.data import DEFAULT_READ, Dataset, class_balanced, few_shot_indices, overlap
from certimed.errors import InputError
from certimed.metrics import ClassificationSummary, summarise
from certimed.presets import (
    MODELS,
    PROTOCOL,
    SWEEPS,
    ClassificationPreset,
    Parts,
    Protocol,
    classification_preset,
    model_spec,
    open_parts,
)
