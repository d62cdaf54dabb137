"""Is every number of a class certificate what its counts prove?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from certimed.verification.exact import context, lower_tail, number, quantile, upper_tail
from certimed.verification.native import native_faults
from certimed.verification.shapes import CLASS_CERTIFICATE, certificate_faults

SLACK = Fraction(1, 10**8)
"""How far below the exact bound a recorded one may lie, relative: ten times what outward rounding may cost."""

_RADIUS_SLACK = Fraction(1, 10**9)
_CHOSEN = re.compile(
    r"Chosen as the largest radius of (\d{1,4}) methods \((.*)\): each was bounded at alpha/(\d{1,4}) ="
)


def class_faults(data: Any) -> Iterator[str]:
    """Every false statement of a class certificate, most basic first; none if it holds.

    Checked with exact tails: ``p_lower`` (Clopper-Pearson at alpha, or at alpha/2 for the bounds that pay for two
    sides), ``q_upper``, the radius (Cohen et al. 2019, Theorem 1), the abstention; and the radius at native resolution.
    A recorded value that would claim too much is false by any margin; one that claims less than the counts prove is
    false beyond :data:`SLACK`.
    """
    faults = list(certificate_faults(data, CLASS_CERTIFICATE))
    if not faults:
        faults = list(_count_faults(data))
    if faults:
        yield from faults
        return
    level, fault = _level(data)
    if fault is not None:
        yield fault
        return
    yield from _bound_faults(data, level)
    yield from _radius_faults(data)
    yield from native_faults(data)


def _count_faults(data: dict[str, Any]) -> Iterator[str]:
    counts = data["counts"]
    if sum(counts) != data["n"]:
        yield f"the counts sum to {sum(counts)}, not to n={data['n']}"
    if data["prediction"] >= len(counts):
        yield f"prediction {data['prediction']} is no index into the {len(counts)} counts"
    if data["budget"] != f"fixed:{data['n']}":
        yield f"budget {data['budget']!r:.80} is not one this version can check"
    if (data["q_upper"] is None) != (data["bound"] == "one-sided"):
        yield f"q_upper={data['q_upper']} does not belong to bound {data['bound']!r}"


def _level(data: dict[str, Any]) -> tuple[Fraction, str | None]:
    """The failure probability the bounds were computed for: alpha, shared among methods where a note says so."""
    level = Fraction(data["alpha"])
    for note in data["notes"]:
        if "largest radius of" not in note and "Bonferroni" not in note:
            continue
        found = _CHOSEN.match(note)
        if found is None or int(found[1]) != int(found[3]) or int(found[1]) != len(found[2].split(", ")):
            return level, f"the note {note!r:.120} is not one this version can check"
        level /= max(1, int(found[1]))
    return level, None


def _bound_faults(data: dict[str, Any], level: Fraction) -> Iterator[str]:
    counts, n, top = data["counts"], data["n"], data["prediction"]
    share = level if data["bound"] == "one-sided" else level / 2
    fault = _lower_fault(counts[top], n, share, data["p_lower"])
    if fault is not None:
        yield f"p_lower={data['p_lower']!r} is {fault} for {counts[top]} of {n} samples at level {float(share):.6g}"
    if data["q_upper"] is not None:
        rival = max(count for index, count in enumerate(counts) if index != top)
        ceiling = 1 - Fraction(data["p_lower"]) if data["bound"] == "best" else None
        fault = _upper_fault(rival, n, share, data["q_upper"], ceiling)
        if fault is not None:
            yield f"q_upper={data['q_upper']!r} is {fault} for {rival} of {n} samples at level {float(share):.6g}"


@lru_cache(maxsize=65536)
def _lower_fault(k: int, n: int, level: Fraction, claimed: float) -> str | None:
    p = Fraction(claimed)
    if k == 0 or p == 0:
        return None if k == 0 and p == 0 else "not the lower confidence bound"
    target = number(level)
    if upper_tail(k, n, p) > target:
        return "above the lower confidence bound"
    tighter = p * (1 + SLACK)
    if tighter < 1 and upper_tail(k, n, tighter) <= target:
        return "below the lower confidence bound"
    return None


@lru_cache(maxsize=65536)
def _upper_fault(k: int, n: int, level: Fraction, claimed: float, ceiling: Fraction | None) -> str | None:
    """``ceiling``: another upper bound that holds too; the smaller of the two is to be recorded."""
    q = Fraction(claimed)
    target = number(level)

    def holds(value: Fraction) -> bool:
        if value >= 1 or (ceiling is not None and value >= ceiling):
            return True
        return k < n and bool(lower_tail(k, n, value) <= target)

    if not holds(q):
        return "below the upper confidence bound"
    return "above the upper confidence bound" if holds(q * (1 - SLACK)) else None


def _radius_faults(data: dict[str, Any]) -> Iterator[str]:
    radius, abstained = Fraction(data["radius"]), data["abstained"]
    exact, slack = _exact_radius(data["p_lower"], data["q_upper"], data["sigma"])
    if abstained and radius != 0:
        yield f"radius={data['radius']!r} is claimed where nothing was proved (abstained)"
    elif abstained and exact > slack:
        yield f"it abstains, but its bounds prove a radius of {float(exact):.9g}"
    elif not abstained and radius <= 0:
        yield "it does not abstain, and its radius is 0"
    elif not abstained and number(radius) > exact:
        yield f"radius={data['radius']!r} is more than its bounds prove ({float(exact):.9g})"
    elif not abstained and number(radius) < exact - slack:
        yield f"radius={data['radius']!r} is not the radius its bounds prove ({float(exact):.9g})"


@lru_cache(maxsize=65536)
def _exact_radius(p_lower: float, q_upper: float | None, sigma: float) -> tuple[Any, Any]:
    """sigma/2 (Phi^-1(p) - Phi^-1(q)) with q = 1 - p where none is recorded, 0 if negative; and the slack allowed."""
    mp = context()
    p = Fraction(p_lower)
    q = 1 - p if q_upper is None else Fraction(q_upper)
    if p <= q:
        return mp.mpf(0), mp.mpf(0)
    high, low = quantile(p), quantile(q)
    scale = number(Fraction(sigma))
    return scale / 2 * (high - low), scale * number(_RADIUS_SLACK) * (abs(high) + abs(low))
