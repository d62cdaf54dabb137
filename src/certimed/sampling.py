"""The loop: (model, image, sigma, key) -> integers. Batches are drawn, classified, counted and forgotten.

Nothing here knows a confidence level, and nothing here grows with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.contract import COPIES, FAR, OneAnswer, check_one_answer
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, NoiseStream

Model = Callable[[Tensor], Tensor]
"""float32 ``(B, C, *space)``, nominally in [0, 1] -> scores ``(B, K)`` or ``(B, K, *space)``."""

Progress = Callable[[int], None]
"""Called after every batch with the number of samples just done."""

# Values of noise a batch. A CPU is fastest while activations stay in its caches (measured on the demo model: 918 noisy
# copies a second a core in batches of 32, 658 in batches of 448); a GPU wants to be kept busy.
_BATCH_ELEMENTS = {"cpu": 1 << 21}
_BATCH_ELEMENTS_ELSEWHERE = 1 << 25
_RANGE_SLACK = 0.25  # bicubic resizing overshoots [0, 1] a little; 8-bit values overshoot it a lot


def default_batch_size(shape: tuple[int, ...], device: torch.device | str = "cpu") -> int:
    """Samples a batch for images ``(C, *space)``: at most 1024; 8 MiB of noise on a CPU, 128 MiB elsewhere."""
    limit = _BATCH_ELEMENTS.get(torch.device(device).type, _BATCH_ELEMENTS_ELSEWHERE)
    return max(1, min(1024, limit // math.prod(shape)))


def as_image(image: Tensor | NDArray[np.floating], device: torch.device | str = "cpu") -> Tensor:
    """Check one image and copy it to the device as float32; what a model may do to the copy does not reach the caller.

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


def noisy_batches(
    image: Tensor,
    sigma: float,
    key: NoiseKey,
    n: int,
    *,
    batch_size: int | None = None,
    start: int = 0,
) -> Iterator[Tensor]:
    """Batches of ``image + sigma * noise``, float32 ``(b, C, *space)`` on the image's device.

    Sample ``start + i`` depends on the key and ``i`` alone, not on the batch size. Values are not clipped: clipping is
    a model's business.
    """
    size = batch_size or default_batch_size(tuple(image.shape), image.device)
    if size < 1:
        raise InputError(f"batch_size={batch_size} is not positive; use 1 or more")
    stream = NoiseStream(key, tuple(image.shape), image.device, start=start)
    for begin in range(0, n, size):
        yield stream.draw(min(size, n - begin)).mul_(sigma).add_(image)


def one_answer(
    scores: Model,
    image: Tensor,
    sigma: float,
    key: NoiseKey,
    *,
    batch_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    names: Sequence[str] = (),
) -> OneAnswer:
    """Hold a model to :func:`~certimed.contract.check_one_answer` on noisy copies of this image.

    Args:
        key: of the phase "probe", which nothing is counted in.
        batch_size: of the run; no batch here is larger.
        dtype: the coarsest precision that runs.
        names: see there.
    """
    size = batch_size or default_batch_size(tuple(image.shape), image.device)
    copies = max(2, min(COPIES, size // 2))
    near, far = (
        next(noisy_batches(image, level, key, copies, batch_size=copies, start=start))
        for level, start in ((sigma, 0), (FAR * sigma, copies))
    )
    return check_one_answer(scores, near, far, dtype=dtype, largest=size, names=names)


def count_classes(
    model: Model,
    image: Tensor,
    *,
    sigma: float,
    key: NoiseKey,
    n: int,
    num_classes: int,
    batch_size: int | None = None,
    start: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """How often each class wins over ``n`` noisy copies (SAMPLEUNDERNOISE in Cohen et al., ICML 2019).

    Ties go to the lowest class index, which keeps the base classifier a function. Counting happens on the device; one
    transfer at the end.

    Returns:
        int64 ``(num_classes,)`` that sums to ``n``.

    Raises:
        ModelError: scores of the wrong shape or not finite.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64, device=image.device)
    finite = torch.ones((), dtype=torch.bool, device=image.device)
    with torch.inference_mode():
        for batch in noisy_batches(image, sigma, key, n, batch_size=batch_size, start=start):
            scores = check_scores(model(batch), (len(batch), num_classes))
            counts += torch.bincount(scores.argmax(dim=1), minlength=num_classes)
            finite &= torch.isfinite(scores).all()
            if progress is not None:
                progress(len(batch))
    if not bool(finite):
        raise ModelError("the model returned scores that are not finite on noisy copies; no class can be counted")
    return counts.cpu().numpy()


def check_scores(scores: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the scores if they have the promised shape, else raise ModelError naming both shapes."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(f"the model returned {got} where scores of shape {shape} were expected; check num_classes")
    return scores
