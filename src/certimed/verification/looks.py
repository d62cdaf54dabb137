"""Are the looks that a mask certificate under a budget records those its budget allows, each at its share of alpha?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

from certimed.verification.exact import number, upper_tail
from certimed.verification.shapes import LEVEL, POSITIVE_COUNT, TEXT, Check, shape_faults

_SPELLING = re.compile(r"pixels:([0-9]{1,9}(?:,[0-9]{1,9})*)(?:/[0-9.e-]{1,30})?")
_SHARE_SLACK = Fraction(1, 10**9)  # shares may be smaller than the exact ones by rounding, never larger
_STOPS = ("answered", "futile", "cap reached")

MASK_BUDGET: dict[str, Check] = {
    "budget": TEXT,
    "looks": (lambda value: isinstance(value, list) and bool(value), "a list of looks"),
    "stopped": TEXT,
}
"""Fields of a mask certificate whose n a budget chose; all of them or none."""

_LOOK: dict[str, Check] = {
    "n": POSITIVE_COUNT,
    "threshold": (lambda value: value is None or POSITIVE_COUNT[0](value), "a whole number >= 1 or null"),
    "alpha": LEVEL,
}


def level_of(data: dict[str, Any]) -> Fraction:
    """Failure probability spent on the recorded counts: alpha, or under a budget the last look's share of it."""
    return Fraction(data["looks"][-1]["alpha"] if "budget" in data else data["alpha"])


def look_faults(data: dict[str, Any]) -> Iterator[str]:
    """Every false statement about a budget, given the fields of :data:`MASK_BUDGET` and of the certificate.

    The shares are recomputed: half of alpha for the last look that was planned, the rest equally for the others. Of
    looks before the last one the counts are gone, and nothing is claimed from them; their thresholds are only checked
    to be possible.
    """
    faults = [f"look {i + 1}: {fault}" for i, look in enumerate(data["looks"]) for fault in shape_faults(look, _LOOK)]
    if faults:
        yield from faults
        return
    spelt = _SPELLING.fullmatch(data["budget"])
    sizes = [int(size) for size in spelt[1].split(",")] if spelt else []
    if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        yield f"budget {data['budget']!r:.80} is no list of looks"
        return
    yield from _schedule_faults(data, sizes)
    yield from _reason_faults(data, sizes)


def _schedule_faults(data: dict[str, Any], sizes: list[int]) -> Iterator[str]:
    held = [look["n"] for look in data["looks"]]
    if held != sizes[: len(held)]:
        yield f"looks were held at {held}, which budget {data['budget']} does not say"
        return
    last = data["looks"][-1]
    if (last["n"], last["threshold"]) != (data["n"], data["threshold"]):
        yield f"n={data['n']} and threshold={data['threshold']} are not those of the last look"
    for index, look in enumerate(data["looks"]):
        share = _share(Fraction(data["alpha"]), index, len(sizes))
        if not share * (1 - _SHARE_SLACK) <= Fraction(look["alpha"]) <= share:
            yield f"look {index + 1} spends alpha {look['alpha']!r}, its share is {float(share)!r}"
        threshold = look["threshold"]
        if threshold is None:
            continue
        # No step of any correction asks for less than the whole share.
        if threshold > look["n"] or upper_tail(threshold, look["n"], Fraction(data["tau"])) > number(share):
            yield f"look {index + 1} cannot certify {threshold} of {look['n']} agreeing samples"


def _share(alpha: Fraction, index: int, looks: int) -> Fraction:
    if looks == 1:
        return alpha
    return alpha / 2 if index == looks - 1 else alpha / (2 * (looks - 1))


def _reason_faults(data: dict[str, Any], sizes: list[int]) -> Iterator[str]:
    stop, _, said = data["stopped"].partition(": ")
    if stop not in _STOPS:
        yield f"stopped={data['stopped']!r:.80} is none of {', '.join(_STOPS)}"
    elif stop == "cap reached":
        if data["n"] != sizes[-1]:
            yield f"the cap {sizes[-1]} was not reached with n={data['n']}"
    elif (stop == "answered") != (data["share_certified"] > 0) or not said.startswith(
        f"{data['share_certified']:.2%} of pixels certified"
    ):
        yield f"stopped={data['stopped']!r:.80} contradicts share_certified={data['share_certified']!r}"
