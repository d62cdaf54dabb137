"""What a certificate covers, as data: the values recorded on every certificate. Sentences are made in ``words``."""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal["end-to-end", "frozen at x", "chosen at x"]
Space = Literal["model input", "native", "settings"]

END_TO_END: Scope = "end-to-end"
"""The whole pipeline from the certified space to the answer."""

FROZEN_AT_X: Scope = "frozen at x"
"""A part that was tuned on this very image is held fixed; nothing is said about the pipeline that tunes."""

CHOSEN_AT_X: Scope = "chosen at x"
"""One of several certificates, picked by looking at this image; nothing is said about the pipeline that picks."""

MODEL_INPUT: Space = "model input"
"""The image after resizing and cropping, before mean and std."""

NATIVE: Space = "native"
"""The image at its native resolution; resizing is part of the certified model."""

SETTINGS: Space = "settings"
"""The settings of a workflow, each in units of its noise; the raw image is fixed, the workflow part of the model."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
SPACES: tuple[Space, ...] = get_args(Space)
