"""Settings of a workflow: what a user or a program may choose otherwise, as inputs that noise is added to."""

from certimed.settings.kinds import GROUPS, KINDS, MOST, Axis, read_vary, spelt
from certimed.settings.stream import BoundStream
from certimed.settings.workflow import Workflow

__all__ = ["GROUPS", "KINDS", "MOST", "Axis", "BoundStream", "Workflow", "read_vary", "spelt"]
