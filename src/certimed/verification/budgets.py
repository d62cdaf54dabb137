"""What a budget's spelling allows, and which counts prove a claim under it, computed anew.

A walk is carried from look to look in float64. All its terms are non-negative sums and products, so its relative error
is below 1e-10 for up to a million samples (4e-16 a term of a binomial window, of at most 2 100 terms; as much again for
each of at most 50 convolutions); the procedure itself leaves 1e-9 of every tail, and 1e-15 a look, on the safe side.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.verification.exact import context, number, quantile, upper_tail

PUBLISHED_RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
_NUMBER = r"[0-9][0-9.e+-]{0,24}"
_NUMBERS = rf"{_NUMBER}(?:,{_NUMBER}){{0,63}}"
_SIZE = r"[1-9][0-9]{0,6}"
_SPELLINGS = {
    "fixed": re.compile(r"fixed:(?P<n>[1-9][0-9]{0,9})"),
    "looks": re.compile(rf"looks:(?P<sizes>{_SIZE}(?:,{_SIZE}){{0,255}})(?:/(?P<radii>{_NUMBERS}))?"),
    "grid": re.compile(rf"grid(?::(?P<radii>{_NUMBERS}))?@(?P<n>{_SIZE})"),
    "betting": re.compile(rf"betting:(?P<radii>{_NUMBER})@(?P<n>{_SIZE})"),
    "precision": re.compile(rf"precision:{_NUMBER}(?:,{_NUMBER})?@(?P<n>{_SIZE})"),
}
_RUNG = Fraction(1, 100)  # of sigma, between the rungs of the ladder of claims
_NEAR_RUNG = Fraction(1, 10**6)
_OUTSIDE = 1e-15
_WEALTH_MARGIN = 1e-7
_FAR = 8  # sigma: beyond it float64 has no probabilities


@dataclass(frozen=True)
class Allowance:
    """A budget as read by the verifier.

    Attributes:
        kind: ``"fixed"``, ``"looks"``, ``"grid"``, ``"betting"`` or ``"precision"``.
        looks: sample sizes at which counts are looked at; for ``"precision"`` the sizes of which one is planned.
        radii: reported radii, or the one betted on; empty for the other kinds.
    """

    kind: str
    looks: tuple[int, ...]
    radii: tuple[float, ...] = ()

    @property
    def looks_once(self) -> bool:
        """Whether only one of the looks is held, with all of alpha."""
        return self.kind in ("fixed", "precision")

    def share(self, n: int, alpha: Fraction) -> Fraction:
        """Share of alpha of the look at n samples, where alpha is split: half for the last, the rest equally."""
        if self.looks_once or len(self.looks) == 1:
            return alpha
        return alpha / 2 if n == self.looks[-1] else alpha / (2 * (len(self.looks) - 1))


@lru_cache(maxsize=64)
def read_budget(text: str) -> Allowance | None:
    """The budget of a spelling, None if it is none."""
    for kind, pattern in _SPELLINGS.items():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        given = found.groupdict()
        try:
            radii = tuple(float(one) for one in given["radii"].split(",")) if given.get("radii") else ()
        except ValueError:
            return None
        if any(not 0 <= one < 1e9 for one in radii) or any(a >= b for a, b in pairwise(radii)):
            return None
        if kind == "looks":
            looks = tuple(int(size) for size in given["sizes"].split(","))
            increasing = all(a < b for a, b in pairwise(looks))
            return Allowance(kind, looks, radii or PUBLISHED_RADII) if increasing else None
        cap = int(given["n"])
        if kind == "fixed":
            return Allowance(kind, (cap,))
        first, ratio = {"grid": (64, Fraction(5, 4)), "betting": (32, Fraction(9, 8))}.get(kind, (32, Fraction(17, 16)))
        return Allowance(kind, _growing(cap, first, ratio), radii or (PUBLISHED_RADII if kind == "grid" else ()))
    return None


def _growing(cap: int, size: int, ratio: Fraction) -> tuple[int, ...]:
    """Multiples of 32 that grow by a ratio, and the cap."""
    sizes = []
    while size * size * ratio < cap * cap:
        sizes.append(size)
        size = 32 * math.ceil(size * ratio / 32)
    return (*sizes, cap)


def ladder_fault(k: int, look: int, allowed: Allowance, alpha: Fraction, sigma: float, p_lower: float) -> str | None:
    """What is false about the one-sided claim, on a ladder of claims, that k agreeing samples at a look prove p_lower.

    The claim needs k to reach the threshold of every probability up to ``p_lower``. Thresholds: the smallest counts for
    which P(any crossing up to look i) <= alpha (n_i / cap)^2 at the probability tested, from the walk of the count over
    all paths that have not crossed. Below the first probability at which even the tail of one look alone fits into what
    look i may spend, all thresholds are reached (that tail falls with p).
    """
    looks = allowed.looks
    place = _rung(p_lower, allowed, sigma)
    if place is None:
        return f"p_lower={p_lower!r} is no probability this budget claims"
    if k < _thresholds(looks, p_lower, alpha)[look]:
        return f"p_lower={p_lower!r} is not proved by {k} of {looks[look]} samples at look {look + 1}"
    step = math.ceil(place / _RUNG) - 1
    while step >= 0 and not _fits_alone(k, looks, look, (below := _phi(step * _RUNG)), alpha):
        if k < _thresholds(looks, below, alpha)[look]:
            return f"p_lower={p_lower!r} is not proved: {k} of {looks[look]} samples do not prove a smaller one"
        step -= 1
    return None


def ladder_modesty(k: int, look: int, allowed: Allowance, alpha: Fraction, sigma: float, p_lower: float) -> str | None:
    """Whether k agreeing samples at a look prove more than p_lower (0: nothing was claimed): the next rung up."""
    place = _rung(p_lower, allowed, sigma) if p_lower > 0 else Fraction(-1)
    above = [] if place is None else [max(math.floor(place / _RUNG + _NEAR_RUNG) + 1, 0) * _RUNG]
    above += [one for r in allowed.radii if place is not None and (one := _in_sigma(r, sigma)) > place + _NEAR_RUNG]
    following = min(above, default=_FAR)
    # A billionth above the rung: what proves even that proves the rung.
    if following < _FAR and k >= _thresholds(allowed.looks, _phi(following, 1e-9), alpha)[look]:
        return f"p_lower={p_lower!r} is less than {k} of {allowed.looks[look]} samples prove at look {look + 1}"
    return None


def _rung(p_lower: float, allowed: Allowance, sigma: float) -> Fraction | None:
    """Which rung a claimed probability is, in sigma; None if it is none."""
    if p_lower <= 0.5:
        return None
    z = _fraction(quantile(Fraction(p_lower)))
    places = [round(z / _RUNG) * _RUNG, *(_in_sigma(r, sigma) for r in allowed.radii)]
    nearest = min(places, key=lambda place: abs(place - z))
    return nearest if abs(nearest - z) <= _NEAR_RUNG else None


def betting_fault(k: int, look: int, allowed: Allowance, alpha: Fraction, sigma: float, p_lower: float) -> str | None:
    """What is false about the claim (or, with p_lower 0, the silence) of a bettor after k agreeing samples at a look.

    The claim holds if the wealth of the Krichevsky-Trofimov bettor against p reaches 2 / alpha, or, at the cap, if
    P(Bin(cap, p) >= k) is at most what a wealth test after every sample leaves of alpha.
    """
    n, cap = allowed.looks[look], allowed.looks[-1]
    wanted = _in_sigma(allowed.radii[0], sigma)
    null = p_lower if p_lower > 0 else _phi(wanted, 1e-9)
    if p_lower > 0 and abs(_fraction(quantile(Fraction(p_lower))) - wanted) > _NEAR_RUNG:
        return f"p_lower={p_lower!r} is not the probability that radius {allowed.radii[0]:g} needs"
    log_wanted = math.log(2 / float(alpha)) + _WEALTH_MARGIN
    proved = bool(_log_wealth(k, n, null) >= log_wanted) and k > n * null
    if n == cap and k > n * null and not proved:
        crossed = Fraction(_wealth_crossing(cap, null, float(alpha)))
        proved = bool(upper_tail(k, n, Fraction(null)) <= number(alpha - crossed))
    if proved == (p_lower > 0):
        return None
    return f"p_lower={p_lower!r} is {'less than' if proved else 'not'} proved by {k} of {n} samples at look {look + 1}"


def stopping_fault(stopped: str, n: int, n0: int, allowed: Allowance, radius: float) -> str | None:
    """What is false about the sentence on why the samples ended, as far as counts can tell."""
    if allowed.kind == "precision":
        found = re.fullmatch(rf"answered: {n} samples planned from (\d{{1,10}}) of {n0} selection samples", stopped)
        true = found is not None and 0 < int(found[1]) <= n0
        return None if true else f"it says {stopped!r:.80}, which no plan of {n} samples from {n0} does"
    reached = [r for r in allowed.radii if r < radius]
    if n == allowed.looks[-1]:
        wanted = f"cap reached: {n} samples"
    elif len(reached) == len(allowed.radii):
        wanted = f"answered: above reported radius {allowed.radii[-1]:g}"
    elif not reached:
        wanted = f"futile: not above reported radius {allowed.radii[0]:g}"
    else:
        wanted = f"answered: between reported radii {reached[-1]:g} and {allowed.radii[len(reached)]:g}"
    return None if stopped == wanted else f"it says {stopped!r:.80}, and its numbers say {wanted!r}"


def _in_sigma(radius: float, sigma: float) -> Fraction:
    return Fraction(radius) / Fraction(sigma)


def _fraction(value: object) -> Fraction:
    return Fraction(str(value))


@lru_cache(maxsize=4096)
def _phi(distance: Fraction, margin: float = 0.0) -> float:
    """Phi(distance), a hair more for a positive margin."""
    return min(float(context().ncdf(number(distance))) * (1 + margin), 1 - 2**-53)


@lru_cache(maxsize=4096)
def _thresholds(looks: tuple[int, ...], p: float, alpha: Fraction) -> tuple[int, ...]:
    """Smallest counts that prove "more than p" at each look, the whole of them at level alpha."""
    mass, low, before, used = np.ones(1), 0, 0, 0.0
    found = []
    for size in looks:
        start, step = _binomial(size - before, p)
        mass, low, before = np.convolve(mass, step), low + start, size
        tails = np.append(np.cumsum(mass[::-1])[::-1] * (1 + 1e-9 + 1e-14 * size), 0.0)
        used += _OUTSIDE
        left = float(alpha * Fraction(size, looks[-1]) ** 2) - used
        place = int(np.argmax(tails <= left)) if left >= 0 else len(mass)
        found.append(min(low + place, size + 1) if left >= 0 else size + 1)
        used += float(tails[place])
        mass = mass[:place]
        if not mass.any():
            mass = np.zeros(1)
        light = int(np.argmax(mass > 1e-22))  # what is dropped is far below what each look is charged
        mass, low = mass[light:], low + light
    return tuple(found)


@lru_cache(maxsize=65536)
def _fits_alone(k: int, looks: tuple[int, ...], look: int, p: float, alpha: Fraction) -> bool:
    """Whether P(Bin(n, p) >= k), all paths counted, is within what this look may spend."""
    n, before = looks[look], looks[look - 1] if look else 0
    start, mass = _binomial(n, p)
    tail = float(mass[max(k - start, 0) :].sum()) * (1 + 1e-8) + _OUTSIDE
    return tail + (look + 2) * _OUTSIDE <= float(alpha * (n * n - before * before) / Fraction(looks[-1]) ** 2)


@lru_cache(maxsize=8192)
def _binomial(n: int, p: float) -> tuple[int, NDArray[np.float64]]:
    """Lowest count and probabilities of Bin(n, p) down to 1e-25 of the largest, by the ratios of neighbours."""
    reach = math.ceil(11 * math.sqrt(n * p * (1 - p))) + 60
    mode = min(int((n + 1) * p), n)
    up = np.arange(mode, min(mode + reach, n), dtype=np.float64)
    down = np.arange(mode, max(mode - reach, 0), -1, dtype=np.float64)
    rising = np.cumprod((n - up) / (up + 1) * (p / (1 - p)))
    falling = np.cumprod(down / (n - down + 1) * ((1 - p) / p))
    weights = np.concatenate([falling[::-1], np.ones(1), rising])
    return mode - len(falling), weights / weights.sum()


def _log_wealth(k: int, n: int, p: float) -> Any:
    """Log wealth of the bettor after k of n samples, in 50 digits."""
    mp = context()
    half = mp.mpf(1) / 2
    log = mp.loggamma(k + half) + mp.loggamma(n - k + half) - mp.loggamma(n + 1) - mp.log(mp.pi)
    return log - k * mp.log(number(Fraction(p))) - (n - k) * mp.log(number(1 - Fraction(p)))


@lru_cache(maxsize=32)
def _wealth_crossing(cap: int, p: float, alpha: float) -> float:
    """P_p(the wealth ever reaches 2 / alpha up to cap samples), looked at after each, rounded up."""
    wanted = math.log(2 / alpha) + _WEALTH_MARGIN
    log_p, log_q = math.log(p), math.log1p(-p)
    # The boundary moves by 0 or 1 a sample; ``wealth`` is followed along it, by the bettor's own update.
    boundary, wealth = 0, 0.0  # log wealth at so many successes (at n of them, where the boundary is n + 1)
    mass, low, crossed = np.ones(1), 0, 0.0
    for n in range(1, cap + 1):
        # One more sample that does not agree; where the boundary lies beyond all successes, one more that does.
        wealth += math.log((n - 0.5 - boundary) / n) - log_q if boundary < n else math.log((n - 0.5) / n) - log_p
        while boundary <= n and (wealth < wanted or boundary <= n * p):
            boundary += 1
            if boundary <= n:
                wealth += math.log((boundary - 0.5) / (n - boundary + 0.5)) + log_q - log_p
        mass = np.convolve(mass, (1 - p, p))
        place = boundary - low
        if place < len(mass):
            crossed += float(mass[max(place, 0) :].sum())
            mass = mass[: max(place, 0)]
        if n % 64 == 0 and len(mass):
            heavy = np.flatnonzero(mass > 1e-22)
            first, last = (int(heavy[0]), int(heavy[-1]) + 1) if heavy.size else (0, 1)
            mass, low = mass[first:last], low + first
    return crossed * (1 + 1e-9) + 1e-15 * cap
