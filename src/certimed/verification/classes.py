"""Is every number of a class certificate what its counts prove?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from certimed.verification.budgets import (
    Allowance,
    betting_fault,
    ladder_fault,
    ladder_modesty,
    read_budget,
    stopping_fault,
)
from certimed.verification.exact import context, lower_tail, number, quantile, upper_tail
from certimed.verification.native import native_faults
from certimed.verification.shapes import CLASS_CERTIFICATE, certificate_faults

SLACK = Fraction(1, 10**8)
"""How far below the exact bound a recorded one may lie, relative: ten times what outward rounding may cost."""

_RADIUS_SLACK = Fraction(1, 10**9)
_TOO_LOW = "below the lower confidence bound"
_CHOSEN = re.compile(
    r"Chosen as the largest radius of (\d{1,4}) methods \((.*)\): each was bounded at alpha/(\d{1,4}) ="
)


def class_faults(data: Any) -> Iterator[str]:
    """Every false statement of a class certificate, most basic first; none if it holds.

    Checked with exact tails: ``p_lower`` (Clopper-Pearson at alpha, at the look's share of it where a budget splits it,
    at half of that for the bounds that pay for two sides), ``q_upper``, the radius (Cohen et al. 2019, Theorem 1), the
    abstention; and the radius at native resolution. One-sided grid and betting budgets: the claim against sequential
    thresholds computed anew (:mod:`certimed.verification.budgets`). Every budget: that n is a look of it, how many were
    held, that the counts grew from those that proved the bound, and why it stopped, as far as counts can tell.
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
    allowed = read_budget(data["budget"])
    if allowed is None:
        yield f"budget {data['budget']!r:.80} is none this version knows"
        return
    faults = list(_budget_faults(data, allowed))
    if faults:
        yield from faults
        return
    sequential = data["bound"] == "one-sided" and _SEQUENTIAL.get(allowed.kind)
    yield from sequential(data, allowed, level) if sequential else _split_faults(data, allowed, level)
    yield from _radius_faults(data)
    yield from native_faults(data)


def _count_faults(data: dict[str, Any]) -> Iterator[str]:
    counts = data["counts"]
    if sum(counts) != data["n"]:
        yield f"the counts sum to {sum(counts)}, not to n={data['n']}"
    if data["prediction"] >= len(counts):
        yield f"prediction {data['prediction']} is no index into the {len(counts)} counts"
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


def _budget_faults(data: dict[str, Any], allowed: Allowance) -> Iterator[str]:
    """Could these samples have been drawn under this budget, and stopped for the reason given?"""
    counts, proved_at, n = data["counts"], data["proved_at"], data["n"]
    if allowed.kind == "betting" and data["bound"] != "one-sided":
        yield f"budget {data['budget']!r:.80} does not serve bound {data['bound']!r}"
    if n not in allowed.looks:
        yield f"n={n} is no look of budget {data['budget']!r:.80}"
        return
    held = 1 if allowed.looks_once else allowed.looks.index(n) + 1
    if data["looks"] != held:
        yield f"looks={data['looks']} is not the {held} that budget {data['budget']!r:.80} holds up to n={n}"
    if bool(proved_at) == data["abstained"]:
        yield "proved_at must be empty where it abstained, and nowhere else"
    elif proved_at:
        at = sum(proved_at)
        if len(proved_at) != len(counts) or any(a > b for a, b in zip(proved_at, counts)):
            yield f"proved_at={proved_at!r:.120} is no part of the counts"
        elif at not in allowed.looks or (allowed.looks_once and at != n):
            yield f"proved_at sums to {at}, which is no look of budget {data['budget']!r:.80}"
    fault = stopping_fault(data["stopped"], n, data["n0"], allowed, data["radius"])
    if fault is not None:
        yield fault


def _split_faults(data: dict[str, Any], allowed: Allowance, level: Fraction) -> Iterator[str]:
    """Confidence bounds at the look that counts, at its share of alpha; one-sided, the last look proves no more."""
    at = data["proved_at"] or data["counts"]
    yield from _bound_faults(data, at, allowed.share(sum(at), level))
    if data["bound"] == "one-sided" and at != data["counts"]:
        k, n = data["counts"][data["prediction"]], data["n"]
        if _lower_fault(k, n, allowed.share(n, level), data["p_lower"]) == _TOO_LOW:
            yield f"p_lower={data['p_lower']!r} is less than {k} of {n} samples prove"


def _ladder_faults(data: dict[str, Any], allowed: Allowance, level: Fraction) -> Iterator[str]:
    top, sigma, p_lower = data["prediction"], data["sigma"], data["p_lower"]
    if data["proved_at"]:
        look = allowed.looks.index(sum(data["proved_at"]))
        yield from _said(ladder_fault(data["proved_at"][top], look, allowed, level, sigma, p_lower))
    elif p_lower != 0:
        yield f"p_lower={p_lower!r} is claimed where nothing was proved (abstained)"
        return
    for counts in (data["proved_at"], data["counts"]) if data["proved_at"] != data["counts"] else (data["counts"],):
        if counts:
            look = allowed.looks.index(sum(counts))
            yield from _said(ladder_modesty(counts[top], look, allowed, level, sigma, p_lower))


def _betting_faults(data: dict[str, Any], allowed: Allowance, level: Fraction) -> Iterator[str]:
    at = data["proved_at"] or data["counts"]
    if (data["p_lower"] == 0) != data["abstained"]:
        yield f"p_lower={data['p_lower']!r} does not belong to abstained={data['abstained']}"
        return
    k, look = at[data["prediction"]], allowed.looks.index(sum(at))
    yield from _said(betting_fault(k, look, allowed, level, data["sigma"], data["p_lower"]))


_SEQUENTIAL = {"grid": _ladder_faults, "betting": _betting_faults}


def _said(fault: str | None) -> Iterator[str]:
    if fault is not None:
        yield fault


def _bound_faults(data: dict[str, Any], counts: list[int], level: Fraction) -> Iterator[str]:
    n, top = sum(counts), data["prediction"]
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
        return _TOO_LOW
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
