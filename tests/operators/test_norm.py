"""The norm of the preparation map: never below the truth, hardly above it, and of the map that runs."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from geometries import set_ups
from scipy import sparse
from torch import Tensor

from certimed.errors import ImageError, InputError
from certimed.operators import (
    LUMA,
    MEAN,
    REPEAT,
    SAME,
    Axis,
    Geometry,
    apply,
    axis_matrix,
    matrix_norm_bound,
    native_radius,
    norm_bound,
    unchanged,
)
from certimed.verification.native import _norm
from certimed.vlm import Preprocess


def dense(prepare: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The whole matrix of a map, from the images of all basis vectors, one by one."""
    basis = torch.eye(math.prod(shape)).reshape(-1, *shape)
    return torch.stack([prepare(one).flatten() for one in basis]).T.double().numpy()


@pytest.mark.parametrize(("how", "shape"), set_ups(60))
def test_the_bound_is_never_below_and_within_a_thousandth_of_the_dense_norm(how, shape) -> None:
    prepare = Preprocess(**how)
    geometry = prepare.geometry(shape)
    true = np.linalg.norm(dense(prepare, shape), 2)
    bound = norm_bound(geometry)
    # The dense matrix rounds products of two float32 weights; the map in real arithmetic does not.
    assert true * (1 - 1e-6) <= bound <= true * 1.001
    assert geometry.shape == shape and geometry.input_shape == prepare.shape


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sizes", [(512, 224), (1024, 224), (150, 224), (300, 299), (7, 224), (640, 3)])
def test_one_axis_against_the_singular_values(kernel: str, sizes: tuple[int, int]) -> None:
    axis = Axis(sizes[0], (0, 0), sizes[1], (0, 0))
    for dtype in (torch.float32, torch.float64):
        matrix = axis_matrix(axis, kernel, dtype)
        true = np.linalg.svd(matrix.toarray(), compute_uv=False)[0]
        bound = matrix_norm_bound(matrix)
        assert true <= bound <= true * (1 + 1e-6)


def test_published_sizes() -> None:
    """METHODS: bilinear 512 to 224 is .438, 1024 is .220, 150 is 1.52."""
    for native, norm in ((512, 0.438), (1024, 0.220), (150, 1.515)):
        prepare = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear")
        assert norm_bound(prepare.geometry((3, native, native))) == pytest.approx(norm, abs=5e-4)


def test_matrices_without_structure_are_bounded_too() -> None:
    generator = np.random.default_rng(0)
    for rows, columns in ((1, 1), (5, 9), (40, 6), (30, 30)):
        matrix = generator.standard_normal((rows, columns))
        true = np.linalg.norm(matrix, 2)
        assert true <= matrix_norm_bound(sparse.csr_array(matrix)) <= true * (1 + 1e-6)
    assert matrix_norm_bound(sparse.csr_array(np.zeros((3, 4)))) < 1e-150


def test_the_matrices_are_those_of_the_map_that_runs() -> None:
    prepare = Preprocess((20, 24), (0.5,) * 3, (0.5,) * 3, edge=26)
    geometry = prepare.geometry((1, 37, 51))
    rows, columns = (axis_matrix(axis, geometry.kernel).toarray() for axis in geometry.axes)
    image = torch.rand(1, 37, 51, generator=torch.Generator().manual_seed(0))
    expected = rows @ image[0].double().numpy() @ columns.T
    assert np.allclose(prepare(image).double().numpy(), np.stack([expected] * 3), atol=2e-6)


def test_the_attack_along_the_first_singular_vector_reaches_the_native_radius() -> None:
    """The native radius is no looser than the norm: the worst perturbation just inside it stays just inside."""
    geometry = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3).geometry((3, 13, 17))
    matrix = dense(lambda x: apply(geometry, x), geometry.shape)
    worst = np.linalg.svd(matrix)[2][0]
    radius = 0.7
    within = native_radius(radius, norm_bound(geometry))
    assert radius * 0.999 < np.linalg.norm(matrix @ (within * worst)) < radius


def degenerate(count: int, seed: int = 0) -> list[Geometry]:
    """Maps with axes of one or two pixels before or after the resize, in all channel mixes and both kernels."""
    rng = random.Random(seed)
    sizes = (1, 1, 1, 2, 2, 3, 5, 9, 16)
    found = []
    for _ in range(count):
        axes = []
        for _ in range(2):
            native, before = rng.choice(sizes), (rng.choice((0, 0, 1)), rng.choice((0, 0, 2)))
            resized = rng.choice((native + sum(before), *sizes))
            cut = (rng.randint(0, 1), rng.randint(0, 2)) if resized > 4 else (0, -1)
            axes.append(Axis(native, before, resized, (-cut[0], -cut[1])))
        channels = rng.choice((SAME, REPEAT, LUMA, MEAN))
        depth = {REPEAT: 1, LUMA: 3}.get(channels, rng.randint(1, 4))
        found.append(Geometry(channels, depth, tuple(axes), rng.choice(("bilinear", "bicubic"))))
    for kernel in ("bilinear", "bicubic"):
        for sizes_ in (
            ((9, 5), (7, 1)),
            ((9, 3), (1, 1)),
            ((2, 4), (1, 1)),
            ((1, 8), (1, 3)),
            ((1, 1), (1, 1)),
            ((16, 4), (16, 1)),
        ):
            found.append(Geometry(SAME, 2, tuple(Axis(n, (0, 0), m, (0, 0)) for n, m in sizes_), kernel))
    return found


def norm_by_iteration(geometry: Geometry, steps: int = 60) -> tuple[float, Tensor]:
    """The norm of the map that runs, from below: power iteration on the real call and its own derivative, float64."""
    v = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(steps):
        answer, back = torch.func.vjp(lambda x: apply(geometry, x), v / v.norm())
        (v,) = back(answer)
        if float(v.norm()) == 0:
            return 0.0, v
    return float(answer.norm()), v / v.norm()


@pytest.mark.parametrize("geometry", degenerate(150), ids=lambda geometry: geometry.describe())
def test_no_vector_is_stretched_by_more_than_the_bound_through_the_call_that_runs(geometry: Geometry) -> None:
    bound = norm_bound(geometry)
    reached, worst = norm_by_iteration(geometry)
    assert reached <= bound * (1 + 1e-12)
    for vector in (*torch.randn(5, *geometry.shape, generator=torch.Generator().manual_seed(2)), worst.float()):
        for laid_out in (vector, vector.transpose(-1, -2).contiguous().transpose(-1, -2)):
            assert float(apply(geometry, laid_out).norm()) <= bound * float(vector.norm()) * (1 + 1e-6)
    true = np.linalg.norm(dense(lambda x: apply(geometry, x), geometry.shape), 2)
    assert true * (1 - 1e-6) <= bound <= true * 1.001
    # And the verifier, which knows the kernels' formulas only, agrees.
    assert bound * (1 - 1e-4) <= _norm(geometry.to_dict()) <= bound * (1 + 1e-9)


def test_one_column_gets_the_rows_it_should() -> None:
    """PyTorch gives every row of a column the weights of the first: [.43, .43, .14] three times for 6 to 3."""
    column = Geometry(SAME, 1, (Axis(6, (0, 0), 3, (0, 0)), unchanged(1)))
    row = Geometry(SAME, 1, (unchanged(1), Axis(6, (0, 0), 3, (0, 0))))
    x = torch.rand(1, 6, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply(column, x).flatten(), apply(row, x.transpose(1, 2)).flatten())
    assert len(apply(column, x).unique()) == 3


def test_sizes_of_more_than_a_column_are_resized_bit_for_bit_as_by_one_call() -> None:
    for shape, size in (((3, 37, 51), (20, 24)), ((1, 1, 9), (4, 5)), ((2, 9, 1), (4, 2)), ((2, 9, 7), (1, 3))):
        geometry = Geometry(SAME, shape[0], tuple(Axis(n, (0, 0), m, (0, 0)) for n, m in zip(shape[1:], size)))
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        wanted = torch.nn.functional.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]
        assert torch.equal(apply(geometry, x), wanted)


def test_a_resize_that_is_no_product_is_an_error_and_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe catches PyTorch's one-column resize as it is, and a resize with a little of its transpose."""

    def as_it_is(x: Tensor, size: tuple[int, ...], kernel: str) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        return torch.nn.functional.interpolate(flat, size=size, mode=kernel, antialias=True).reshape(
            *x.shape[:-2], *size
        )

    def skew(x: Tensor, size: tuple[int, ...], kernel: str) -> Tensor:
        made = as_it_is(x, size, kernel)
        return made + 1e-4 * made.transpose(-1, -2) if made.shape[-1] == made.shape[-2] else made

    for wrong, size in ((as_it_is, (3, 1)), (skew, (4, 4))):
        monkeypatch.setattr("certimed.operators.linear._interpolated", wrong)
        norm_bound.cache_clear()
        with pytest.raises(ImageError, match="no radius can be carried over"):
            norm_bound(Geometry(SAME, 2, (Axis(9, (0, 0), size[0], (0, 0)), Axis(6, (0, 0), size[1], (0, 0)))))
    norm_bound.cache_clear()


@pytest.mark.parametrize(("channels", "depth", "norm"), [(SAME, 3, 1.0), (REPEAT, 1, 3**0.5), (MEAN, 4, 0.5)])
def test_channels(channels: str, depth: int, norm: float) -> None:
    geometry = Geometry(channels, depth, (unchanged(5), unchanged(6)))
    assert norm <= norm_bound(geometry) <= norm * (1 + 1e-12)
    assert apply(geometry, torch.rand(2, depth, 5, 6)).shape == (2, *geometry.input_shape)


def test_luma_and_padding() -> None:
    luma = math.hypot(0.299, 0.587, 0.114)
    geometry = Geometry(LUMA, 3, (Axis(5, (2, 3), 10, (-1, 4)), Axis(6, (0, 0), 6, (-2, -3))))
    assert luma <= norm_bound(geometry) <= luma * (1 + 1e-6)
    assert norm_bound(Geometry(SAME, 2, (Axis(5, (2, 3), 10, (-1, 4)), unchanged(4)))) == 1.0
    assert norm_bound(Geometry(SAME, 1, (unchanged(4), unchanged(5), unchanged(6)))) == 1.0


def test_radii_round_down() -> None:
    assert native_radius(0.5, 1.0) == 0.5
    assert native_radius(0.0, 0.3) == 0.0
    for radius, bound in ((0.1, 0.3), (1.0, 3.0), (0.37, 1.5153)):
        assert native_radius(radius, bound) * bound <= radius
        assert native_radius(radius, bound) == pytest.approx(radius / bound, rel=1e-15)


@pytest.mark.parametrize("shape", [(3, 37, 51), (1, 20, 20)])
def test_geometry_round_trip(shape: tuple[int, ...]) -> None:
    geometry = Preprocess((20, 24), (0.5,) * 3, (0.5,) * 3, edge=26, square=40).geometry(shape)
    assert Geometry.from_dict(geometry.to_dict()) == geometry
    assert "x".join(map(str, shape)) in geometry.describe()


@pytest.mark.parametrize(
    "change",
    [
        {"channels": "mixed"},
        {"kernel": "lanczos"},
        {"depth": 2},
        {"depth": 1.0},
        {"axes": []},
        {"axes": [[5, 0, 0, 5, 0, 0], [4, 0, 0, 2, -1, -1]]},
        {"axes": [[5, -1, 0, 4, 0, 0], [4, 0, 0, 2, 0, 0]]},
        {"axes": [[5, 0, 0, 5, 0, 0], [5, 0, 0, 5, 0, 0], [4, 0, 0, 2, 0, 0]], "kernel": "bicubic"},
        {"axes": [[5, 0, 0, 5, 0]]},
        {"axes": None},
    ],
)
def test_impossible_geometries_are_refused(change: dict[str, Any]) -> None:
    good = Geometry(REPEAT, 1, (unchanged(5), Axis(4, (0, 0), 2, (0, 0)))).to_dict()
    with pytest.raises(InputError):
        Geometry.from_dict(good | change)


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 4, 5\)"):
        apply(Geometry(SAME, 3, (unchanged(5), unchanged(5))), torch.rand(3, 4, 5))
