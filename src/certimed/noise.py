"""Gaussian noise as a pure function of a key: the same samples whatever the batch size, order, shard or resume.

A sample is addressed by ``(run seed, item id, phase, sample index)``. Samples are grouped in chunks of
:data:`CHUNK`; each chunk has a generator of its own, seeded so that *no two chunks of one item share a seed*:

    seed = (32 hashed bits of (run seed, item) + 2^28 * phase number + chunk number) mod 2^32   (low word)

The low word is spelt out because PyTorch's CPU generator (MT19937) uses only the low 32 bits of a seed: hashing phase
and chunk as well would let two chunks of one image collide by chance, and duplicated samples are not independent
samples. Two different *items* may share noise with probability about 2^-32 a pair, which no per-image guarantee
depends on. The high word carries 32 more hashed bits for generators that use them (CUDA's Philox).

Noise is always float32 and drawn before any cast of the model to a lower precision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from certimed.errors import InputError

CHUNK = 32
"""Samples drawn from one generator."""

PHASES = (
    *("selection", "estimation", "prediction", "tuning", "second-view", "evaluation", "attack", "probe"),
    *("second-view of estimation", "copies of selection", "copies of estimation"),
)
"""Purposes of noise; the position in this tuple is the phase number, so the order is part of every result."""

SECOND_VIEWS = {"selection": "second-view", "estimation": "second-view of estimation"}
"""Phase of the noise of the second view, by the phase of the first."""

VIEW_COPIES = {"selection": "copies of selection", "estimation": "copies of estimation"}
"""Phase of the noise of further copies of a second view, by the phase of the first view."""

_CHUNKS_PER_PHASE = 1 << 28
_PARALLEL_ELEMENTS = 1 << 18  # below this many values a batch, threads cost more than they save


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

    def chunk_seed(self, chunk: int) -> int:
        """64-bit seed of one chunk (see the module docstring)."""
        if not 0 <= chunk < _CHUNKS_PER_PHASE:
            raise InputError(f"chunk {chunk} is outside 0..{_CHUNKS_PER_PHASE - 1}; use fewer samples")
        text = json.dumps(["certimed-noise-1", int(self.seed), self.item])
        digest = hashlib.sha256(text.encode()).digest()
        low = int.from_bytes(digest[:4], "big") + PHASES.index(self.phase) * _CHUNKS_PER_PHASE + chunk
        high = int.from_bytes(digest[4:8], "big") & 0x7FFFFFFF
        return (high << 32) | (low & 0xFFFFFFFF)

    def generator(self, chunk: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator at the start of a chunk."""
        return torch.Generator(device=device).manual_seed(self.chunk_seed(chunk))


def content_id(image: Tensor) -> str:
    """Id of an image derived from its content (shape and float32 values), for callers that have no name for it."""
    pixels = image.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.sha256(json.dumps(list(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


class NoiseStream:
    """Successive standard normal samples of one key, in pieces of any size.

    ``NoiseStream(key, shape).draw(5)`` followed by ``draw(7)`` equals ``draw(12)``: every sample is drawn by a call of
    its own from its chunk's generator, so the split into batches leaves no trace.

    Args:
        key: which stream.
        shape: shape of one sample.
        device: where samples are drawn; CPU and GPU streams differ, so the device is part of a certificate.
        start: index of the first sample.
    """

    def __init__(
        self, key: NoiseKey, shape: tuple[int, ...], device: torch.device | str = "cpu", *, start: int = 0
    ) -> None:
        self.key = key
        self.shape = shape
        self.device = torch.device(device)
        self.position = start - start % CHUNK
        self._generator: torch.Generator | None = None
        scratch = torch.empty(shape, device=self.device)
        for _ in range(start % CHUNK):
            self._fill(scratch.unsqueeze(0))

    def draw(self, count: int) -> Tensor:
        """The next samples: float32 ``(count, *shape)``."""
        batch = torch.empty((count, *self.shape), dtype=torch.float32, device=self.device)
        self._fill(batch)
        return batch

    def _fill(self, batch: Tensor) -> None:
        jobs: list[Callable[[], None]] = []
        for begin, end in self._pieces(len(batch)):
            index = self.position + begin
            if index % CHUNK == 0 or self._generator is None:
                self._generator = self.key.generator(index // CHUNK, self.device)
            jobs.append(_filler(batch[begin:end], self._generator))
        self.position += len(batch)
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and threads > 1 and len(jobs) > 1 and batch.numel() >= _PARALLEL_ELEMENTS:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda job: job(), jobs))
        else:
            for job in jobs:
                job()

    def _pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Split the next ``count`` samples at chunk borders."""
        begin = 0
        while begin < count:
            end = min(count, begin + CHUNK - (self.position + begin) % CHUNK)
            yield begin, end
            begin = end


def _filler(piece: Tensor, generator: torch.Generator) -> Callable[[], None]:
    def fill() -> None:
        # Inference mode belongs to a thread: a helper thread has to enter it to write to an inference tensor.
        with torch.inference_mode(piece.is_inference()):
            for sample in piece:
                sample.normal_(generator=generator)

    return fill


@dataclass(frozen=True)
class Float32Gaussian:
    """Placeholder until the noise room is merged."""

    sigma: float
    name = "gaussian-float32"
    norm = "L2"

    def origin(self, image):
        return image.clone()

    def clean(self, origin):
        return origin.clone()

    def noisy(self, origin, noise):
        return noise.mul_(self.sigma).add_(origin)

    def variation(self, values: int) -> float:
        return 0.0

    def probability(self, radius: float) -> float:
        from scipy.special import ndtr

        return float(ndtr(radius / self.sigma))

    def to_dict(self):
        return {"name": self.name, "sigma": self.sigma}


NoiseLaw = Float32Gaussian


def law_from_dict(data):
    return Float32Gaussian(data["sigma"])


DEFAULT_LAW = "float32"


def as_law(noise, sigma):
    from certimed.engine.copies import check_sigma

    check_sigma(sigma)
    return Float32Gaussian(float(sigma)) if isinstance(noise, str) else noise
