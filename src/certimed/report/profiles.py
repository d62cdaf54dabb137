"""The radius map of a certified mask as small numbers: what it keeps at every radius."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import MaskCertificate
from certimed.metrics import MaskCounts
from certimed.operators.geometry import native_radius


@dataclass(frozen=True)
class Layers:
    """The radius map of one certificate in ranks.

    Attributes:
        radii: the distinct positive radii of the map, rising (at native resolution small ones may be 0).
        ranks: for each pixel how many of them it reaches: it keeps its class below ``radii[ranks - 1]``; 0: none.
    """

    radii: NDArray[np.float64]
    ranks: NDArray[np.uint32]

    @classmethod
    def of(cls, certificate: MaskCertificate, *, native: bool = False) -> Layers:
        """Number the radii of a certificate's map; ``native``: those at native resolution, rounded down."""
        # A copy: the certificate would keep its map in memory.
        values, places = np.unique(replace(certificate).radius_map(), return_inverse=True)
        positive = values > 0
        ranks = np.maximum(places.reshape(certificate.mask.shape) + 1 - int((~positive).sum()), 0)
        radii, carried = values[positive], certificate.native
        if native and carried is not None:
            real = map(certificate.about.placement.real_radius, radii.tolist())
            radii = np.array([native_radius(radius, carried.norm) for radius in real])
        return cls(radii, ranks.astype(np.uint32))


class RadiusProfile:
    """What one radius map keeps at every radius, from one pass over the pixels.

    Args:
        layers: the map.
        mask, truth: integers ``space``; without a truth only shares of pixels are known.
        classes: their number.
    """

    def __init__(self, layers: Layers, mask: NDArray[Any], truth: NDArray[Any] | None, classes: int) -> None:
        steps = len(layers.radii) + 1
        self.radii = layers.radii
        self._joint: NDArray[np.int32] | None = None
        if truth is not None:
            place = (layers.ranks.astype(np.int64) * classes + truth) * classes + mask.astype(np.int64)
            joint = np.bincount(place.ravel(), minlength=steps * classes * classes).reshape(steps, classes, classes)
            # [j]: pixels, by truth and prediction, whose radius is at least radii[j - 1]; [0] are all pixels.
            self._joint = joint[::-1].cumsum(axis=0)[::-1].astype(np.int32)
        self._kept = np.bincount(layers.ranks.ravel(), minlength=steps)[::-1].cumsum()[::-1]

    @classmethod
    def of(cls, certificate: MaskCertificate, *, native: bool = False) -> RadiusProfile:
        """The profile of a certificate, without truth."""
        return cls(Layers.of(certificate, native=native), certificate.mask, None, certificate.num_classes)

    @property
    def has_truth(self) -> bool:
        """Whether :meth:`counts` can be asked."""
        return self._joint is not None

    def share(self, radius: float) -> float:
        """Share of pixels whose own radius is at least ``radius`` (positive)."""
        step = 1 + int(np.searchsorted(self.radii, radius, side="left"))
        return float(self._kept[step] / self._kept[0]) if step < len(self._kept) else 0.0

    def counts(self, radius: float) -> MaskCounts:
        """Counts against the truth where a pixel is certified if its own radius is at least ``radius`` (positive)."""
        assert self._joint is not None
        step = 1 + int(np.searchsorted(self.radii, radius, side="left"))
        reached = self._joint[step] if step < len(self._joint) else np.zeros_like(self._joint[0])
        kept, truth = reached.astype(np.int64), self._joint[0].sum(axis=1).astype(np.int64)
        return MaskCounts(
            true_positive=np.diagonal(kept).copy(),
            predicted=kept.sum(axis=0),
            truth=truth,
            abstained=truth - kept.sum(axis=1),
            pixels=int(truth.sum()),
        )


def foreground(values: NDArray[np.float64]) -> float:
    """Mean over all classes but the first that are not left out; NaN where all are."""
    kept = values[1:][~np.isnan(values[1:])]
    return float(kept.mean()) if kept.size else math.nan
