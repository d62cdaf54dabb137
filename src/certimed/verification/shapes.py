"""Which fields the JSON objects have and what may stand in them; nothing missing, nothing more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = tuple[Callable[[Any], bool], str]


def _whole(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _optional(check: Check) -> Check:
    return (lambda value: value is None or check[0](value), f"{check[1]} or null")


def _wholes(value: Any, low: int, shortest: int) -> bool:
    return isinstance(value, list) and len(value) >= shortest and all(_whole(one, low) for one in value)


def _axis(value: Any) -> bool:
    return _wholes(value, -(1 << 31), 6) and len(value) == 6


def _one_of(*names: str) -> Check:
    return (lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def _exactly(name: str) -> Check:
    return (lambda value: value == name and isinstance(value, str), repr(name))


TEXT: Check = (_text, "a string")
BOOLEAN: Check = (lambda value: isinstance(value, bool), "true or false")
COUNT: Check = (_whole, "a whole number >= 0")
POSITIVE_COUNT: Check = (lambda value: _whole(value, 1), "a whole number >= 1")
INTEGER: Check = (lambda value: _whole(value, -(1 << 128)), "a whole number")
NOT_NEGATIVE: Check = (lambda value: _real(value) and value >= 0, "a number >= 0")
POSITIVE: Check = (lambda value: _real(value) and value > 0, "a number > 0")
LEVEL: Check = (lambda value: _real(value) and 0 < value < 1, "a number between 0 and 1")
SHARE: Check = (lambda value: _real(value) and 0 <= value <= 1, "a number from 0 to 1")
TAU: Check = (lambda value: _real(value) and 0.5 <= value < 1, "a number from 0.5 to below 1")
HEX: Check = (lambda value: _text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None, "64 hex digits")
TEXTS: Check = (lambda value: isinstance(value, list) and all(map(_text, value)), "a list of strings")
OBJECT: Check = (lambda value: isinstance(value, dict), "an object")
SPACE_SHAPE: Check = (lambda value: _wholes(value, 1, 2), "a list of two or more sizes")

SCOPES = ("end-to-end", "prompt frozen at x")
SPACES = ("model input", "native")
CORRECTIONS = ("holm", "bonferroni", "lehmann-romano")

PROVENANCE: dict[str, Check] = {
    "device": TEXT,
    "device_name": TEXT,
    "dtype": TEXT,
    "model": _optional(TEXT),
    "intensity": _optional(TEXT),
    "versions": (lambda value: isinstance(value, dict) and all(map(_text, value.values())), "an object of strings"),
}

_COMMON: dict[str, Check] = {
    "item": TEXT,
    "n0": POSITIVE_COUNT,
    "n": POSITIVE_COUNT,
    "alpha": LEVEL,
    "sigma": POSITIVE,
    "radius": NOT_NEGATIVE,
    "seed": INTEGER,
    "shape": SPACE_SHAPE,
    "provenance": OBJECT,
    "scope": _one_of(*SCOPES),
    "space": _one_of(*SPACES),
    "notes": TEXTS,
}

CLASS_CERTIFICATE: dict[str, Check] = {
    "schema": _exactly("certimed/class-certificate/1"),
    **_COMMON,
    "prediction": COUNT,
    "abstained": BOOLEAN,
    "p_lower": (lambda value: _real(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "q_upper": _optional((lambda value: _real(value) and 0 < value <= 1, "a number above 0, at most 1")),
    "counts": (lambda value: _wholes(value, 0, 2), "a list of two or more whole numbers >= 0"),
    "bound": _one_of("one-sided", "two-sided", "best"),
    "budget": TEXT,
    "looks": POSITIVE_COUNT,
    "proved_at": (lambda value: _wholes(value, 0, 0), "a list of whole numbers >= 0"),
    "stopped": TEXT,
}

MASK_CERTIFICATE: dict[str, Check] = {
    "schema": _exactly("certimed/mask-certificate/1"),
    **_COMMON,
    "share_certified": SHARE,
    "threshold": _optional(POSITIVE_COUNT),
    "num_classes": (lambda value: _whole(value, 2), "a whole number >= 2"),
    "tau": TAU,
    "correction": _one_of(*CORRECTIONS),
    "k_fwer": POSITIVE_COUNT,
    "arrays_sha256": HEX,
}

SOMETIMES: dict[str, Check] = {"native": OBJECT}
"""Fields of certificates that stand there only where there is something to say."""

NATIVE: dict[str, Check] = {"radius": NOT_NEGATIVE, "norm": POSITIVE, "geometry": OBJECT}

GEOMETRY: dict[str, Check] = {
    "channels": _one_of("same", "repeat", "luma", "mean"),
    "depth": POSITIVE_COUNT,
    "axes": (
        lambda value: isinstance(value, list) and bool(value) and all(_axis(axis) for axis in value),
        "a list of axes of six whole numbers",
    ),
    "kernel": _one_of("bilinear", "bicubic"),
}

_RECORD: dict[str, Check] = {
    "item": TEXT,
    "status": _one_of("certified", "failed"),
    "reason": _optional(TEXT),
    "certificates": OBJECT,
    "sha256": HEX,
}

CLASS_RECORD: dict[str, Check] = {
    "schema": _exactly("certimed/record/1"),
    **_RECORD,
    "label": _optional(COUNT),
    "clean": (lambda value: isinstance(value, dict) and all(map(_whole, value.values())), "an object of class indices"),
}

MASK_RECORD: dict[str, Check] = {
    "schema": _exactly("certimed/mask-record/1"),
    **_RECORD,
    "group": _optional(TEXT),
    "arrays": OBJECT,
    "scores": OBJECT,
}


def shape_faults(data: Any, wanted: Mapping[str, Check]) -> Iterator[str]:
    """What keeps a JSON value from having these fields, in words."""
    if not isinstance(data, dict):
        yield f"it is no JSON object but {type(data).__name__}"
        return
    for name in wanted:
        if name not in data:
            yield f"the field {name!r} is missing"
    for name, value in data.items():
        if name not in wanted:
            yield f"the field {name!r:.80} is unknown to this version"
        elif not wanted[name][0](value):
            yield f"{name} must be {wanted[name][1]}, not {value!r:.80}"


def certificate_faults(data: Any, wanted: Mapping[str, Check]) -> Iterator[str]:
    """As :func:`shape_faults`, the provenance and the fields that are there only sometimes included."""
    present = {name: check for name, check in SOMETIMES.items() if isinstance(data, dict) and name in data}
    yield from shape_faults(data, {**wanted, **present})
    if isinstance(data, dict) and isinstance(data.get("provenance"), dict):
        yield from (f"provenance: {fault}" for fault in shape_faults(data["provenance"], PROVENANCE))


def pixels_of(shape: list[int]) -> int:
    """Pixels of an input ``(C, *space)``."""
    return math.prod(shape[1:])
