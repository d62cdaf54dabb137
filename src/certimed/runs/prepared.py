"""What a job makes of an image before it is certified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from certimed.certificates import VariedSettings
from certimed.engine import Stream
from certimed.operators import Geometry


@dataclass(frozen=True)
class Prepared:
    """An image in the certified space.

    Attributes:
        pixels: float32 ``(C, *space)``; where noise is on settings, their coordinates ``(k, 1)``, which are 0.
        geometry: the linear map that made it, where it is known and the space is not native.
        truth: int64, of the shape of the answer's space, or None.
        streams: of the engine, bound to this image, where a model needs more than its pixels.
        settings: what is varied, where noise is on settings.
        digest: hex SHA-256 of the raw image, where ``pixels`` are not the image.
    """

    pixels: Tensor
    geometry: Geometry | None = None
    truth: NDArray[np.int64] | None = None
    streams: Mapping[str, Stream] | None = None
    settings: VariedSettings | None = None
    digest: str | None = None

    @property
    def seen(self) -> tuple[int, ...]:
        """``(C, *space)`` of the image that is answered for."""
        return tuple(self.pixels.shape) if self.settings is None else self.settings.image
