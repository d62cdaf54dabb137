"""Do the settings of a certificate say what its radius allows, and are they those that the run varies?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from certimed.verification.exact import context, number
from certimed.verification.laws import Law
from certimed.verification.shapes import SETTING, shape_faults

_FACTORS = ("window-width", "gain", "gamma", "crop-scale")
"""Settings that change by a factor; all others change by what is added."""

_GROUPS = {
    "box": ("box-left", "box-top", "box-right", "box-bottom"),
    "click": ("click-x", "click-y"),
    "crop": ("crop-x", "crop-y"),
}
_MOST = 6
_SLACK = Fraction(1, 10**9)
_SPELT = re.compile(r"(?P<name>[^=]+)=(?P<number>[0-9.eE+-]+)(?P<unit>[A-Za-z]*)")


def settings_faults(data: dict[str, Any], law: Law) -> Iterator[str]:
    """Every false statement about the settings of a certificate; none if it holds, or is in another space.

    Checked: that the input is one number for each setting and the noise is 1 (each setting is counted in units of its
    own), that a setting changes the way its name says, and the reach of each one alone: what the radius allows, less
    what settings off the law's grid lose, times its noise, or the factor whose logarithm that is.

    Args:
        data: a certificate whose fields, but for the settings themselves, have been checked.
        law: its noise.
    """
    if data["space"] != "settings":
        return
    axes = data["settings"]["axes"]
    faults = [f"settings: {fault}" for axis in axes for fault in shape_faults(axis, SETTING)]
    if faults:
        yield from faults
        return
    if data["shape"] != [len(axes), 1] or len(axes) > _MOST:
        yield f"settings: {len(axes)} settings are no input of shape {data['shape']}"
    if law.sigma != 1:
        yield f"settings: their noise is 1, each in its own unit, not sigma={law.sigma!r}"
    if data["native"] is not None:
        yield "settings: they have no native radius"
    names = [axis["name"] for axis in axes]
    if len(set(names)) < len(names):
        yield "settings: one comes twice"
    placement = data["placement"]
    loss = Fraction(placement["rounding"]) + Fraction(placement["slack"])
    radius = max(Fraction(0), Fraction(data["claim"]["radius"]) - loss)
    for axis in axes:
        if (axis["how"] == "multiplied") != (axis["name"] in _FACTORS):
            yield f"settings: {axis['name']!r:.60} is no setting that is {axis['how']}"
            continue
        if axis["how"] == "multiplied" and axis["at"] <= 0:
            yield f"settings: {axis['name']!r:.60} is {axis['at']!r}, which no factor can change"
        change = number(radius * Fraction(axis["scale"]))
        exact = context().exp(change) if axis["how"] == "multiplied" else change
        reach = number(Fraction(axis["reach"]))
        if not exact * (1 - number(_SLACK)) <= reach <= exact:
            name = axis["name"]
            yield f"settings: reach={axis['reach']!r} of {name!r:.60} is not the {float(exact):.9g} of its radius"


def without_reach(certificate: dict[str, Any]) -> Any:
    """What all certificates of one image have in common; None where noise is on pixels."""
    if certificate["space"] != "settings":
        return None
    axes = [
        {name: value for name, value in axis.items() if name != "reach"} for axis in certificate["settings"]["axes"]
    ]
    return axes, certificate["settings"]["image"]


def varied_faults(certificate: dict[str, Any], request: dict[str, Any]) -> Iterator[str]:
    """Are a certificate's settings those that the request of its run varies?"""
    wanted: list[tuple[str, float, str]] = []
    vary = request.get("vary", [])
    for entry in vary if isinstance(vary, list) else []:
        name, _, numbers = str(entry).rpartition("=")
        if name.startswith("python:"):
            wanted += [(f"{name}[{place}]", float(one), "") for place, one in enumerate(numbers.split("/"))]
        elif found := _SPELT.fullmatch(str(entry)):
            names = _GROUPS.get(found["name"], (found["name"],))
            wanted += [(one, float(found["number"]), found["unit"]) for one in names]
    axes = certificate["settings"]["axes"] if certificate["space"] == "settings" else []
    own = [(axis["name"], axis["scale"]) for axis in axes]
    if own != [one[:2] for one in wanted]:
        yield f"settings {own!r:.120} are not those the run varies, {vary!r:.120}"
        return
    for axis, (name, _, unit) in zip(axes, wanted):
        if unit and axis["unit"] != unit:
            yield f"the setting {name!r:.60} is in {axis['unit']!r:.20}, and the run varies it in {unit!r:.20}"
