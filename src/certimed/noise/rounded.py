"""A sampler of the rounded Gaussian whose distance from the exact law is proved: uniform integers in, integers out.

Let h = step / sigma and p_n = P(round(sigma g / step) = n) = Phi((n + 1/2) h) - Phi((n - 1/2) h), n any integer. The
table holds n in [-M, M), with M h >= 8.6.

**How a value is drawn.** The axis is cut into cells of c = 2^b integers, about sigma/64 wide. A cell with smallest
probability q gets a = floor(q c 2^15) of 2^15 slots. Fifteen bits of a random word choose a slot; if a cell owns it, b
other bits choose the integer in the cell, uniformly. So far an integer of the cell is drawn with probability
a / (2^15 c) <= q, exactly. The slots that no cell owns (1.4 %) hold what is missing of the law, a law of its own:
it is drawn by the same method with cells of sigma/512, and what is missing then (12 % of the 1.4 %) by inversion:
62 random bits u, and the n with E_{n-1} <= u < E_n, where E are cumulated integer weights of total 2^62. Everything
above is integer arithmetic, so the law Q of what is drawn is known exactly, given independent fair bits.

**How far Q is from p.** Let p^ be the table of p in float64, A_n the part of Q_n that cells draw, T the probability
that neither layer has a cell, and w_n the integer weights, so that Q_n = A_n + T w_n / 2^62. Then

    |Q - p|_TV = 1/2 sum |Q_n - p_n| <= sum_n |p_n - p^_n| + sum_n |p^_n - A_n - T w_n / 2^62| + tail.

We charge the right side; the halving not taken pays many times over for the rounding of this sum of four terms.

*Tail*: the p_n outside the table sum to at most 2 Phi(-(M - 1/2) h).

*Table*: with z = n h, Taylor's formula at the middle of a cell gives p_n = h phi(z) (1 + h^2 He_2(z) / 24 + h^4 He_4(z)
/ 1920) + R_n, |R_n| <= 2 (h/2)^7 / 7! max |He_6 phi| over the cell. A maximum over an interval is at most the mean plus
the total variation, and E|He_k(g)| <= sqrt(k!), so sum |R_n| <= (h/2)^6 / 7! (sqrt(6!) + h sqrt(7!)) <= (h/2)^6 / 180
for h <= 1/64. Rounding, with u = 2^-53: h is within 2u, z within 3u, z^2/2 within 7u of its value, exp within 8u
(4 ulp, NumPy's own limit) plus its argument's error 3.5 z^2 u, the constant within 6u and the bracket and the products
within 6u: |p^_n - p_n| <= (22 + 3.5 z^2) u p_n to first order. As E z^2 = 1 (the grid's z has variance 1 + h^2 / 12),
the sum is below 26u; we charge 64u. The tests sum the error of every entry against 50-digit arithmetic.

*Weights*: the two terms of A_n are integers of at most 30 bits times a power of two, held exactly. The remainder
p^_n - A_n is formed by two subtractions, each within u of a result that is at most p^_n, and set to 0 where rounding
made it negative. The w_n are the remainders times 2^62 over their sum S, cut to integers, and the largest one is given
what their sum lacks (L, of either sign). That S is not T costs |S - T| (p^ does not sum to 1 exactly), the cutting at
most T / 2^62 for each of the V = 2 M integers, L at most T |L| / 2^62, and all rounding together less than 8u.

At sigma = 0.25 and step = 1/65535 all of it is 8.3e-15, of which the table is 7.1e-15. A sample of d values is a
product of laws, so its distance is at most d times that: 1.3e-9 at 3 x 224 x 224.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH = 8.6
"""The table ends at this many sigma."""

_SLOT_BITS = 15
_CELLS_PER_SIGMA = (64, 512)
_WEIGHT_BITS = 62
_BLOCK = 1 << 16  # values drawn together: they stay in the cache; part of the definition of a stream

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class _Layer:
    """Cells of one width: ``first[slot]`` is a cell's first integer for the ``owned`` slots that have a cell."""

    width: int
    owned: int
    first: Int32


@dataclass(frozen=True)
class _Scratch:
    """Room for a block's words on their way to values."""

    short: NDArray[np.uint32]
    slots: NDArray[np.intp]

    @classmethod
    def of(cls, size: int) -> _Scratch:
        return cls(np.empty(size, np.uint32), np.empty(size, np.intp))


@dataclass(frozen=True)
class RoundedGaussian:
    """The tables of one law (see the module docstring).

    Attributes:
        half: M; values lie in [-M, M).
        layers: cells, coarse and fine.
        ends: int64 ``(2 M,)``, cumulated weights of what no cell holds; total 2^62.
        variation: bound on the total variation distance of one value from the exact law.
    """

    half: int
    layers: tuple[_Layer, ...]
    ends: Int64
    variation: float

    def draw(self, bits: np.random.SFC64, out: NDArray[np.float32]) -> None:
        """Fill a vector with values of the law."""
        # Memory that is used again: fresh arrays of this size cost more in page faults than in arithmetic.
        most = min(_BLOCK, out.size)
        values, scratch = np.empty(most, np.int32), _Scratch.of(most)
        for begin in range(0, out.size, _BLOCK):
            size = min(_BLOCK, out.size - begin)
            self._draw(bits, values[:size], 0, scratch)
            out[begin : begin + size] = values[:size]

    def _draw(self, bits: np.random.SFC64, out: Int32, depth: int, scratch: _Scratch | None = None) -> None:
        if depth == len(self.layers):
            uniform = (bits.random_raw(out.size) >> np.uint64(64 - _WEIGHT_BITS)).view(np.int64)
            out[:] = np.searchsorted(self.ends, uniform, side="right") - self.half
            return
        layer, shift = self.layers[depth], 32 - _SLOT_BITS
        scratch = scratch or _Scratch.of(out.size)
        short, slots = scratch.short[: out.size], scratch.slots[: out.size]
        words = bits.random_raw((out.size + 1) // 2).view(np.uint32)[: out.size]
        np.right_shift(words, np.uint32(shift), out=short)
        slots[:] = short
        np.take(layer.first, slots, out=out, mode="wrap")
        np.bitwise_and(words, np.uint32(layer.width - 1), out=short)
        out += short.view(np.int32)
        missed = np.flatnonzero(words >= np.uint32(layer.owned << shift))
        rest = np.empty(missed.size, np.int32)
        self._draw(bits, rest, depth + 1, scratch)
        out[missed] = rest

    def on(self, device: torch.device) -> DeviceTables:
        """The same tables for PyTorch's generators."""
        firsts = [torch.from_numpy(layer.first).to(device, torch.int64) for layer in self.layers]
        return DeviceTables(self, firsts, torch.from_numpy(self.ends).to(device))


@dataclass(frozen=True)
class DeviceTables:
    """The same law from two 63-bit words a value: 32 and 31 bits of the first for the two layers, 62 of the second.

    Every value takes two words whatever they say, so that nothing about the next sample depends on the last.
    """

    law: RoundedGaussian
    firsts: list[Tensor]
    ends: Tensor

    def draw(self, generator: torch.Generator, piece: Tensor) -> None:
        """Fill ``(count, *shape)``, sample by sample from the generator."""
        words = torch.empty((len(piece), 2, piece[0].numel()), dtype=torch.int64, device=piece.device)
        for sample in words:
            sample.random_(generator=generator)
        first = words[:, 0].reshape(-1)
        values, missed = self._cells(first & 0xFFFFFFFF, 32, 0)
        places = missed.nonzero().view(-1)
        fine, missed = self._cells(first[places] >> 32, 31, 1)
        last = torch.searchsorted(self.ends, words[:, 1].reshape(-1)[places] >> 1, right=True) - self.law.half
        values[places] = torch.where(missed, last, fine)
        piece.copy_(values.view(piece.shape))

    def _cells(self, words: Tensor, bits: int, depth: int) -> tuple[Tensor, Tensor]:
        layer = self.law.layers[depth]
        slots = words >> (bits - _SLOT_BITS)
        return self.firsts[depth][slots] + (words & (layer.width - 1)), slots >= layer.owned


@lru_cache(maxsize=8)
def rounded_gaussian(sigma: float, levels: int) -> RoundedGaussian:
    """Tables for steps of 1 / levels (see the module docstring); needs 64 <= sigma * levels < 2^20."""
    spread = sigma * levels
    widths = [1 << max(0, round(math.log2(spread / cells))) for cells in _CELLS_PER_SIGMA]
    half = math.ceil(REACH * spread / widths[0]) * widths[0]
    h = 1.0 / spread
    probabilities = rounded_probabilities(h, half)
    rest, missing, layers = probabilities.copy(), 1.0, []
    for width in widths:
        share = np.floor(rest.reshape(-1, width).min(axis=1) * (width * 2**_SLOT_BITS / missing)).astype(np.int64)
        owned = int(share.sum())
        first = np.zeros(2**_SLOT_BITS, np.int32)
        first[:owned] = np.repeat(np.arange(-half, half, width, dtype=np.int32), share)
        layers.append(_Layer(width, owned, first))
        rest -= np.repeat(share * (missing / (2**_SLOT_BITS * width)), width)
        missing *= 1.0 - owned / 2**_SLOT_BITS
    rest = np.maximum(rest, 0.0)
    total = float(rest.sum())
    weights = (rest * (2.0**_WEIGHT_BITS / total)).astype(np.int64)
    lacking = 2**_WEIGHT_BITS - int(weights.sum())
    weights[weights.argmax()] += lacking
    ends = np.cumsum(weights)
    unit = 2.0**-53
    variation = (
        math.erfc((half - 0.5) * h / math.sqrt(2.0)) * (1.0 + 1e-9)
        + ((h / 2) ** 6 / 180 + 64 * unit)
        + (8 * unit + abs(total - missing) + missing * (2 * half + abs(lacking)) / 2**_WEIGHT_BITS)
    )
    return RoundedGaussian(half, tuple(layers), ends, variation)


def rounded_probabilities(h: float, half: int) -> NDArray[np.float64]:
    """p_n for n in [-half, half), by Taylor's formula at the middle of each cell (see the module docstring)."""
    z2 = np.arange(-half, half) * h
    z2 *= z2
    p: NDArray[np.float64] = np.exp(-0.5 * z2)
    p *= h / math.sqrt(2.0 * math.pi)
    p *= 1.0 + (h * h / 24) * (z2 - 1.0) + (h**4 / 1920) * (z2 * z2 - 6.0 * z2 + 3.0)
    return p


@lru_cache(maxsize=8)
def device_tables(sigma: float, levels: int, device: torch.device) -> DeviceTables:
    """:func:`rounded_gaussian` on a device."""
    return rounded_gaussian(sigma, levels).on(device)
