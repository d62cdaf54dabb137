"""Image embeddings of noisy copies, computed once and shared by every prompt method, template and class list.

The vision encoder is frozen, so the expensive half of a prompted classifier does not depend on the prompt. What is
stored is an *embedding of a noise sample*, addressed like the sample itself; whether it was computed or read back
leaves no trace in the counts (float32: bit for bit, as batches are cut at the same places).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certimed.engine.copies import noisy_batches
from certimed.engine.streams import Stream
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, NoiseLaw, NoiseStream, content_id
from certimed.targets import default_batch_size

_KEPT_TYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
}


class EmbeddingCache:
    """Keeps embeddings of noisy copies: in memory up to a limit, beyond it in a temporary folder.

    An entry is one (stream, image, noise law, noise key). The folder is removed by :meth:`close` or with the object.

    Args:
        dtype: ``torch.float32``, or ``torch.float16`` for half the room. In half precision the classifier that is
            certified rounds its embeddings, whether they were just computed or read back.
        max_bytes: memory limit; the rest goes to disk.
        folder: where the temporary folder is made; default: the system's.
    """

    def __init__(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        max_bytes: int = 1 << 30,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if dtype not in _KEPT_TYPES:
            raise InputError(f"dtype={dtype} cannot be kept; use torch.float32 or torch.float16")
        if max_bytes < 0:
            raise InputError(f"max_bytes={max_bytes} is negative; use 0 to keep everything on disk")
        self.dtype = dtype
        self.max_bytes = max_bytes
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._entries: dict[str, Tensor] = {}
        self._items: dict[str, set[str]] = {}
        self._files: dict[str, Path] = {}

    @property
    def memory_bytes(self) -> int:
        """Bytes of the entries held in memory."""
        return sum(e.numel() * e.element_size() for name, e in self._entries.items() if name not in self._files)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the entries held on disk."""
        return sum(e.numel() * e.element_size() for name, e in self._entries.items() if name in self._files)

    def batches(
        self,
        encoder: Stream,
        image: Tensor,
        law: NoiseLaw,
        key: NoiseKey,
        n: int,
        *,
        batch_size: int,
        start: int = 0,
        keep: bool = True,
    ) -> Iterator[Tensor]:
        """Embeddings of samples ``start .. start + n - 1``, float32 ``(b, D)`` on the image's device, in order.

        Counts from them equal the uncached ones exactly for the same ``batch_size``; with another batch size the noise
        is still the same, but a matrix product of another size may round differently. With ``keep=False`` nothing is
        stored; what is already there is used.

        Raises:
            ModelError: the encoder returned values that are not finite (or too large for half precision).
        """
        name = _entry_name(encoder, image, law, key, n, start)
        entry = self._entries.get(name)
        if entry is not None:
            for begin in range(0, n, batch_size):
                yield entry[begin : begin + batch_size].to(image.device, non_blocking=True).float()
            return
        fresh: Tensor | None = None
        begin = 0
        with torch.no_grad():
            for batch in noisy_batches(image, law, key, n, batch_size=batch_size, start=start):
                embedded = self._rounded(encoder(batch))
                if fresh is None and keep:
                    fresh = self._allocate(name, (n, embedded.shape[1]), pinned=image.device.type == "cuda")
                if fresh is not None:
                    fresh[begin : begin + len(embedded)].copy_(embedded, non_blocking=True)
                begin += len(embedded)
                yield embedded
        if fresh is not None:
            if image.device.type == "cuda":
                torch.cuda.synchronize(image.device)  # the copies above do not wait
            self._entries[name] = fresh
            self._items.setdefault(key.item, set()).add(name)

    def embeddings(
        self,
        encoder: Stream,
        image: Tensor,
        law: NoiseLaw,
        key: NoiseKey,
        n: int,
        *,
        batch_size: int,
        start: int = 0,
    ) -> Tensor:
        """All of :meth:`batches` at once: float32 ``(n, D)``."""
        return torch.cat(list(self.batches(encoder, image, law, key, n, batch_size=batch_size, start=start)))

    def forget(self, item: str) -> None:
        """Drop every entry of one image, by the id in its noise key."""
        for name in self._items.pop(item, set()):
            self._entries.pop(name, None)
            path = self._files.pop(name, None)
            if path is not None:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Drop everything and remove the temporary folder."""
        self._entries.clear()
        self._items.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> EmbeddingCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"EmbeddingCache({len(self)} entries, {self.memory_bytes} bytes in memory of at most {self.max_bytes}, "
            f"{self.disk_bytes} on disk, {self.dtype})"
        )

    def _rounded(self, embedded: Tensor) -> Tensor:
        rounded = embedded.to(self.dtype).float()
        if not bool(torch.isfinite(rounded).all()):
            raise ModelError(
                f"image embeddings of noisy copies are not finite in {self.dtype}; check the model, or keep float32"
            )
        return rounded

    def _allocate(self, name: str, shape: tuple[int, int], *, pinned: bool) -> Tensor:
        kind = _KEPT_TYPES[self.dtype]
        if self.memory_bytes + math.prod(shape) * kind.itemsize <= self.max_bytes:
            return torch.empty(shape, dtype=self.dtype, pin_memory=pinned)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="certimed-embeddings-", dir=self._parent)
        path = Path(self._folder.name) / name
        self._files[name] = path
        return torch.from_numpy(np.memmap(path, dtype=kind, mode="w+", shape=shape))


def embed_copies(
    encoder: Stream, image: Tensor, sigmas: Tensor, key: NoiseKey, *, batch_size: int | None = None
) -> Tensor:
    """Embeddings of copies of one image at different noise levels, for tuning.

    Args:
        encoder: what embeds.
        image: float32 ``(C, H, W)`` in the certified space.
        sigmas: float32 ``(n,)``: copy i is ``image + sigmas[i] * noise_i``; 0 is allowed.
        key: the noise stream; sample i is the stream's sample i.

    Returns:
        float32 ``(n, D)``, ready for autograd.
    """
    size = batch_size or default_batch_size(tuple(image.shape), image.device)
    stream = NoiseStream(key, tuple(image.shape), image.device)
    parts = []
    with torch.no_grad():
        for part in torch.split(sigmas.to(image.device), size):
            scale = part.view(-1, *[1] * image.ndim)
            parts.append(encoder(stream.draw(len(part)).mul_(scale).add_(image)))
    return torch.cat(parts)


def _entry_name(encoder: Stream, image: Tensor, law: NoiseLaw, key: NoiseKey, n: int, start: int) -> str:
    what = [content_id(image), law.to_dict(), key.seed, key.item, key.phase, n, start]
    return hashlib.sha256(json.dumps([encoder.cache_key, str(image.device), *what]).encode()).hexdigest()
