"""Addresses of noise: a sample is a pure function of ``(run seed, item id, phase, sample index)``.

The samples of a key are grouped in chunks of :data:`CHUNK`, and each chunk has a generator of its own. There are two
kinds of seeds, because there are two kinds of generators.

:meth:`NoiseKey.entropy` (the grid law on a CPU) is the SHA-256 of the whole address: 256 bits. NumPy's SFC64 is started
from 192 bits derived from them, with its 64-bit counter at 1. Its step is a bijection of the state, and the counter is
part of the state, so two streams can share a state only at equal positions, and then only if they started from the same
192 bits. Streams with different starts therefore never overlap, at any length below 2^64. Two different addresses start
alike with probability about 2^-192 a pair, taking the hash functions for random ones.

:meth:`NoiseKey.chunk_seed` (PyTorch's generators) is

    seed = (32 hashed bits of (run seed, item) + 2^28 * phase number + chunk number) mod 2^32   (low word)

The low word is spelt out because PyTorch's CPU generator (MT19937) uses only the low 32 bits of a seed: hashing phase
and chunk as well would let two chunks of one image collide by chance, and duplicated samples are not independent
samples. No two chunks of one item share a seed, so every statement about one image is free of overlaps. Two different
*items* have a range of m consecutive seeds each, per phase, on a circle of 2^32: some of their noise of one phase is
equal with probability (2m - 1) / 2^32 a pair, 1.5e-7 at 10 000 samples (m = 313). No statement about one image depends
on that; statements about a data set need independent items, so there it has to be added, or the grid law used.
The high word carries 31 more hashed bits for generators that use them (CUDA's Philox).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from certimed.errors import InputError

CHUNK = 32
"""Samples drawn from one generator."""

PHASES = (
    *("selection", "estimation", "prediction", "tuning", "second-view", "evaluation", "attack", "probe"),
    *("second-view of estimation", "copies of selection", "copies of estimation"),
    *("second-view of attack", "copies of attack", "calibration"),
)
"""Purposes of noise; the position in this tuple is the phase number, so the order is part of every result."""

SECOND_VIEWS = {
    "selection": "second-view",
    "estimation": "second-view of estimation",
    "attack": "second-view of attack",
}
"""Phase of the noise of the second view, by the phase of the first."""

VIEW_COPIES = {name: f"copies of {name}" for name in SECOND_VIEWS}
"""Phase of the noise of further copies of a second view, by the phase of the first view."""

_CHUNKS_PER_PHASE = 1 << 28


@dataclass(frozen=True)
class NoiseKey:
    """Address of a stream of noise samples.

    Attributes:
        seed: the run's seed, any integer.
        item: id of the image, unique within the run.
        phase: one of :data:`PHASES`; different phases never share a generator seed.

    Raises:
        InputError: unknown phase.
    """

    seed: int
    item: str
    phase: str

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InputError(f"phase={self.phase!r} is unknown; use one of {', '.join(PHASES)}")

    def entropy(self, chunk: int) -> int:
        """256 bits that belong to one chunk alone (see the module docstring)."""
        _check_chunk(chunk)
        text = json.dumps(["certimed-noise-2", int(self.seed), self.item, self.phase, int(chunk)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

    def chunk_seed(self, chunk: int) -> int:
        """63-bit seed of one chunk for PyTorch's generators (see the module docstring)."""
        _check_chunk(chunk)
        text = json.dumps(["certimed-noise-1", int(self.seed), self.item])
        digest = hashlib.sha256(text.encode()).digest()
        low = int.from_bytes(digest[:4], "big") + PHASES.index(self.phase) * _CHUNKS_PER_PHASE + chunk
        high = int.from_bytes(digest[4:8], "big") & 0x7FFFFFFF
        return (high << 32) | (low & 0xFFFFFFFF)

    def generator(self, chunk: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh PyTorch generator at the start of a chunk."""
        return torch.Generator(device=device).manual_seed(self.chunk_seed(chunk))


def content_id(image: Tensor) -> str:
    """Id of an image derived from its content (shape and float32 values), for callers that have no name for it."""
    pixels = image.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.sha256(json.dumps(list(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _check_chunk(chunk: int) -> None:
    if not 0 <= chunk < _CHUNKS_PER_PHASE:
        raise InputError(f"chunk {chunk} is outside 0..{_CHUNKS_PER_PHASE - 1}; use fewer samples")
