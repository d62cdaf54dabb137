"""Settings by name: in which unit the noise is given, and whether changes add or multiply. One row each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from certimed.certificates import ADDED, MULTIPLIED
from certimed.errors import InputError
from certimed.usercode import PREFIX

MOST = 6
"""Settings that can be varied together."""

WINDOW, SHADE, VIEW, SLICE, PROMPT, OWN = "window", "shade", "view", "slice", "prompt", "own"
"""Stages of a workflow at which settings act."""


@dataclass(frozen=True)
class Kind:
    """A kind of setting.

    Attributes:
        how: ``"added"`` or ``"multiplied"`` (the noise is on the logarithm).
        units: in which the noise may be given; the first one where none is. ``"%"`` may stand for hundredths anywhere.
        stage: where in the workflow it acts.
        about: what it is, in a few words.
    """

    how: str
    units: tuple[str, ...]
    stage: str
    about: str


KINDS: dict[str, Kind] = {
    "window-center": Kind(ADDED, ("", "HU", "grey"), WINDOW, "centre of the window, in the image's own units"),
    "window-width": Kind(MULTIPLIED, ("",), WINDOW, "width of the window, by a factor"),
    "gain": Kind(MULTIPLIED, ("",), SHADE, "exposure: brightness by a factor, before clipping"),
    "offset": Kind(ADDED, ("",), SHADE, "brightness added, in parts of the display range, before clipping"),
    "gamma": Kind(MULTIPLIED, ("",), SHADE, "exponent of the brightness, by a factor"),
    "crop-x": Kind(ADDED, ("px", "mm"), VIEW, "offset of the viewport to the right"),
    "crop-y": Kind(ADDED, ("px", "mm"), VIEW, "offset of the viewport downwards"),
    "crop-scale": Kind(MULTIPLIED, ("",), VIEW, "side of the viewport, by a factor"),
    "rotation": Kind(ADDED, ("deg",), VIEW, "rotation of the viewport about its middle"),
    "slice": Kind(ADDED, ("slices",), SLICE, "position of the slice in its volume, interpolated"),
    **{
        f"box-{side}": Kind(ADDED, ("px", "mm"), PROMPT, f"{side} side of the box that a segmenter is given")
        for side in ("left", "top", "right", "bottom")
    },
    "click-x": Kind(ADDED, ("px", "mm"), PROMPT, "place of the click that a segmenter is given, to the right"),
    "click-y": Kind(ADDED, ("px", "mm"), PROMPT, "the same, downwards"),
}
GROUPS = {
    "box": ("box-left", "box-top", "box-right", "box-bottom"),
    "click": ("click-x", "click-y"),
    "crop": ("crop-x", "crop-y"),
}
"""Names that stand for several settings with one noise."""

_ASSIGNED = re.compile(r"\s*(?P<name>[^=]+?)\s*=\s*(?P<number>[0-9.eE+-]+)\s*(?P<unit>[A-Za-z%]*)\s*")


@dataclass(frozen=True)
class Axis:
    """One setting and its noise, as asked for.

    Attributes:
        name: one of :data:`KINDS`, or ``"python:MODULE:FUNCTION[index]"``.
        kind: its row.
        scale: standard deviation of the noise, in ``unit`` or of the logarithm.
        unit: see :class:`Kind`.
    """

    name: str
    kind: Kind
    scale: float
    unit: str


def read_vary(entries: Sequence[str]) -> tuple[Axis, ...]:
    """Settings and their noise, spelt ``NAME=NUMBER[UNIT]``: ``window-center=30HU``, ``window-width=0.2``, ``box=4px``.

    ``python:MODULE:FUNCTION=NUMBER/NUMBER/...`` is a function of one's own, with a noise for each of its settings.

    Raises:
        InputError: an unknown name or unit, a noise that is no positive number, a setting that comes twice, more than
            :data:`MOST`, or a function of one's own beside settings that act before it.
    """
    axes = [axis for entry in entries for axis in _read(entry)]
    names = [axis.name for axis in axes]
    if not 1 <= len(axes) <= MOST:
        raise InputError(f"{len(axes)} settings are varied; name 1 to {MOST}, e.g. window-center=30HU")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the setting {twice[0]} is varied twice; name it once")
    own = {axis.name.partition("[")[0] for axis in axes if axis.kind.stage == OWN}
    if len(own) > 1 or (own and {axis.kind.stage for axis in axes} - {OWN, SHADE}):
        raise InputError(
            f"{min(own)} makes the image of the raw values, so that only gain, offset and gamma can follow it; vary "
            "the others inside of it"
        )
    stages = {axis.kind.stage for axis in axes}
    if PROMPT in stages and stages != {PROMPT}:
        raise InputError("a box or click is varied on an image that was embedded once; vary nothing else beside it")
    return tuple(axes)


def spelt(axes: Sequence[Axis]) -> tuple[str, ...]:
    """The one spelling of settings and their noise, which :func:`read_vary` reads back."""
    found: list[str] = []
    for axis in axes:
        name = axis.name.partition("[")[0]
        if axis.kind.stage == OWN and found and found[-1].startswith(f"{name}="):
            found[-1] += f"/{axis.scale!r}"
        else:
            found.append(f"{name}={axis.scale!r}{axis.unit}")
    return tuple(found)


def _read(entry: str) -> list[Axis]:
    if entry.strip().startswith(PREFIX):
        name, _, numbers = entry.strip().rpartition("=")
        row = Kind(ADDED, ("",), OWN, "a setting of a function of one's own")
        return [
            Axis(f"{name}[{place}]", row, _positive(number, entry), "")
            for place, number in enumerate(numbers.split("/"))
        ]
    found = _ASSIGNED.fullmatch(entry)
    if found is None:
        raise InputError(f"vary {entry!r:.80} is not NAME=NUMBER with a unit; write e.g. window-center=30HU")
    names = GROUPS.get(found["name"], (found["name"],))
    scale, unit = _positive(found["number"], entry), found["unit"]
    axes = []
    for name in names:
        if name not in KINDS:
            raise InputError(
                f"vary {entry!r:.80}: the setting {name!r:.40} is unknown; use one of {', '.join(KINDS)}, "
                f"{', '.join(GROUPS)}, or python:MODULE:FUNCTION"
            )
        kind = KINDS[name]
        if unit == "%" and "" in kind.units:
            axes.append(Axis(name, kind, scale / 100, ""))
        elif (unit or kind.units[0]) in kind.units:
            axes.append(Axis(name, kind, scale, unit or kind.units[0]))
        else:
            wanted = " or ".join(one for one in kind.units if one) or "no unit"
            raise InputError(f"vary {entry!r:.80}: {name} is given in {wanted}")
    return axes


def _positive(text: str, entry: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e6:
        raise InputError(f"vary {entry!r:.80}: the noise {text!r:.20} must be a number above 0")
    return number
