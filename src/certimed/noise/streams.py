"""Streams of noise: the same samples whatever the batch size, order, shard, threads or resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from certimed.noise.keys import CHUNK, NoiseKey
from certimed.noise.laws import Float32Gaussian, NoiseLaw, Source

_PARALLEL_ELEMENTS = 1 << 18  # below this many values a batch, threads cost more than they save


class NoiseStream:
    """Successive samples of one key, in pieces of any size.

    ``NoiseStream(key, shape).draw(5)`` followed by ``draw(7)`` equals ``draw(12)``: every sample is drawn by a call of
    its own from its chunk's generator, so the split into batches leaves no trace.

    Args:
        key: which stream.
        shape: shape of one sample.
        device: where samples are drawn; CPU and GPU streams differ, so the device is part of a certificate.
        start: index of the first sample.
        law: whose noise is drawn, in the law's own units; without one, standard normal float32 values.
    """

    def __init__(
        self,
        key: NoiseKey,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        *,
        start: int = 0,
        law: NoiseLaw | None = None,
    ) -> None:
        self.key = key
        self.shape = shape
        self.device = torch.device(device)
        self.law = law or Float32Gaussian(1.0)
        self.position = start - start % CHUNK
        self._source: Source | None = None
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
            if index % CHUNK == 0 or self._source is None:
                self._source = self.law.source(self.key, index // CHUNK, self.device)
            jobs.append(partial(_fill_piece, self._source, batch[begin:end]))
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


def _fill_piece(source: Source, piece: Tensor) -> None:
    # Inference mode belongs to a thread: a helper thread has to enter it to write to an inference tensor.
    with torch.inference_mode(piece.is_inference()):
        source.fill(piece)
