"""Image embeddings of noisy copies, computed once and shared by every prompt method, template and class list.

The vision encoder is frozen, so the expensive half of a prompted classifier does not depend on the prompt. What is
stored is an *embedding of a noise sample*, addressed like the sample itself; whether it was computed or read back
leaves no trace in the counts (float32: bit for bit, as batches are cut at the same places).
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from certimed.acceleration import FLOAT32, Acceleration, arithmetic
from certimed.errors import InputError, ModelError
from certimed.models.identity import combined, identity_of, is_complete
from certimed.noise import NoiseKey, NoiseStream, item_id
from certimed.sampling import default_batch_size, noisy_batches
from certimed.vlm.protocol import FeatureModel

_KEPT_TYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
}


class ImageEncoder(nn.Module):
    """``x -> image features``: a frozen vision encoder, optionally behind a denoiser.

    With a denoiser this is denoised smoothing (Salman et al., NeurIPS 2020): noise first, denoiser next, encoder last,
    so the certified space and the noise are the same with and without it.

    Attributes:
        identity: of model and denoiser; see :func:`certimed.models.identity_of`.
        arithmetic: in which precision both run, for provenance; see :mod:`certimed.acceleration`.
    """

    def __init__(
        self,
        vlm: FeatureModel,
        denoiser: nn.Module | None = None,
        *,
        acceleration: Acceleration | None = None,
    ) -> None:
        """Compose.

        Args:
            vlm: a frozen vision-language model, or a classifier, whose embedding is its scores.
            denoiser: module ``x -> x``, float32 ``(B, C, H, W)`` in [0, 1] units, made for one noise level, in eval
                mode.
            acceleration: how denoiser and vision encoder run; what becomes of the features stays float32.

        Raises:
            InputError: the denoiser is in training mode, or the device does not compute in this precision.
        """
        super().__init__()
        self.vlm = vlm
        self.denoiser = denoiser
        self.identity = vlm.identity
        if denoiser is not None:
            if any(part.training for part in denoiser.modules()):
                raise InputError("the denoiser is in training mode; call denoiser.eval() first")
            self.identity = combined("denoised", identity_of(denoiser), vlm.identity)
        self._features = (acceleration or FLOAT32).wrap(_Features(vlm, denoiser))
        self.arithmetic = arithmetic(self._features)

    def forward(self, x: Tensor) -> Tensor:
        """float ``(B, C, H, W)`` in the certified space -> float32 ``(B, D)``, not normalised."""
        return self._features(x).float()


class _Features(nn.Module):
    """What is accelerated of an encoder."""

    def __init__(self, vlm: FeatureModel, denoiser: nn.Module | None) -> None:
        super().__init__()
        self.training = False  # as its parts
        self.vlm = vlm
        self.denoiser = denoiser

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.vlm.encode_image(x if self.denoiser is None else self.denoiser(x))
        return features


class EmbeddingCache:
    """Keeps embeddings of noisy copies: in memory up to a limit, beyond it in a temporary folder.

    An entry is one (encoder, image, sigma, noise stream). The folder is removed by :meth:`close` or with the object.

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
        encoder: ImageEncoder,
        image: Tensor,
        sigma: float,
        key: NoiseKey,
        n: int,
        *,
        batch_size: int | None = None,
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
        size = batch_size or default_batch_size(tuple(image.shape), image.device)
        name = _entry_name(encoder, image, sigma, key, n, start)
        entry = self._entries.get(name)
        if entry is not None:
            for begin in range(0, n, size):
                yield entry[begin : begin + size].to(image.device, non_blocking=True).float()
            return
        fresh: Tensor | None = None
        begin = 0
        with torch.no_grad():
            for batch in noisy_batches(image, sigma, key, n, batch_size=size, start=start):
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
        encoder: ImageEncoder,
        image: Tensor,
        sigma: float,
        key: NoiseKey,
        n: int,
        *,
        batch_size: int | None = None,
        start: int = 0,
    ) -> Tensor:
        """All of :meth:`batches` at once: float32 ``(n, D)``."""
        return torch.cat(list(self.batches(encoder, image, sigma, key, n, batch_size=batch_size, start=start)))

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
    encoder: ImageEncoder, image: Tensor, sigmas: Tensor, key: NoiseKey, *, batch_size: int | None = None
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


def _entry_name(encoder: ImageEncoder, image: Tensor, sigma: float, key: NoiseKey, n: int, start: int) -> str:
    parts = [encoder.vlm] if encoder.denoiser is None else [encoder.denoiser, encoder.vlm]
    how = [[identity_of(part) if is_complete(part) else _number(part) for part in parts], encoder.arithmetic]
    where = [str(image.device), item_id(image), float(sigma), key.seed, key.item, key.phase, n, start]
    return combined(how, where)


_numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_counter = itertools.count()


def _number(part: Any) -> int:
    """A number no other object of this process has or will have, whatever two objects share: weights, identity, id."""
    return _numbers.setdefault(part, next(_counter))
