"""How a run is done again: its request as YAML, and the command that reads it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from certimed.runs.spec import RunSpec


def as_yaml(spec: RunSpec) -> str:
    """A request as YAML that :meth:`RunSpec.from_dict` reads back; fields that say nothing are left out."""
    told = _told(spec.to_dict())
    text: str = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return text


def redo_command(name: str, *, code: bool = False) -> str:
    """The command that runs the request in ``NAME.yaml`` again.

    Args:
        name: of the run.
        code: the model is code of the user's, which needs consent.
    """
    consent = " --allow-code" if code else ""
    return f"certimed certify --config {shlex.quote(f'{name}.yaml')}{consent} --out {shlex.quote(f'again/{name}')}"


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _told(one) for name, one in value.items() if one not in (None, [], {})}
    return value
