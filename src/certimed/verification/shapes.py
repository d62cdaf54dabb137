"""Which fields the JSON objects have and what may stand in them; nothing missing, nothing more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = tuple[Callable[[Any], bool], str]

_MOST_SAMPLES = 10**9


def _whole(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _optional(check: Check) -> Check:
    return (lambda value: value is None or check[0](value), f"{check[1]} or null")


def _reals(value: Any) -> bool:
    return isinstance(value, list) and all(map(_real, value))


def _wholes(value: Any, low: int, shortest: int) -> bool:
    return isinstance(value, list) and len(value) >= shortest and all(_whole(one, low) for one in value)


def _two_levels(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_real(one) and one > 0 for one in value)


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
COUNTS: Check = (lambda value: _wholes(value, 0, 2), "a list of two or more whole numbers >= 0")
TEXTS: Check = (lambda value: isinstance(value, list) and all(map(_text, value)), "a list of strings")
STRINGS: Check = (
    lambda value: isinstance(value, dict) and all(map(_text, value.values())),
    "an object of strings",
)
REAL: Check = (_real, "a number")
ENDS: Check = (
    lambda value: isinstance(value, list) and all(one is None or _real(one) for one in value),
    "a list of numbers and nulls",
)
LIST: Check = (lambda value: isinstance(value, list), "a list")
OBJECT: Check = (lambda value: isinstance(value, dict), "an object")
SPACE_SHAPE: Check = (lambda value: _wholes(value, 1, 2), "a list of two or more sizes")

SCOPES = ("end-to-end", "frozen at x", "chosen at x")
SPACES = ("model input", "native", "settings")
CORRECTIONS = ("holm", "bonferroni")
STOPS = ("answered", "futile", "cap reached", "interrupted")
SHARES = ("alone", "taus", "methods")

PROVENANCE: dict[str, Check] = {
    "device": TEXT,
    "device_name": TEXT,
    "dtype": TEXT,
    "model": _optional(TEXT),
    "intensity": _optional(TEXT),
    "pixels": _optional(HEX),
    "decoders": STRINGS,
    "versions": STRINGS,
}

CERTIFICATE: dict[str, Check] = {
    "schema": _exactly("certimed/certificate/2"),
    "kind": _one_of("classes", "mask", "interval"),
    "item": TEXT,
    "method": TEXT,
    "claim": OBJECT,
    "law": OBJECT,
    "samples": OBJECT,
    "alpha": OBJECT,
    "scope": _one_of(*SCOPES),
    "chosen_from": TEXTS,
    "space": _one_of(*SPACES),
    "seed": INTEGER,
    "shape": SPACE_SHAPE,
    "views": _optional((_two_levels, "two numbers > 0")),
    "provenance": OBJECT,
    "placement": OBJECT,
    "native": _optional(OBJECT),
}

CLAIMS: dict[str, dict[str, Check]] = {
    "classes": {
        "prediction": COUNT,
        "abstained": BOOLEAN,
        "radius": NOT_NEGATIVE,
        "p_lower": (lambda value: _real(value) and 0 <= value < 1, "a number from 0 to below 1"),
        "q_upper": _optional((lambda value: _real(value) and 0 < value <= 1, "a number above 0, at most 1")),
        "bound": _one_of("one-sided", "two-sided", "best"),
        "counts": COUNTS,
        "selection": COUNTS,
    },
    "mask": {
        "radius": NOT_NEGATIVE,
        "share_certified": SHARE,
        "threshold": _optional(POSITIVE_COUNT),
        "num_classes": (lambda value: _whole(value, 2), "a whole number >= 2"),
        "tau": TAU,
        "correction": _one_of(*CORRECTIONS),
        "sigma": POSITIVE,
        "arrays_sha256": HEX,
    },
    "interval": {
        "radius": NOT_NEGATIVE,
        "radii": (lambda value: _reals(value) and bool(value), "a list of one or more numbers"),
        "intervals": (lambda value: isinstance(value, list) and bool(value), "a list of one or more measurements"),
    },
}

INTERVAL: dict[str, Check] = {
    "name": TEXT,
    "unit": TEXT,
    "values": (_reals, "a list of numbers"),
    "undefined": COUNT,
    "lower": ENDS,
    "upper": ENDS,
    "median": _optional(REAL),
    "threshold": _optional(REAL),
    "width": _optional(POSITIVE),
}
_INTEGERS_OF_A_LOOK = {"classes": 3, "mask": 2, "interval": 1}

SAMPLES: dict[str, Check] = {
    "n0": COUNT,
    "n": (lambda value: _whole(value, 1) and value <= _MOST_SAMPLES, f"a whole number from 1 to {_MOST_SAMPLES}"),
    "budget": TEXT,
    "looks": (
        lambda value: isinstance(value, list) and bool(value) and all(_wholes(look, 0, 1) for look in value),
        "a list of looks",
    ),
    "proved_at": COUNT,
    "stop": OBJECT,
}

STOP: dict[str, Check] = {"kind": _one_of(*STOPS)}
STOP_DETAILS: dict[str, Check] = {
    "above": NOT_NEGATIVE,
    "below": NOT_NEGATIVE,
    "agreeing": POSITIVE_COUNT,
    "undecided": COUNT,
}
"""Fields of a stop that stand there only where there is something to say."""

ALPHA: dict[str, Check] = {"level": LEVEL, "total": LEVEL, "of": POSITIVE_COUNT, "why": _one_of(*SHARES)}

PLACEMENT: dict[str, Check] = {"on_grid": BOOLEAN, "rounding": NOT_NEGATIVE, "slack": NOT_NEGATIVE}

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

PLACE: dict[str, Check] = {
    "affine": (
        lambda rows: isinstance(rows, list) and len(rows) == 4 and all(_reals(row) and len(row) == 4 for row in rows),
        "four rows of four numbers",
    ),
    "shape": SPACE_SHAPE,
    "source": _one_of("nifti", "dicom-series", "dicom-frames"),
}

RECORD: dict[str, Check] = {
    "schema": _exactly("certimed/record/2"),
    "item": TEXT,
    "status": _one_of("certified", "failed"),
    "reason": _optional(TEXT),
    "label": _optional(COUNT),
    "group": _optional(TEXT),
    "intensity": _optional(OBJECT),
    "place": _optional(OBJECT),
    "clean": (lambda value: isinstance(value, dict) and all(map(_whole, value.values())), "an object of class indices"),
    "certificates": LIST,
    "scores": OBJECT,
    "sha256": HEX,
}

MANIFEST: dict[str, Check] = {
    "request": OBJECT,
    "model": OBJECT,
    "methods": (lambda value: isinstance(value, list) and bool(value), "a list of methods"),
    "classes": LIST,
    "data": OBJECT,
    "provenance": OBJECT,
}

REQUEST: dict[str, Check] = {
    "task": _one_of("classes", "mask", "interval"),
    "target": OBJECT,
    "sigma": POSITIVE,
    "noise": _one_of("grid", "float32"),
    "budget": TEXT,
    "n0": COUNT,
    "alpha": LEVEL,
    "seed": INTEGER,
    "space": _one_of(*SPACES),
}

KINDS = (
    *("plain", "few-shot", "zero-shot", "both", "pool", "per-sample", "split", "denoised"),
    *("adapted", "test-time-lora"),
)
METHOD: dict[str, Check] = {
    "name": TEXT,
    "kind": _one_of(*KINDS),
    "scope": _one_of(*SCOPES),
    "identity": _optional(TEXT),
    "adapter": _optional(HEX),
}

SHARD: dict[str, Check] = {"index": POSITIVE_COUNT, "count": POSITIVE_COUNT, "images": COUNT, "ids_sha256": HEX}


SETTINGS: dict[str, Check] = {
    "axes": (lambda value: isinstance(value, list) and bool(value), "a list of one or more settings"),
    "image": SPACE_SHAPE,
}
SETTING: dict[str, Check] = {
    **dict.fromkeys(("name", "unit"), TEXT),
    "how": _one_of("added", "multiplied"),
    "scale": POSITIVE,
    "at": REAL,
    "reach": NOT_NEGATIVE,
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


def certificate_shape(data: Any) -> Iterator[str]:
    """As :func:`shape_faults` of a certificate, all its parts included."""
    varied = isinstance(data, dict) and data.get("space") == "settings"
    faults = list(shape_faults(data, CERTIFICATE | ({"settings": OBJECT} if varied else {})))
    if faults:
        yield from faults
        return
    if varied:
        yield from (f"settings: {fault}" for fault in shape_faults(data["settings"], SETTINGS))
    kind, stop = data["kind"], data["samples"].get("stop")
    details = {name: check for name, check in STOP_DETAILS.items() if isinstance(stop, dict) and name in stop}
    for part, wanted in (
        ("claim", CLAIMS[kind]),
        ("samples", SAMPLES),
        ("alpha", ALPHA),
        ("provenance", PROVENANCE),
        ("placement", PLACEMENT),
        *([("native", NATIVE)] if data["native"] is not None else []),
    ):
        yield from (f"{part}: {fault}" for fault in shape_faults(data[part], wanted))
    yield from (f"stop: {fault}" for fault in shape_faults(stop, {**STOP, **details}))
    looks = data["samples"].get("looks")
    integers = _INTEGERS_OF_A_LOOK[kind]
    if kind != "interval" and data["samples"].get("n0") == 0:
        yield f"samples: n0=0 selection samples choose nothing, and kind {kind!r} needs a choice"
    if isinstance(looks, list) and any(isinstance(look, list) and len(look) != integers for look in looks):
        yield f"samples: a look of a certificate of kind {kind!r} has {integers} integers"


def answered_space(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the masks of a certificate: the input's, or where noise is on settings, that of the image."""
    return tuple((data["settings"]["image"] if data["space"] == "settings" else data["shape"])[1:])


def pixels_of(data: Mapping[str, Any]) -> int:
    """Pixels that a certificate is about."""
    return math.prod(answered_space(data))
