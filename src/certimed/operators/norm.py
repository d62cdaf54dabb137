"""The spectral norm of a preparation map, bounded from above with a proof and not an estimate.

The map is a Kronecker product, so ``||A|| = ||channels|| * ||A_1|| * ||A_2||``. Each one-dimensional matrix is found by
pushing basis vectors through the function that prepares images, so no formula of an interpolation kernel is trusted.
Its norm is the root of the largest eigenvalue of the banded matrix ``G = M M^T``, and ``mu`` is at least that
eigenvalue as soon as ``mu I - G`` is positive semidefinite, which a Cholesky factorisation that runs to its end proves
up to a rounding error known beforehand (Demmel 1989; Higham, Accuracy and Stability, Theorem 10.5; Rump, BIT 2006).
Bisection on ``mu`` then needs no starting vector and no assumption on convergence.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse

from certimed.operators.geometry import LUMA, MEAN, REPEAT, SAME, Axis, Geometry, unchanged
from certimed.operators.linear import LUMA_WEIGHTS, apply

TIGHTNESS = 1e-6
"""Relative width of the bisection: the bound exceeds the norm by half of it, and rounding."""

_UNIT = 2.0**-53
_CHUNK_VALUES = 1 << 20


def norm_bound(geometry: Geometry) -> float:
    """An upper bound on ``||A||_2``, at most 0.001 % above it.

    Guarantee: ``||A d|| <= bound * ||d||`` for every native perturbation ``d``, where A has the float32 weights that
    PyTorch applies on the CPU, and likewise for its float64 weights. Rounding of the sums at run time is not covered,
    as in all else that is certified (real arithmetic beyond the statistics).

    Exactly 1 where the map only pads and crops.
    """
    bound = _channel_bound(geometry)
    for axis in geometry.axes:
        bound = bound if axis.resized == axis.padded else up(bound * _axis_bound(axis, geometry.kernel))
    return bound


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
