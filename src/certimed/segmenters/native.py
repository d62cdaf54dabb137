"""Segment at native resolution: resize inside the model, and bring its answer back to every native pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from certimed.errors import InputError
from certimed.models.identity import combined, identity_of, is_complete
from certimed.operators import MEAN, SAME, Axis, Geometry, apply, unchanged


def mask_geometry(shape: tuple[int, ...], channels: int | None, size: Sequence[int] | None) -> Geometry:
    """The linear map from a native image to a segmentation network's input.

    Args:
        shape: ``(C, *space)`` of the native image.
        channels: 1 makes colour grey by the mean of its channels; None leaves channels alone.
        size: sides to resize to, linear along each axis with antialiasing, or None.

    Raises:
        InputError: a size of another number of axes.
    """
    depth, *space = shape
    if size is not None and len(space) != len(size):
        sides = "x".join(map(str, size))
        raise InputError(f"size {sides} has {len(size)} axes, and the image has {len(space)} spatial axes")
    wanted = space if size is None else size
    axes = tuple(
        unchanged(native) if native == resized else Axis(native, (0, 0), resized, (0, 0))
        for native, resized in zip(space, wanted)
    )
    return Geometry(MEAN if channels == 1 and depth > 1 else SAME, depth, axes)


def resized_truth(truth: NDArray[np.int64], size: Sequence[int]) -> NDArray[np.int64]:
    """Class ids ``space`` at another size: each pixel takes the class of the nearest one."""
    if truth.shape == tuple(size):
        return truth
    nearest = functional.interpolate(torch.from_numpy(truth)[None, None].double(), tuple(size), mode="nearest-exact")
    return nearest[0, 0].long().numpy()


class NativeSegmenter(nn.Module):
    """``enlarge(network(resize(x)))``: native images ``(B, C, *space)`` of any size -> scores ``(B, K, *space)``.

    Each native pixel gets the scores of the nearest pixel of the network's answer, so its class is the network's own.
    Any fixed function of the noisy image can be certified; this one is certified for every native pixel, against
    perturbations of the native image, and scored against the native mask.

    Args:
        network: ``(B, C, *space)`` -> ``(B, K, *space)``, in eval mode.
        channels, size: see :func:`mask_geometry`.

    Attributes:
        identity, identity_complete: of the whole, as it was when this object was made.
    """

    def __init__(self, network: nn.Module, channels: int | None, size: tuple[int, ...] | None) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.size = size
        self.training = network.training
        self.identity = combined("native segmenter", identity_of(network), channels, size)
        self.identity_complete = is_complete(network)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the native pixels."""
        with torch.autocast(x.device.type, enabled=False):
            prepared = apply(mask_geometry(tuple(x.shape[1:]), self.channels, self.size), x)
        scores: Tensor = self.network(prepared)
        if scores.shape[2:] == x.shape[2:]:
            return scores
        return functional.interpolate(scores, size=x.shape[2:], mode="nearest-exact")
