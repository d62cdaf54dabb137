"""Where the pixels of an image lie in the patient: one matrix, whatever file said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.errors import InputError, require

NIFTI = "nifti"
DICOM_SERIES = "dicom-series"
DICOM_FRAMES = "dicom-frames"
SOURCES = (NIFTI, DICOM_SERIES, DICOM_FRAMES)

_PERPENDICULAR = 1e-3
_OFF = 0.1  # of a voxel


@dataclass(frozen=True)
class Geometry:
    """The place of an image's pixels in the patient.

    Attributes:
        affine: ``(4, 4)``, rows of numbers: takes the index of a pixel along each space axis, in the order of the axes
            of ``pixels[0]``, to millimetres in RAS+ (to the right, anterior, superior), as nibabel's matrices do. Of a
            plane the third index is 0; the third column then leads to the next slice.
        shape: ``space``, two or three sides.
        source: ``"nifti"``, ``"dicom-series"`` (one file a slice) or ``"dicom-frames"`` (one file).
        files: the files that were read, as paths: of a series in the order of the last axis. Records leave them out.
    """

    affine: tuple[tuple[float, ...], ...]
    shape: tuple[int, ...]
    source: str
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, affine: NDArray[Any], shape: Sequence[int], source: str, files: Sequence[str] = ()) -> Geometry:
        """From an array; the numbers are kept as they are."""
        rows = tuple(tuple(float(value) for value in row) for row in np.asarray(affine, np.float64))
        return cls(rows, tuple(int(side) for side in shape), source, tuple(files))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array, float64 ``(4, 4)``."""
        return np.array(self.affine, np.float64)

    @property
    def steps(self) -> tuple[float, ...]:
        """Millimetres from pixel to pixel along each space axis."""
        columns = np.linalg.norm(self.matrix[:3, : len(self.shape)], axis=0)
        return tuple(float(step) for step in columns)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """As :attr:`steps` where the space axes are perpendicular to each other, else None.

        Areas and volumes are products of such lengths on perpendicular axes only.
        """
        unit = self.matrix[:3, : len(self.shape)] / np.array(self.steps)
        crossed = np.abs(unit.T @ unit - np.eye(len(self.shape))).max()
        return self.steps if crossed < _PERPENDICULAR else None

    def resized(self, shape: Sequence[int]) -> Geometry:
        """The same space cut into another number of pixels along each axis, as a resize does."""
        change = np.eye(4)
        for axis, (old, new) in enumerate(zip(self.shape, shape, strict=True)):
            change[axis, axis] = old / new
            change[axis, 3] = (old / new - 1) / 2
        return Geometry.of(self.matrix @ change, shape, self.source, self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the files."""
        return {"affine": [list(row) for row in self.affine], "shape": list(self.shape), "source": self.source}

    @classmethod
    def from_dict(cls, data: Any) -> Geometry:
        """Inverse of :meth:`to_dict`; raises InputError where the fields are not those."""
        try:
            affine, shape, source = np.array(data["affine"], np.float64), data["shape"], data["source"]
            if affine.shape != (4, 4) or source not in SOURCES or not all(isinstance(one, int) for one in shape):
                raise ValueError("no geometry")
            return cls.of(affine, shape, source)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the geometry of a record does not have the documented fields: {error}") from error


def orientation_codes(text: str) -> str:
    """The three letters of an orientation in capitals, such as ``"RAS"`` or ``"LIA"``.

    Raises:
        InputError: it does not name one of each pair left-right, posterior-anterior, inferior-superior.
    """
    codes = text.upper()
    pairs = sorted(pair for pair in ("LR", "PA", "IS") for letter in codes if letter in pair)
    if len(codes) != 3 or pairs != ["IS", "LR", "PA"]:
        raise InputError(
            f"orientation={text!r} is not usable: give one of L and R, one of P and A, and one of I and S, e.g. RAS"
        )
    return codes


def turned(
    values: NDArray[Any], affine: NDArray[np.float64], codes: str | None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A volume with its axes in another order and direction, and the matrix that goes with them.

    Nothing is interpolated: axes are exchanged and flipped so that they point as close to ``codes`` as they can.

    Args:
        values: ``(i, j, k)``.
        affine: ``(4, 4)``, to RAS+.
        codes: three letters, or None to leave all as it is.
    """
    if codes is None:
        return values, affine
    turning = require("nibabel", "medical").orientations
    change = turning.ornt_transform(turning.io_orientation(affine), turning.axcodes2ornt(tuple(codes)))
    return turning.apply_orientation(values, change), affine @ turning.inv_ornt_aff(change, values.shape)


def on_grid(
    values: NDArray[Any], affine: NDArray[np.float64], wanted: Geometry, *, partial: bool = False
) -> NDArray[Any] | None:
    """Values of one grid at the pixels of another, where the one's voxels are the other's.

    Axes may be in another order and direction. Nothing is interpolated.

    Args:
        values: ``(i, j, k)``.
        affine: ``(4, 4)`` of them, to RAS+.
        wanted: the other grid; a plane counts as one voxel thick.
        partial: whether ``wanted`` may lie partly outside, where 0 stands; DICOM segmentations leave empty frames out.

    Returns:
        ``wanted.shape``; None where some pixel of ``wanted`` lies a tenth of a voxel or more off a voxel's centre.
    """
    shape = (*wanted.shape, 1)[:3]
    change = np.linalg.solve(affine, wanted.matrix)
    whole = np.rint(change)
    corners = np.array(np.meshgrid(*([0, side - 1] for side in shape), [1], indexing="ij")).reshape(4, -1)
    used = np.array([side > 1 for side in shape])
    turns = np.abs(whole[:3, :3])[:, used]
    off = np.abs((change - whole) @ corners)[:3].max()
    if off >= _OFF or (turns.sum(axis=0) != 1).any() or (turns.sum(axis=1) > 1).any():
        return None
    out: NDArray[Any] = np.zeros(shape, values.dtype)
    # Each axis of the stored values runs along one wanted axis, or stands still.
    index, order, inside = [], [], []
    for stored in range(3):
        along = [axis for axis in range(3) if used[axis] and whole[stored, axis]]
        steps = np.arange(shape[along[0]]) if along else np.zeros(1, int)
        at = (whole[stored, 3] + (whole[stored, along[0]] * steps if along else 0)).astype(int)
        at = np.atleast_1d(at)
        fits = (at >= 0) & (at < values.shape[stored])
        if not partial and not fits.all():
            return None
        index.append(at[fits])
        order.append(along[0] if along else -1)
        inside.append(np.flatnonzero(fits))
    part = values[np.ix_(*index)]
    free = [axis for axis in range(3) if axis not in order]
    places = [axis if axis >= 0 else free.pop(0) for axis in order]
    target = [inside[places.index(axis)] for axis in range(3)]
    out[np.ix_(*target)] = part.transpose([places.index(axis) for axis in range(3)])
    return out.reshape(wanted.shape)
