"""Did the samples end for the reason that is recorded?"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from certimed.verification.budgets import Allowance


def class_stop_faults(data: dict[str, Any], allowed: Allowance) -> Iterator[str]:
    """What is false about the stop of a class certificate whose looks have been checked.

    With reported radii (looks, grid, betting): ``above`` and ``below`` are the reported radii around the recorded
    radius, and the kind follows from them and from whether the cap was reached. That the next radius is out of reach is
    a forecast, which claims nothing and is not checked.
    """
    samples, stop, radius = data["samples"], data["samples"]["stop"], data["claim"]["radius"]
    looks, details = samples["looks"], {name: value for name, value in stop.items() if name != "kind"}
    if stop["kind"] == "interrupted":
        yield from _unasked(stop, details)
        return
    if samples["n"] != looks[-1][0]:
        yield f"{samples['n'] - looks[-1][0]} samples were drawn after the last look, and it was not interrupted"
        return
    if allowed.kind == "planned":
        if stop["kind"] != "answered" or set(details) != {"agreeing"}:
            yield f"the stop {stop!r:.120} is not that of a number of samples planned from {samples['n0']}"
        return
    if not allowed.radii:
        if stop != {"kind": "cap reached"}:
            yield f"the stop {stop!r:.120} is not 'cap reached', which a fixed number of samples ends with"
        return
    reached = [r for r in allowed.radii if r < radius]
    wanted: dict[str, Any] = {"above": reached[-1]} if reached else {}
    if len(reached) == len(allowed.radii):
        wanted["kind"] = "answered"
        if samples["proved_at"] != len(looks) - 1:
            yield "samples were drawn after every reported radius was answered"
    else:
        wanted["below"] = allowed.radii[len(reached)]
        at_cap = looks[-1][0] == allowed.looks[-1]
        wanted["kind"] = "cap reached" if at_cap else "answered" if reached else "futile"
    if stop != wanted:
        yield f"the stop is {stop!r:.120}, and its numbers say {wanted!r}"


def mask_stop_faults(data: dict[str, Any], allowed: Allowance, possible: tuple[int, int]) -> Iterator[str]:
    """What is false about the stop of a mask certificate.

    Args:
        possible: fewest and most pixels of this tau that may be undecided.
    """
    samples, stop, claim = data["samples"], data["samples"]["stop"], data["claim"]
    details = {name: value for name, value in stop.items() if name != "kind"}
    if stop["kind"] == "interrupted":
        yield from _unasked(stop, details)
        return
    if samples["n"] != samples["looks"][-1][0]:
        yield f"n={samples['n']} is not that of the last look"
        return
    if len(allowed.looks) == 1:
        if stop != {"kind": "cap reached"}:
            yield f"the stop {stop!r:.120} is not 'cap reached', which a fixed number of samples ends with"
        return
    if set(details) != {"undecided"}:
        yield f"the stop {stop!r:.120} must say how many pixels are undecided, and nothing else"
        return
    pixels, alone, undecided = _pixels(data), data["alpha"]["why"] != "taus", details["undecided"]
    few, most = possible
    if not few <= undecided <= (most if alone else pixels):
        yield f"undecided={undecided} is not the {few} to {most} pixels its counts leave open"
    enough = undecided <= Fraction(allowed.loss[0] if allowed.loss else 0.0) * pixels
    if (stop["kind"] == "cap reached") == enough:
        yield f"the stop is {stop['kind']!r} with {undecided} of {pixels} pixels undecided under {samples['budget']}"
    elif not enough and samples["n"] != allowed.looks[-1]:
        yield f"the cap {allowed.looks[-1]} was not reached with n={samples['n']}"
    elif enough and (stop["kind"] == "answered") < (claim["share_certified"] > 0):
        yield "it was futile, and pixels are certified"
    elif enough and alone and stop["kind"] == "answered" and claim["share_certified"] == 0:
        yield "it was answered, and no pixel is certified"


def _unasked(stop: dict[str, Any], details: dict[str, Any]) -> Iterator[str]:
    if details:
        yield f"an interrupted image has answered nothing, but its stop is {stop!r:.120}"


def _pixels(data: dict[str, Any]) -> int:
    found = 1
    for size in data["shape"][1:]:
        found *= size
    return found
