"""The map to the certified space is linear, has the size it says, and never clips."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from certimed.errors import ImageError, InputError, ModelError
from certimed.vlm import Preprocess

GREY = {"mean": (0.5,), "std": (0.25,), "channels": 1}
COLOUR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
CASES: list[dict[str, Any]] = [
    {"size": (32, 32), **COLOUR},
    {"size": (32, 32), "edge": 40, "interpolation": "bilinear", **COLOUR},
    {"size": (32, 32), "crop_offset": "round", **COLOUR},
    {"size": (24, 40), "resize": "exact", **COLOUR},
    {"size": (32, 32), "resize": "longest", **COLOUR},
    {"size": (32, 32), "resize": "none", **COLOUR},
    {"size": (32, 32), "resize": "exact", "square": 32, **GREY},
]
SHAPES = [(3, 48, 70), (3, 71, 33), (1, 20, 21), (3, 32, 32), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_linear_and_of_the_stated_shape(case: dict[str, Any], shape: tuple[int, int, int]) -> None:
    prepare = Preprocess(**case)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    together, apart = prepare(3 * a - 2 * b), 3 * prepare(a) - 2 * prepare(b)
    assert together.shape == prepare.shape == (case.get("channels", 3), *case["size"])
    assert together.dtype == torch.float32
    assert torch.allclose(together, apart, atol=2e-5)
    assert (prepare(torch.zeros(shape)) == 0).all()


def test_overshoot_is_kept_because_clipping_is_not_linear() -> None:
    edge = torch.zeros(3, 16, 16)
    edge[:, :, 8:] = 1
    out = Preprocess(size=(32, 32), **COLOUR)(edge)
    assert float(out.max()) > 1.01 and float(out.min()) < -0.01
    bilinear = Preprocess(size=(32, 32), interpolation="bilinear", **COLOUR)(edge)
    assert float(bilinear.min()) >= 0 and float(bilinear.max()) <= 1 + 1e-6


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = torch.rand(3, 32, 32)
    assert torch.equal(Preprocess(size=(32, 32), **COLOUR)(image), image)


def test_a_constant_image_stays_constant_and_grey_is_repeated() -> None:
    out = Preprocess(size=(32, 32), **COLOUR)(torch.full((1, 61, 45), 0.3))
    assert torch.allclose(out, torch.full((3, 32, 32), 0.3), atol=1e-6)
    assert out.is_contiguous()


def test_colour_becomes_luma() -> None:
    colour = torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1).expand(3, 8, 8)
    out = Preprocess(size=(8, 8), **GREY)(colour)
    assert torch.allclose(out, torch.full((1, 8, 8), 0.299 + 0.587 * 0.5 + 0.114 * 0.2), atol=1e-6)


@pytest.mark.parametrize(("offset", "first"), [("floor", 1), ("round", 2)])
def test_an_odd_crop_margin_goes_where_the_source_library_puts_it(offset: Any, first: int) -> None:
    """Margin 3: transformers starts at floor(1.5) = 1, torchvision at round(1.5) = 2."""
    image = torch.arange(7.0).expand(1, 4, 7) / 7
    out = Preprocess(size=(4, 4), crop_offset=offset, **COLOUR)(image)
    assert float(out[0, 0, 0]) == pytest.approx(first / 7)


def test_padding_is_black_and_centred() -> None:
    out = Preprocess(size=(6, 6), resize="none", **COLOUR)(torch.ones(3, 2, 6))
    assert out[0, :, 0].tolist() == [0, 0, 1, 1, 0, 0]
    square = Preprocess(size=(4, 4), resize="exact", square=4, **GREY)(torch.ones(1, 2, 3))
    assert square[0].sum() == 6 and square[0, 1, :3].tolist() == [1, 1, 1]


def test_antialiasing_shrinks_noise_as_methods_state() -> None:
    """Bilinear 512 -> 224: operator norm .438 (METHODS 2.8), by power iteration on A^T A."""
    prepare = Preprocess(size=(224, 224), resize="exact", interpolation="bilinear", **GREY)
    x = torch.randn(1, 512, 512, generator=torch.Generator().manual_seed(0)).abs().requires_grad_()
    with torch.no_grad():
        x /= x.norm()
    for _ in range(20):
        out = prepare(x)
        (gradient,) = torch.autograd.grad(out.square().sum() / 2, x)
        x = (gradient / gradient.norm()).detach().requires_grad_()
    assert math.sqrt(float(gradient.norm())) == pytest.approx(0.438, abs=2e-3)


def test_normalise_is_the_model_s_mean_and_std() -> None:
    prepare = Preprocess(size=(2, 2), **COLOUR)
    out = prepare.normalise(torch.ones(1, 3, 2, 2))
    assert out[0, :, 0, 0].tolist() == pytest.approx([2.5, 2.4, 0.7 / 0.3])
    with pytest.raises(ModelError, match=r"\(batch, 3, 2, 2\) but got \(1, 3, 3, 2\)"):
        prepare.normalise(torch.ones(1, 3, 3, 2))


def test_description_says_every_step() -> None:
    text = Preprocess(size=(32, 32), edge=40, **COLOUR).describe()
    assert "shortest edge to 40" in text and "centre crop 32x32" in text and "no clipping" in text and "0.25" in text
    text = Preprocess(size=(32, 24), resize="exact", square=32, **GREY).describe()
    assert "grey" in text and "square of at least 32" in text and "resize to 32x24" in text and "crop" not in text


@pytest.mark.parametrize(
    ("pixels", "part"),
    [
        (torch.zeros(4, 8, 8), r"\(4, 8, 8\)"),
        (torch.zeros(8, 8), r"\(8, 8\)"),
        (torch.zeros(3, 0, 8), r"\(3, 0, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 1, 400_000), "elongated"),
    ],
)
def test_what_is_no_image_is_refused(pixels: torch.Tensor, part: str) -> None:
    with pytest.raises(ImageError, match=part):
        Preprocess(size=(224, 224), **COLOUR)(pixels)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"size": (0, 4)}, "positive"),
        ({"channels": 2}, "1 or 3"),
        ({"mean": (0.5,)}, "one value for each"),
        ({"std": (0.1, 0.0, 0.1)}, "positive"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"resize": "squash"}, "resize"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        Preprocess(**{"size": (4, 4), **COLOUR, **change})
