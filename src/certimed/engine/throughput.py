"""How fast a model takes noisy copies here, and the batch size that pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from certimed.engine.copies import Model, noisy_batches
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, NoiseLaw

AUTO = "auto"
"""In place of a batch size: the one that :func:`paying_batch_size` finds, probed once a run."""

LARGEST_BATCH = 1024
_KEY = NoiseKey(0, "throughput", "probe")  # a phase that nothing else draws from


@dataclass(frozen=True)
class Throughput:
    """A batch size and what a sample costs in it.

    Attributes:
        batch_size: samples a forward pass.
        seconds: a sample, noise and forward pass.
    """

    batch_size: int
    seconds: float


def sample_seconds(
    model: Model, image: Tensor, batch_size: int, law: NoiseLaw, *, repeats: int = 3, seconds: float = 0.0
) -> Iterator[float]:
    """Seconds a sample, batch by batch: noise and forward pass, after one batch to warm up.

    Args:
        model: what runs.
        image: float32 ``(C, *space)``, where the model is.
        batch_size: samples a batch.
        law: the noise.
        repeats: batches at least.
        seconds: go on for as long.

    Raises:
        ModelError: a batch of this size does not fit into memory.
    """
    begin = time.perf_counter()
    warm = done = 0
    with torch.inference_mode():
        while done < repeats or time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            try:
                for batch in noisy_batches(image, law, _KEY, batch_size, batch_size=batch_size):
                    model(batch)
                if image.device.type == "cuda":
                    torch.cuda.synchronize(image.device)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                raise ModelError(f"batch_size={batch_size} does not fit into memory; use a smaller one") from error
            if warm:
                done += 1
                yield (time.perf_counter() - start) / batch_size
            warm += 1


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def paying_batch_size(
    seconds: Callable[[int], float], *, limit: int = LARGEST_BATCH, tolerance: float = 0.03, patience: int = 2
) -> Throughput:
    """The smallest batch size within ``tolerance`` of the best throughput, sizes doubling from 1.

    Args:
        seconds: a sample's at a batch size, e.g. the least of a few measurements, as disturbances only ever add; raises
            ModelError where the batch does not fit into memory.
        limit: largest size tried.
        tolerance: share of the best throughput that a size may lose, and that a doubling must gain to count.
        patience: doublings without gain after which no larger ones are tried.

    Raises:
        ModelError: not even one image at a time fits.
    """
    found: list[Throughput] = []
    size, idle = 1, 0
    while size <= limit and idle < patience:
        try:
            one = Throughput(size, seconds(size))
        except ModelError:
            if not found:
                raise
            break
        gained = not found or one.seconds < min(seen.seconds for seen in found) * (1 - tolerance)
        idle = 0 if gained else idle + 1
        found.append(one)
        size *= 2
    best = min(one.seconds for one in found)
    return next(one for one in found if one.seconds <= best / (1 - tolerance))


def probe_batch_size(model: Model, image: Tensor, law: NoiseLaw) -> int:
    """The batch size that pays for this model and image on this machine; see :func:`paying_batch_size`.

    It changes no noise, so certificates differ by rounding at most; a run records it and keeps to it.

    Raises:
        ModelError: not even one image at a time fits into memory.
    """
    measured = paying_batch_size(lambda size: min(sample_seconds(model, image, size, law)))
    return measured.batch_size


def settled(batch_size: int | str | None) -> int | None:
    """The number, or None; InputError for :data:`AUTO`, which somebody has to settle by :func:`probe_batch_size`."""
    if isinstance(batch_size, str):
        raise InputError(f"batch_size={batch_size!r} is settled once a run; give what probe_batch_size finds")
    return batch_size


def check_batch_size(batch_size: int | str | None) -> int | str | None:
    """Return it, or raise InputError unless it is positive, :data:`AUTO` or None (the default for the device)."""
    if batch_size is None or batch_size == AUTO or (isinstance(batch_size, int) and batch_size >= 1):
        return batch_size
    raise InputError(f"batch_size={batch_size!r} is no batch size; use 1 or more, or {AUTO!r}")
