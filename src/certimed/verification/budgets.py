"""What a budget's spelling allows, and which counts prove a claim under it, computed anew.

A walk is carried from look to look in float64. All its terms are non-negative sums and products, so its relative error
is below 1e-10 for up to a million samples (4e-16 a term of a binomial window, of at most 2 100 terms; as much again for
each of at most 50 convolutions); the procedure itself leaves 1e-9 of every tail, and 1e-15 a look, on the safe side.

``drift``: claims are about the exact noise law, counts are of the noise that was drawn; a claim "more than p" needs the
counts to prove "more than p + drift" (:mod:`certimed.verification.laws`).
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
_SIZES = rf"{_SIZE}(?:,{_SIZE}){{0,255}}"
_SPELLINGS = {
    "fixed": re.compile(r"fixed:(?P<n>[1-9][0-9]{0,9})"),
    "looks": re.compile(rf"looks:(?P<sizes>{_SIZES})(?:/(?P<numbers>{_NUMBERS}))?"),
    "grid": re.compile(rf"grid(?::(?P<numbers>{_NUMBERS}))?@(?P<n>{_SIZE})"),
    "betting": re.compile(rf"betting:(?P<numbers>{_NUMBER})@(?P<n>{_SIZE})"),
    "planned": re.compile(rf"planned:(?P<numbers>{_NUMBER}(?:,{_NUMBER})?)@(?P<n>{_SIZE})"),
    "pixels": re.compile(rf"pixels:(?P<sizes>{_SIZES})(?:/(?P<numbers>{_NUMBER}))?"),
}
_GROWTH = {"grid": (64, Fraction(5, 4)), "betting": (32, Fraction(9, 8)), "planned": (32, Fraction(17, 16))}
_TASKS = {"classes": ("fixed", "looks", "grid", "betting", "planned"), "mask": ("fixed", "pixels"),
          "interval": ("fixed", "looks", "pixels"), "set": ("fixed",)}  # fmt: skip
_RUNG = Fraction(1, 100)  # of sigma, between the rungs of the ladder of claims
_NEAR_RUNG = Fraction(1, 10**6)
_OUTSIDE = 1e-15
_WEALTH_MARGIN = 1e-7
_FAR = 8  # sigma: beyond it float64 has no probabilities


@dataclass(frozen=True)
class Allowance:
    """A budget as read by the verifier.

    Attributes:
        kind: ``"fixed"``, ``"looks"``, ``"grid"``, ``"betting"``, ``"planned"`` or ``"pixels"``.
        looks: sample sizes at which counts are looked at; for ``"planned"`` the sizes of which one is planned.
        radii: reported radii, or the one betted on; empty for the other kinds.
        loss: of ``"planned"``: fraction, and absolute loss in the units of sigma where one is given; of ``"pixels"``:
            the share of pixels that may stay undecided.
    """

    kind: str
    looks: tuple[int, ...]
    radii: tuple[float, ...] = ()
    loss: tuple[float, ...] = ()

    @property
    def looks_once(self) -> bool:
        """Whether only one of the looks is held, with all of alpha."""
        return self.kind in ("fixed", "planned") or len(self.looks) == 1

    def serves(self, task: str) -> bool:
        """Whether certificates of this kind ("classes", "mask" or "interval") can be made under it."""
        return self.kind in _TASKS[task]

    def share(self, look: int, level: Fraction) -> Fraction:
        """Share of the level that a look may spend, where it is split: half for the last, the rest equally."""
        if self.looks_once:
            return level
        return level / 2 if look == len(self.looks) - 1 else level / (2 * (len(self.looks) - 1))


@lru_cache(maxsize=64)
def read_budget(text: str) -> Allowance | None:
    """The budget of a spelling, None if it is none. A budget has one spelling: numbers as Python writes them."""
    for kind, pattern in _SPELLINGS.items():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        given = found.groupdict()
        written = given.get("numbers")
        try:
            numbers = tuple(float(one) for one in written.split(",")) if written else ()
        except ValueError:
            return None
        if any(not 0 <= one < 1e9 for one in numbers) or (written or "") != _spelt(kind, numbers):
            return None
        return _allowance(kind, given, numbers)
    return None


def _spelt(kind: str, numbers: tuple[float, ...]) -> str:
    short = kind == "betting" and numbers[0] == float(f"{numbers[0]:g}")
    return f"{numbers[0]:g}" if short else ",".join(map(repr, numbers))


def _allowance(kind: str, given: dict[str, str | None], numbers: tuple[float, ...]) -> Allowance | None:
    sizes = tuple(int(size) for size in (given.get("sizes") or given["n"] or "").split(","))
    if any(a >= b for a, b in pairwise(sizes)):
        return None
    if kind == "pixels":
        return Allowance(kind, sizes, loss=numbers) if not numbers or 0 < numbers[0] < 1 else None
    if kind == "planned":
        return Allowance(kind, _growing(sizes[0], *_GROWTH[kind]), loss=numbers) if 0 < numbers[0] < 1 else None
    if any(a >= b for a, b in pairwise(numbers)):
        return None
    looks = _growing(sizes[0], *_GROWTH[kind]) if kind in _GROWTH else sizes
    if kind in ("looks", "grid"):
        # The published radii are not spelt.
        return Allowance(kind, looks, numbers or PUBLISHED_RADII) if numbers != PUBLISHED_RADII else None
    return Allowance(kind, looks, numbers)


def _growing(cap: int, size: int, ratio: Fraction) -> tuple[int, ...]:
    """Multiples of 32 that grow by a ratio, and the cap."""
    sizes = []
    while size * size * ratio < cap * cap:
        sizes.append(size)
        size = 32 * math.ceil(size * ratio / 32)
    return (*sizes, cap)


class Ladder:
    """One-sided claims under a grid budget: rungs at every hundredth of sigma and at every reported radius.

    A claim needs k to reach the threshold of every probability up to its own. Thresholds: the smallest counts for which
    P(any crossing up to look i) <= level (n_i / cap)^2 at the probability tested, from the walk of the count over all
    paths that have not crossed. Below the first probability at which even the tail of one look alone fits into what
    look i may spend, all thresholds are reached (that tail falls with p).
    """

    def __init__(self, allowed: Allowance, level: Fraction, sigma: float, drift: Fraction) -> None:
        self.allowed, self.level, self.sigma, self.drift = allowed, level, sigma, drift

    def rung(self, p_lower: float) -> Fraction | None:
        """Which rung a claimed probability is, in sigma; None if it is none."""
        if p_lower <= 0.5:
            return None
        z = _fraction(quantile(Fraction(p_lower)))
        places = [round(z / _RUNG) * _RUNG, *(_in_sigma(r, self.sigma) for r in self.allowed.radii)]
        nearest = min(places, key=lambda place: abs(place - z))
        return nearest if abs(nearest - z) <= _NEAR_RUNG else None

    def above(self, rung: Fraction | None) -> Fraction:
        """The next rung up; the first one after None."""
        if rung is None:
            return Fraction(0)
        following = [(math.floor(rung / _RUNG + _NEAR_RUNG) + 1) * _RUNG]
        radii = (_in_sigma(r, self.sigma) for r in self.allowed.radii)
        return min(following + [place for place in radii if place > rung + _NEAR_RUNG])

    def proves(self, k: int, look: int, rung: Fraction, p: float, *, surely: bool = False) -> bool:
        """Whether k agreeing samples at a look prove "more than p", p being the probability of this rung.

        Args:
            surely: with a margin to spare, so that every honest record claims it.
        """
        drift = 2 * self.drift if surely else self.drift
        looks = self.allowed.looks
        if k < self._threshold(look, Fraction(p) * (1 + Fraction(surely, 10**9)) + drift):
            return False
        step = math.ceil(rung / _RUNG) - 1
        while step >= 0:
            below = float(Fraction(_phi(step * _RUNG, 1e-9 if surely else 0.0)) + drift)
            if _fits_alone(k, looks, look, below, self.level):
                return True
            if k < self._threshold(look, Fraction(below)):
                return False
            step -= 1
        return True

    def _threshold(self, look: int, p: Fraction) -> int:
        return _thresholds(self.allowed.looks, min(float(p), 1 - 2**-53), self.level)[look]


def phi(rung: Fraction) -> float:
    """The probability of a rung."""
    return _phi(rung)


class Bet:
    """The claim of a betting budget: "more than p", p the probability that its radius needs.

    It holds if the wealth of the Krichevsky-Trofimov bettor against p reaches 2 / level, or, at the cap, if
    P(Bin(cap, p) >= k) is at most what a wealth test after every sample leaves of the level.
    """

    def __init__(self, allowed: Allowance, level: Fraction, sigma: float, drift: Fraction) -> None:
        self.cap, self.looks, self.level, self.drift = allowed.looks[-1], allowed.looks, level, drift
        self.wanted = _in_sigma(allowed.radii[0], sigma)

    def is_claim(self, p_lower: float) -> bool:
        """Whether a claimed probability is the one that the radius needs."""
        return p_lower >= 0.5 and abs(_fraction(quantile(Fraction(p_lower))) - self.wanted) <= _NEAR_RUNG

    def proves(self, k: int, look: int, p_lower: float | None = None) -> bool:
        """Whether k agreeing samples at a look prove the claim; without one, surely enough that it had to be made."""
        n = self.looks[look]
        null = Fraction(p_lower) + self.drift if p_lower is not None else Fraction(_phi(self.wanted, 1e-9))
        p = float(null if p_lower is not None else null + 2 * self.drift)
        if not k > n * p:
            return False
        log_wanted = math.log(2 / float(self.level)) + _WEALTH_MARGIN
        if _log_wealth(k, n, p) >= log_wanted:
            return True
        if n != self.cap:
            return False
        crossed = Fraction(_wealth_crossing(self.cap, p, float(self.level)))
        return bool(upper_tail(k, n, Fraction(p)) <= number(self.level - crossed))


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
