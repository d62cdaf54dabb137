"""The looks of a budget in the JSON of a mask certificate."""

from __future__ import annotations

from typing import Any

from certimed.budgets import Look
from certimed.certificates.fields import Fields
from certimed.errors import InputError


def sampling_fields(fields: Fields) -> dict[str, Any]:
    """``budget``, ``looks`` and ``stopped`` of a mask certificate whose n a budget chose; else nothing.

    Raises:
        InputError: names the field that is missing or wrong.
    """
    if not any(fields.has(name) for name in ("budget", "looks", "stopped")):
        return {}
    looks = fields.get("looks")
    if not isinstance(looks, list):
        raise InputError("field 'looks' of the mask certificate must be a list of looks")
    return {
        "budget": fields.string("budget"),
        "looks": tuple(_look(Fields(look, "look of the mask certificate")) for look in looks),
        "stopped": fields.string("stopped"),
    }


def _look(fields: Fields) -> Look:
    threshold = None if fields.get("threshold") is None else fields.integer("threshold")
    return Look(fields.integer("n"), threshold, fields.number("alpha"))
