"""The spectral norm of a preparation map, bounded from above with a proof and not an estimate.

The map is a Kronecker product, so ``||A|| = ||channels|| * ||A_1|| * ||A_2||`` (of a volume, times ``||A_3||``). Each
one-dimensional matrix is found by pushing basis vectors through the function that prepares images, so no formula of an
interpolation kernel is trusted.
Its norm is the root of the largest eigenvalue of the banded matrix ``G = M M^T``, and ``mu`` is at least that
eigenvalue as soon as ``mu I - G`` is positive semidefinite, which a Cholesky factorisation that runs to its end proves
up to a rounding error known beforehand (Demmel 1989; Higham, Accuracy and Stability, Theorem 10.5; Rump, BIT 2006).
Bisection on ``mu`` then needs no starting vector and no assumption on convergence.

That the map is a Kronecker product is what its description says, and what a library may get wrong. So a random image
goes through the real map for every bound, and has to arrive where the matrices send it: if it does, the map is that
product, but for an event of probability zero.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse

from certimed.errors import ImageError
from certimed.operators.geometry import LUMA, MEAN, REPEAT, SAME, Axis, Geometry, unchanged
from certimed.operators.linear import LUMA_WEIGHTS, apply, mix_channels

TIGHTNESS = 1e-6
"""Relative width of the bisection: the bound exceeds the norm by half of it, and rounding."""

_UNIT = 2.0**-53
_CHUNK_VALUES = 1 << 20
_ROUNDINGS = 8  # of float32 besides those of sums: weights, their scales


@lru_cache(maxsize=4096)
def norm_bound(geometry: Geometry) -> float:
    """An upper bound on ``||A||_2``, at most 0.001 % above it.

    Guarantee: ``||A d|| <= bound * ||d||`` for every native perturbation ``d``, where A has the float32 weights that
    PyTorch applies on the CPU, and likewise for its float64 weights. Rounding of the sums at run time is not covered,
    as in all else that is certified (real arithmetic beyond the statistics).

    Exactly 1 where the map only pads and crops.

    Raises:
        ImageError: the map that runs here is not the product of the maps of its axes, so that it has no such bound.
    """
    if geometry.resizes:
        _check_product(geometry)
    bound = _channel_bound(geometry)
    for axis in geometry.axes:
        bound = bound if axis.resized == axis.padded else up(bound * _axis_bound(axis, geometry.kernel))
    return bound


def _check_product(geometry: Geometry) -> None:
    """Send a random image through the real map, and through the matrices of its axes in float64."""
    image = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(0))
    matrices = [axis_matrix(axis, geometry.kernel) for axis in geometry.axes]
    terms = sum(int(np.diff(one.indptr).max(initial=1)) for one in matrices) + geometry.depth + _ROUNDINGS
    for found, mixed in zip(apply(geometry, image), mix_channels(geometry, image)):
        wanted, sizes = (part.double().numpy() for part in (mixed, abs(mixed)))
        for axis, matrix in enumerate(matrices):
            wanted, sizes = _along(matrix, wanted, axis), _along(abs(matrix), sizes, axis)
        allowed = terms * 2.0**-24 * sizes + np.finfo(np.float32).tiny
        off = np.abs(found.double().numpy() - wanted) > allowed
        if off.any():
            raise ImageError(
                f"preparing an image ({geometry.describe()}) is not what its description says with PyTorch "
                f"{torch.__version__} ({int(off.sum())} of {off.size} values of a random image are elsewhere), so no "
                "radius can be carried over to native resolution; use another size, or certify with space native"
            )


def _along(matrix: Any, values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """A matrix applied to one axis of an array."""
    lines = np.moveaxis(values, axis, 0)
    product = matrix @ lines.reshape(len(lines), -1)
    return np.moveaxis(product.reshape(-1, *lines.shape[1:]), 0, axis)


def up(value: float) -> float:
    """The next float64: an upper bound on what the last operation rounded."""
    return math.nextafter(value, math.inf)


def _channel_bound(geometry: Geometry) -> float:
    if geometry.channels == REPEAT:
        return up(math.sqrt(3))
    if geometry.channels == MEAN:
        return up(1 / math.nextafter(math.sqrt(geometry.depth), 0.0)) if geometry.depth > 1 else 1.0
    if geometry.channels == LUMA:
        kinds = (np.float32, np.float64)
        return max(up(up(math.sqrt(up(up(math.fsum(float(kind(w)) ** 2 for w in LUMA_WEIGHTS)))))) for kind in kinds)
    assert geometry.channels == SAME
    return 1.0


@lru_cache(maxsize=4096)
def _axis_bound(axis: Axis, kernel: str) -> float:
    """Over both precisions: the weights that run, and those of the verifier's arithmetic."""
    return max(matrix_norm_bound(axis_matrix(axis, kernel, dtype)) for dtype in (torch.float32, torch.float64))


def axis_matrix(axis: Axis, kernel: str, dtype: torch.dtype = torch.float32) -> Any:
    """The sparse float64 matrix ``(axis.size, axis.native)`` of one axis, column by column from basis vectors."""
    geometry = Geometry(SAME, 1, (unchanged(1), axis), kernel)
    step = max(1, _CHUNK_VALUES // max(axis.native, axis.padded, axis.resized))
    parts = []
    for begin in range(0, axis.native, step):
        count = min(step, axis.native - begin)
        basis = torch.zeros((count, 1, 1, axis.native), dtype=dtype)
        basis[torch.arange(count), 0, 0, begin + torch.arange(count)] = 1
        parts.append(sparse.csr_array(apply(geometry, basis)[:, 0, 0].double().numpy()))
    return sparse.vstack(parts, format="csr").T.tocsr()


def matrix_norm_bound(matrix: Any) -> float:
    """Upper bound on the spectral norm of a sparse matrix with banded ``M M^T``; within :data:`TIGHTNESS` of it."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T.tocsr()
    gram = sparse.coo_array(short @ short.T)
    lower = gram.row >= gram.col
    rows, columns, values = gram.row[lower], gram.col[lower], gram.data[lower]
    bands: NDArray[np.float64] = np.zeros((int((rows - columns).max(initial=0)) + 1, short.shape[0]))
    bands[rows - columns, columns] = values
    sizes = abs(short)
    sums = [float(sizes.sum(axis=axis).max()) for axis in (0, 1)]
    terms = int(np.diff(short.indptr).max(initial=1))
    product = 2 * _gamma(terms + 2) * sums[0] * sums[1]  # | M M^T - computed |, with room for the sums' own rounding
    low, high = float(bands[0].max()), sums[0] * sums[1] * (1 + _gamma(4 * terms))
    while high - low > TIGHTNESS * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _semidefinite(bands, middle) else (middle, high)
    order = len(bands[0])
    rounding = product + 2 * (_gamma(order + 1) * order + _UNIT) * high
    return up(math.sqrt(up(high + up(rounding))))


def _semidefinite(bands: NDArray[np.float64], mu: float) -> bool:
    """Whether the Cholesky factorisation of ``mu I - G`` runs to its end."""
    shifted = -bands
    shifted[0] += mu
    try:
        linalg.cholesky_banded(shifted, lower=True, overwrite_ab=True)
    except linalg.LinAlgError:
        return False
    return True


def _gamma(n: int) -> float:
    """Higham's ``gamma_n = n u / (1 - n u)``, the relative error of ``n`` float64 operations."""
    return n * _UNIT / (1 - n * _UNIT)
