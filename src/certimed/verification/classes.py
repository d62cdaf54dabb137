"""Is every number of a class certificate what its counts prove?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from certimed.verification.budgets import Allowance, Bet, Ladder, phi, read_budget
from certimed.verification.exact import context, lower_tail, number, quantile, upper_tail
from certimed.verification.laws import Law
from certimed.verification.looks import count_faults, schedule_faults
from certimed.verification.stops import class_stop_faults

SLACK = Fraction(1, 10**8)
"""How far below the exact bound a recorded one may lie, relative: ten times what outward rounding may cost."""

_RADIUS_SLACK = Fraction(1, 10**9)
_CERTAIN = 1 - 2.0**-53  # upper bounds from here on claim nothing
_TOO_LOW = "below the lower confidence bound"
_FAR_BETTER = 1e-6  # a look that was passed over proved more if its radius is larger by this, relative
_NORMAL = NormalDist()


def class_claim_faults(data: dict[str, Any], law: Law) -> Iterator[str]:
    """Every false statement of a class certificate's claim and samples, most basic first; none if it holds.

    Checked with exact tails: ``p_lower`` (Clopper-Pearson at the level, at the look's share of it where a budget splits
    it, at half of that for the bounds that pay for two sides), ``q_upper``, both moved by the law's drift; the radius
    (Cohen et al. 2019, Theorem 1), the abstention. One-sided grid and betting budgets: the claim against sequential
    thresholds computed anew (:mod:`certimed.verification.budgets`). Every budget: the looks, that ``proved_at`` is the
    one that proves the most, and the stop.
    A recorded value that would claim too much is false by any margin; one that claims less than the counts prove is
    false beyond :data:`SLACK`.
    """
    claim, samples = data["claim"], data["samples"]
    faults = list(_basic_faults(claim, samples))
    allowed = read_budget(samples["budget"])
    if not faults and allowed is None:
        faults = [f"budget {samples['budget']!r:.80} is none this version knows"]
    if faults or allowed is None:
        yield from faults
        return
    faults = list(schedule_faults(data, allowed)) or list(count_faults(data))
    if not faults and allowed.kind == "betting" and claim["bound"] != "one-sided":
        faults = [f"budget {samples['budget']!r:.80} does not serve bound {claim['bound']!r}"]
    if faults:
        yield from faults
        return
    level, drift = Fraction(data["alpha"]["level"]), law.drift(data["shape"], data["views"])
    sequential = claim["bound"] == "one-sided" and _SEQUENTIAL.get(allowed.kind)
    yield from (sequential or _split_faults)(data, allowed, level, drift)
    yield from _radius_faults(claim, law.sigma)
    yield from class_stop_faults(data, allowed)


def _basic_faults(claim: dict[str, Any], samples: dict[str, Any]) -> Iterator[str]:
    counts = claim["counts"]
    if sum(counts) != samples["n"]:
        yield f"the counts sum to {sum(counts)}, not to n={samples['n']}"
    selection = claim["selection"]
    if len(selection) != len(counts) or sum(selection) != samples["n0"]:
        yield f"the selection counts {selection!r:.120} are not of n0={samples['n0']} samples and {len(counts)} classes"
    elif claim["prediction"] != selection.index(max(selection)):
        yield f"prediction {claim['prediction']} is not the class that the selection samples chose"
    if (claim["q_upper"] is None) != (claim["bound"] == "one-sided"):
        yield f"q_upper={claim['q_upper']} does not belong to bound {claim['bound']!r}"


def _split_faults(data: dict[str, Any], allowed: Allowance, level: Fraction, drift: Fraction) -> Iterator[str]:
    """Confidence bounds at the look that counts, at its share of the level; no other look proves more."""
    claim, samples = data["claim"], data["samples"]
    at = samples["proved_at"]
    yield from _bound_faults(claim, samples["looks"][at], allowed.share(at, level), drift)
    if claim["abstained"] and at != len(samples["looks"]) - 1:
        yield f"proved_at={at}, but of looks that prove nothing the last one is recorded"
    for look, (n, k, rival) in enumerate(samples["looks"]):
        if look == at:
            continue
        found = _radius(k, rival, n, allowed.share(look, level), claim["bound"], data["law"]["sigma"], 2 * float(drift))
        if found > claim["radius"] * (1 + _FAR_BETTER) + 1e-9 * data["law"]["sigma"]:
            yield f"proved_at={at}, but look {look} proves a larger radius, {found:.6g}"
            return


def _ladder_faults(data: dict[str, Any], allowed: Allowance, level: Fraction, drift: Fraction) -> Iterator[str]:
    claim, samples, sigma = data["claim"], data["samples"], data["law"]["sigma"]
    p_lower, at, looks = claim["p_lower"], samples["proved_at"], samples["looks"]
    ladder = Ladder(allowed, level, sigma, drift)
    rung = ladder.rung(p_lower)
    n, k, _ = looks[at]
    if (p_lower == 0) != claim["abstained"] or (rung is None and p_lower != 0):
        yield f"p_lower={p_lower!r} is no probability this budget claims where abstained={claim['abstained']}"
        return
    if rung is not None and not ladder.proves(k, at, rung, p_lower):
        yield f"p_lower={p_lower!r} is not proved by {k} of {n} samples at look {at}"
        return
    if rung is None and at != len(looks) - 1:
        yield f"proved_at={at}, but of looks that prove nothing the last one is recorded"
    following = ladder.above(rung)
    for look, (n, k, _) in enumerate(looks):
        if ladder.proves(k, look, following, phi(following), surely=True):
            yield f"p_lower={p_lower!r} is less than {k} of {n} samples prove at look {look}"
            return
        if rung is not None and look < at and ladder.proves(k, look, rung, p_lower, surely=True):
            yield f"proved_at={at}, but look {look} proves the same already"
            return


def _betting_faults(data: dict[str, Any], allowed: Allowance, level: Fraction, drift: Fraction) -> Iterator[str]:
    claim, samples = data["claim"], data["samples"]
    p_lower, at, looks = claim["p_lower"], samples["proved_at"], samples["looks"]
    bet = Bet(allowed, level, data["law"]["sigma"], drift)
    if (p_lower == 0) != claim["abstained"]:
        yield f"p_lower={p_lower!r} does not belong to abstained={claim['abstained']}"
    elif p_lower > 0 and not bet.is_claim(p_lower):
        yield f"p_lower={p_lower!r} is not the probability that radius {allowed.radii[0]:g} needs"
    elif p_lower > 0 and not bet.proves(looks[at][1], at, p_lower):
        yield f"p_lower={p_lower!r} is not proved by {looks[at][1]} of {looks[at][0]} samples at look {at}"
    elif at != len(looks) - 1:
        yield f"proved_at={at}, but a bet ends with the look that decides it"
    for look, (n, k, _) in enumerate(looks):
        if (look < at or p_lower == 0) and bet.proves(k, look):
            yield f"the bet was won before, by {k} of {n} samples at look {look}"
            return


_SEQUENTIAL = {"grid": _ladder_faults, "betting": _betting_faults}


def _bound_faults(claim: dict[str, Any], look: list[int], level: Fraction, drift: Fraction) -> Iterator[str]:
    n, k, rival = look
    share = level if claim["bound"] == "one-sided" else level / 2
    fault = _lower_fault(k, n, share, claim["p_lower"], drift)
    if fault is not None:
        yield f"p_lower={claim['p_lower']!r} is {fault} for {k} of {n} samples at level {float(share):.6g}"
    if claim["q_upper"] is not None:
        ceiling = 1 - Fraction(claim["p_lower"]) if claim["bound"] == "best" else None
        fault = _upper_fault(rival, n, share, claim["q_upper"], ceiling, drift)
        if fault is not None:
            yield f"q_upper={claim['q_upper']!r} is {fault} for {rival} of {n} samples at level {float(share):.6g}"


@lru_cache(maxsize=65536)
def _lower_fault(k: int, n: int, level: Fraction, claimed: float, drift: Fraction) -> str | None:
    target = number(level)

    def holds(p: Fraction) -> bool:
        return p <= 0 or (p < 1 and bool(upper_tail(k, n, p) <= target))

    p = Fraction(claimed)
    if p > 0 and not holds(p + drift):
        return "above the lower confidence bound"
    tighter = p * (1 + SLACK) + 2 * drift
    if k > 0 and tighter < 1 and holds(tighter):
        return _TOO_LOW
    return None


@lru_cache(maxsize=65536)
def _upper_fault(
    k: int, n: int, level: Fraction, claimed: float, ceiling: Fraction | None, drift: Fraction
) -> str | None:
    """``ceiling``: another upper bound that holds too; the smaller of the two is to be recorded."""
    target = number(level)

    def holds(value: Fraction, drift: Fraction) -> bool:
        if value >= Fraction(_CERTAIN) or (ceiling is not None and value >= ceiling):
            return True
        return k < n and value > drift and bool(lower_tail(k, n, value - drift) <= target)

    q = Fraction(claimed)
    if not holds(q, drift):
        return "below the upper confidence bound"
    return "above the upper confidence bound" if holds(q * (1 - SLACK), 2 * drift) else None


def _radius_faults(claim: dict[str, Any], sigma: float) -> Iterator[str]:
    radius, abstained = Fraction(claim["radius"]), claim["abstained"]
    exact, slack = _exact_radius(claim["p_lower"], claim["q_upper"], sigma)
    if abstained and radius != 0:
        yield f"radius={claim['radius']!r} is claimed where nothing was proved (abstained)"
    elif abstained and exact > slack:
        yield f"it abstains, but its bounds prove a radius of {float(exact):.9g}"
    elif not abstained and radius <= 0:
        yield "it does not abstain, and its radius is 0"
    elif not abstained and number(radius) > exact:
        yield f"radius={claim['radius']!r} is more than its bounds prove ({float(exact):.9g})"
    elif not abstained and number(radius) < exact - slack:
        yield f"radius={claim['radius']!r} is not the radius its bounds prove ({float(exact):.9g})"


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


def _radius(k: int, rival: int, n: int, level: Fraction, bound: str, sigma: float, drift: float) -> float:
    """The radius that counts prove, in float64; 0 where they prove none. For looks that nothing is claimed from."""
    share = float(level if bound == "one-sided" else level / 2)
    if (k <= rival and bound != "one-sided") or (bound == "one-sided" and 2 * k <= n):
        return 0.0
    p = _clopper_pearson(k, n, share) - drift
    q = 1.0 if bound == "one-sided" else 1 - _clopper_pearson(n - rival, n, share) + drift
    q = q if bound == "two-sided" else min(q, 1 - p)
    return sigma / 2 * (_NORMAL.inv_cdf(p) - _NORMAL.inv_cdf(q)) if 0 < q < p < 1 else 0.0


@lru_cache(maxsize=65536)
def _clopper_pearson(k: int, n: int, level: float) -> float:
    """Largest p with P(Bin(n, p) >= k) <= level, by bisection in float64."""
    low, high = 0.0, k / n
    if k == 0 or _log_tail(k, n, high * (1 - 1e-12)) <= math.log(level):
        return low if k == 0 else high * (1 - 1e-12)
    for _ in range(48):
        middle = (low + high) / 2
        if middle > 0 and _log_tail(k, n, middle) > math.log(level):
            high = middle
        else:
            low = middle
    return low


def _log_tail(k: int, n: int, p: float) -> float:
    """log P(Bin(n, p) >= k) for p up to k / n."""
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    log += k * math.log(p) + (n - k) * math.log1p(-p)
    odds = p / (1 - p)
    term = total = 1.0
    for j in range(k, n):
        term *= (n - j) / (j + 1) * odds
        total += term
        if term < 1e-13 * total:
            break
    return log + math.log(total)
