"""Images, checked and owned, and batches of their noisy copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.errors import InputError
from certimed.noise import NoiseKey, NoiseLaw, NoiseStream

Model = Callable[[Tensor], Tensor]
"""float32 ``(B, C, *space)``, nominally in [0, 1] -> scores ``(B, K)`` or ``(B, K, *space)``."""

Progress = Callable[[int], None]
"""Called after every batch with the number of samples just done."""

_RANGE_SLACK = 0.25  # bicubic resizing overshoots [0, 1] a little; 8-bit values overshoot it a lot


def as_image(image: Tensor | NDArray[np.floating], device: torch.device | str = "cpu") -> Tensor:
    """Check one image and put a copy of it on the device as float32; the caller's own is never handed to a model.

    Args:
        image: ``(C, *space)`` in [0, 1]; an overshoot of 0.25 is allowed, since linear resizing may overshoot.

    Raises:
        InputError: not floating point, not finite, empty, no channel axis, or plainly not in [0, 1].
    """
    tensor = torch.as_tensor(image)
    if not tensor.is_floating_point():
        raise InputError(f"image has dtype {tensor.dtype}; pass floats in [0, 1], e.g. image.float() / 255")
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise InputError(f"image has shape {tuple(tensor.shape)}; pass (channels, *space), none of them zero")
    tensor = tensor.detach().to(device=device, dtype=torch.float32, copy=True)
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("image has values that are not finite; replace NaN and infinity before certifying")
    low, high = float(tensor.min()), float(tensor.max())
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise InputError(
            f"image values run from {low:.4g} to {high:.4g}; scale them to [0, 1] and leave mean and std to the model"
        )
    return tensor


def check_sigma(sigma: float) -> float:
    """Return sigma as a float, or raise InputError if it is not a positive finite number."""
    if not (isinstance(sigma, int | float | np.floating) and math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma={sigma!r} is no noise level; use a positive number in [0, 1] units, e.g. 0.25")
    return float(sigma)


def check_samples(*, n0: int | None, n: int, alpha: float) -> None:
    """Refuse sample sizes and failure probabilities that make no sense, with InputError; n0=None: none are wanted."""
    if (n0 is not None and n0 < 1) or n < 1:
        raise InputError(f"n0={n0}, n={n}: both need at least 1 sample")
    if not 0 < alpha < 1:
        raise InputError(f"alpha={alpha} is no failure probability; use a value between 0 and 1, e.g. 0.001")


def model_device(model: Model) -> torch.device:
    """Device of a module's first parameter; the CPU for anything else."""
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return torch.device("cpu")


def noisy_batches(
    image: Tensor, law: NoiseLaw, key: NoiseKey, n: int, *, batch_size: int, start: int = 0
) -> Iterator[Tensor]:
    """Batches of noisy copies, float32 ``(b, C, *space)`` on the image's device, each in memory of its own.

    Sample ``start + i`` depends on the key and ``i`` alone, not on the batch size. Values are not clipped: clipping is
    a model's business. Where the image requires a gradient, the copies have the same values and the gradient of
    ``image + noise``: what attacks go through is the program that certifies.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} is not positive; use 1 or more")
    origin = law.origin(image)
    stream = NoiseStream(key, tuple(image.shape), image.device, start=start, law=law)
    for begin in range(0, n, batch_size):
        batch = law.noisy(origin, stream.draw(min(batch_size, n - begin)))
        yield batch + (image - image.detach()) if image.requires_grad else batch
