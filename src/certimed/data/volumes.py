"""A volume whose values are as stored, and how it becomes an image in [0, 1]: whole, for networks of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.geometry import Geometry, turned
from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError, apply_window, replace_nan, to_unit
from certimed.data.records import Reading, Step, step

_SAMPLE = 1 << 24
VOXELS_PER_PIXEL = 10


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as its file says it.

    Attributes:
        values: ``(i, j, k)`` in the image's own units.
        affine: ``(4, 4)``, voxels to millimetres in RAS+.
        source: see :class:`~certimed.data.geometry.Geometry`.
        files: the same.
        steps: what was done to the stored values.
        decoders: versions of the libraries that read it, by name.
        padding: boolean ``(i, j, k)``: voxels that hold nothing and become 0; None where there are none.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    source: str
    files: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    decoders: Mapping[str, str] = field(default_factory=dict)
    padding: NDArray[np.bool_] | None = None
    _known: dict[tuple[float, float], tuple[float, float]] = field(default_factory=dict)

    @cached_property
    def sample(self) -> NDArray[np.float32]:
        """Values for percentiles, those that are no number left out; of more than 2^24 voxels every n-th."""
        every = -(-self.values.size // _SAMPLE)
        flat = self.values.reshape(-1, order="A")[::every]
        if self.padding is not None:
            flat = flat[~self.padding.reshape(-1, order="A")[::every]]
        return flat[~np.isnan(flat)].astype(np.float32) if flat.dtype.kind == "f" else flat.astype(np.float32)

    @cached_property
    def lowest(self) -> float | None:
        """The smallest number; None where there is none."""
        if self.values.dtype.kind != "f":
            return float(self.values.min())
        least = np.fmin.reduce(self.values, axis=None)
        return None if np.isnan(least) else float(least)

    def limits(self, options: ReadOptions) -> tuple[float, float, Step]:
        """What becomes 0 and 1, by the percentiles of the whole volume.

        Raises:
            UnreadableError: infinity, NaN without a meaning, or percentiles that coincide.
        """
        if self.values.dtype.kind == "f" and not np.isfinite(self.values.sum(dtype=np.float64)):
            replace_nan(self.values, options, 0.0)  # refuses infinity, and NaN unless it has a meaning
        if not self.sample.size:
            raise UnreadableError("it holds nothing but NaN")
        first, last = options.percentiles
        if (first, last) not in self._known:  # asked for again by every slice
            found = np.percentile(self.sample, options.percentiles)
            self._known[first, last] = float(found[0]), float(found[1])
        low, high = self._known[first, last]
        if not low < high:
            raise UnreadableError(
                f"its percentiles {first:g} and {last:g} are both {low:g}: nearly all of the volume is one value; give "
                "a window (centre, width)"
            )
        return low, high, step("percentiles", first=first, last=last, low=low, high=high)

    def placed(self, values: NDArray[Any], options: ReadOptions) -> tuple[NDArray[np.float32], list[Step]]:
        """A part of the volume in [0, 1], and how it got there."""
        if options.window is None:
            low, high, placing = self.limits(options)
        values, notes = replace_nan(values, options, self.lowest if options.nan == "min" else None)
        if options.window is not None:
            pixels, placing = apply_window(values, options.window)
            return pixels, [*notes, placing]
        return to_unit(values, low, high), [*notes, placing]

    def whole(self, options: ReadOptions) -> Reading:
        """The whole volume ``(1, i, j, k)``, turned as ``options.orientation`` says.

        Slabs are placed one at a time, so that nothing but the answer is as large as the volume.

        Raises:
            UnreadableError: as :meth:`limits`.
        """
        values, affine = turned(self.values, self.affine, options.orientation)
        out = np.empty((1, *values.shape), np.float32)
        notes: list[Step] = []
        placing: list[Step] = []
        low, high, by_percentiles = (0.0, 1.0, None) if options.window is not None else self.limits(options)
        lowest = self.lowest if options.nan == "min" else None
        for k in range(values.shape[2]):
            slab, found = replace_nan(values[:, :, k], options, lowest)
            notes += found
            if by_percentiles is None:
                assert options.window is not None
                out[0, :, :, k], one = apply_window(slab, options.window)
                placing = [one]
            else:
                out[0, :, :, k] = to_unit(slab, low, high)
                placing = [by_percentiles]
        if notes:
            total = sum(int(one.values["pixels"]) for one in notes)
            notes = [step("nan", **{**notes[0].values, "pixels": total})]
        if self.padding is not None:
            hidden, _ = turned(self.padding, self.affine, options.orientation)
            out[0][hidden] = 0
            placing.append(step("padding", pixels=int(self.padding.sum())))
        if options.orientation is not None:
            placing = [step("turned_to", codes=options.orientation), *placing]
        geometry = Geometry.of(affine, out.shape[1:], self.source, self.files)
        sides = "x".join(map(str, out.shape[1:]))
        steps = (step("volume", sides=sides), *self.steps, *notes, *placing)
        return Reading(out, steps, self.decoders, geometry.spacing, geometry)


def check_voxels(shape: tuple[int, ...], options: ReadOptions) -> None:
    """Refuse a volume before it is read, going by what its header says.

    Raises:
        UnreadableError: more than ten times ``options.max_pixels`` voxels.
    """
    most = VOXELS_PER_PIXEL * options.max_pixels
    if int(np.prod(shape, dtype=object)) > most:
        raise UnreadableError(
            f"its header says a volume of shape {shape}, more than the {most} voxels that are read at once; store it "
            "smaller"
        )
