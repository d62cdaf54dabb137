"""Are the ends of every interval the order statistics that its values prove?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

from certimed.verification.budgets import PUBLISHED_RADII, Allowance, read_budget
from certimed.verification.exact import context, fisher, number, upper_tail
from certimed.verification.laws import Law
from certimed.verification.looks import schedule_faults
from certimed.verification.shapes import INTERVAL, shape_faults

_BITS = 160
_ROUNDING = Fraction(1, 10**11)  # what outward rounding may cost an honest record: of hi, and of a level


def interval_claim_faults(data: dict[str, Any], law: Law) -> Iterator[str]:
    """Every false statement of the claim and samples of measurements, most basic first; none if it holds.

    Checked: that values are as many as samples and in order, the median, each end against the order statistic at its
    share of alpha (half for the last look that was planned, the rest equally for the others; equally over both ends of
    every radius of every measurement) with exact tails at Phi(R / sigma) moved by the law's drift, the radius, the
    looks, the stop. An end that claims too much is false by any margin; one that claims less is false unless outward
    rounding explains it. The values themselves only a redraw can check.
    """
    claim, samples = data["claim"], data["samples"]
    faults = [
        f"interval {i}: {fault}" for i, one in enumerate(claim["intervals"]) for fault in shape_faults(one, INTERVAL)
    ]
    allowed = read_budget(samples["budget"])
    if faults or allowed is None or samples["n0"]:
        yield from faults or [
            "its budget is none this version knows, or it has selection samples, which it has no use for"
        ]
        return
    if allowed.kind == "looks" and allowed.radii != PUBLISHED_RADII:
        yield f"budget {samples['budget']!r:.80} names radii, which are of classes"
    names = [one["name"] for one in claim["intervals"]]
    if len(set(names)) < len(names):
        yield "two of its measurements have one name"
    if any(a >= b for a, b in pairwise(claim["radii"])) or claim["radii"][0] <= 0:
        yield f"radii {claim['radii']!r:.120} must be above 0 and rise"
        return
    faults = list(schedule_faults(data, allowed)) + [
        f for one in claim["intervals"] for f in _value_faults(one, samples)
    ]
    if faults:
        yield from faults
        return
    if samples["proved_at"] != len(samples["looks"]) - 1 or samples["looks"][-1] != [samples["n"]]:
        yield f"intervals are claimed from the last of {len(samples['looks'])} looks, at n={samples['n']}"
        return
    share = allowed.share(len(samples["looks"]) - 1, Fraction(data["alpha"]["level"]))
    level = share / (2 * len(claim["intervals"]) * len(claim["radii"]))
    drift = law.drift(data["shape"], data["views"])
    for index, radius in enumerate(claim["radii"]):
        places = _places(samples["n"], radius, law.sigma, level, drift)
        for one in claim["intervals"]:
            for side, value in (("lower", one["lower"][index]), ("upper", one["upper"][index])):
                possible = {_end(one, samples["n"], place, side) for place in places}
                if value not in possible:
                    yield (
                        f"{one['name']!r:.60}: the {side} end {value!r} at radius {radius!r} is not what its values "
                        f"prove ({', '.join(map(repr, possible))})"
                    )
    finite = [
        radius
        for index, radius in enumerate(claim["radii"])
        if any(one[side][index] is not None for one in claim["intervals"] for side in ("lower", "upper"))
    ]
    if claim["radius"] != (finite[-1] if finite else 0):
        yield f"radius={claim['radius']!r} is not the largest with a finite end"
    yield from _stop_faults(data, allowed)


def request_faults(claim: dict[str, Any], target: dict[str, Any]) -> Iterator[str]:
    """Are these the measurements, radii, thresholds and widths that the run's target names?"""
    names = [one["name"] for one in claim["intervals"]]
    if names != target.get("measurements") or claim["radii"] != target.get("radii"):
        yield f"measurements {names!r:.120} at radii {claim['radii']!r:.80} are not those of the run"
    for field, told in (("threshold", "thresholds"), ("width", "widths")):
        listed = target.get(told)
        wanted = {}
        for text in listed if isinstance(listed, list) else []:
            name, _, value = str(text).rpartition("=")
            wanted[name.strip()] = value.strip()
        for one in claim["intervals"]:
            given, asked = one[field], wanted.get(one["name"])
            try:
                same = given is None if asked is None else given == float(asked)
            except ValueError:
                same = False
            if not same:
                yield f"{field} {given!r} of {one['name']!r:.60} is not the run's {asked!r:.40}"


def _value_faults(one: dict[str, Any], samples: dict[str, Any]) -> Iterator[str]:
    values, n = one["values"], samples["n"]
    if len(values) + one["undefined"] != n or any(a > b for a, b in pairwise(values)):
        yield f"{one['name']!r:.60}: {len(values)} values and {one['undefined']} undefined are not of n={n}, in order"
        return
    middle = (n + 1) // 2
    if one["median"] != (values[middle - 1] if middle <= len(values) else None):
        yield f"{one['name']!r:.60}: {one['median']!r} is not the median of its values"


def _end(one: dict[str, Any], n: int, place: int | None, side: str) -> float | None:
    """The value at a place, counted from the end that it bounds; None where it is infinite."""
    if place is None:
        return None
    at = place if side == "upper" else n + 1 - place - one["undefined"]
    values = one["values"]
    return values[at - 1] if 1 <= at <= len(values) else None


@lru_cache(maxsize=4096)
def _places(n: int, radius: float, sigma: float, level: Fraction, drift: Fraction) -> frozenset[int | None]:
    """Smallest u with P[Bin(n, Phi(R / sigma) + drift) >= u] <= level: exactly, and after honest outward rounding."""
    mp = context()
    scaled = int(mp.floor(mp.ncdf(number(Fraction(radius) / Fraction(sigma))) * mp.mpf(2) ** _BITS))
    exact = Fraction(scaled, 1 << _BITS)
    rounded = _smallest(n, exact * (1 + _ROUNDING) + 2 * drift, level * (1 - _ROUNDING))
    strict = _smallest(n, exact + drift, level)
    if strict is None or rounded is None:
        return frozenset({strict, rounded, *(range(strict, n + 1) if strict is not None else ())})
    return frozenset(range(strict, rounded + 1))


def _smallest(n: int, share: Fraction, level: Fraction) -> int | None:
    if share >= 1:
        return None
    target = number(level)
    low, high = 0, n + 1  # P(>= low) is above the level, P(>= high) = 0 is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_tail(middle, n, share) <= target else (middle, high)
    return high if high <= n else None


def _stop_faults(data: dict[str, Any], allowed: Allowance) -> Iterator[str]:
    """That no more samples would settle a goal is a forecast, which claims nothing and is not checked."""
    samples, stop = data["samples"], data["samples"]["stop"]
    asked = [one for one in data["claim"]["intervals"] if one["threshold"] is not None or one["width"] is not None]
    met = [_met(one) for one in asked]
    if stop["kind"] == "interrupted":
        return
    if set(stop) != {"kind"}:
        yield f"the stop {stop!r:.120} says more than an interval can"
    elif asked and all(met):
        wanted = "answered"
    elif samples["n"] == allowed.looks[-1]:
        wanted = "cap reached"
    elif not asked:
        yield f"it stopped at {samples['n']} samples, and nothing was asked"
        return
    else:
        wanted = "answered" if any(met) else "futile"
    if set(stop) == {"kind"} and stop["kind"] != wanted:
        yield f"the stop is {stop['kind']!r}, and its intervals say {wanted!r}"


def _met(one: dict[str, Any]) -> bool:
    low = -math.inf if one["lower"][-1] is None else one["lower"][-1]
    high = math.inf if one["upper"][-1] is None else one["upper"][-1]
    narrow = one["width"] is None or high - low <= one["width"]
    return narrow and (one["threshold"] is None or low > one["threshold"] or high < one["threshold"])


def moved_values(mine: dict[str, Any], its: dict[str, Any]) -> float:
    """How far the sorted values of two draws are apart: the largest distance over the range of the middle half."""
    farthest = 0.0
    for one, other in zip(mine["intervals"], its["intervals"]):
        a, b = one["values"], other["values"]
        if len(a) != len(b) or one["name"] != other["name"]:
            return math.inf
        if a:
            spread = a[3 * (len(a) - 1) // 4] - a[(len(a) - 1) // 4]
            apart = max(abs(x - y) for x, y in zip(a, b))
            farthest = max(farthest, apart / spread if spread else (math.inf if apart else 0.0))
    return farthest


def values_p_value(mine: dict[str, Any], its: dict[str, Any]) -> float:
    """Whether two draws are of one model: Fisher's test of how many values lie above the joint median, times theirs."""
    smallest = 1.0
    for one, other in zip(mine["intervals"], its["intervals"]):
        together = sorted(one["values"] + other["values"])
        if together:
            middle = together[len(together) // 2]
            above = [sum(value > middle for value in each["values"]) for each in (one, other)]
            sizes = [len(each["values"]) + each["undefined"] for each in (one, other)]
            smallest = min(smallest, fisher(above[0], sizes[0], above[1], sizes[1]))
    return min(1.0, len(mine["intervals"]) * smallest)
