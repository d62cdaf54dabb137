"""Measurements against scikit-image, against brute force, and in their units."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from skimage import measure

from certimed.errors import InputError, ModelError
from certimed.measurements import Scene, measurement, parse_measurement

NAMES = ("background", "heart", "left lung", "right lung")


def blobs(seed: int, shape=(40, 48)) -> np.ndarray:
    """Random regions of four classes."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(4, *shape)), (0, *([2.5] * len(shape))))
    return noise.argmax(axis=0).astype(np.uint8)


def value(text: str, mask, **about) -> float:
    return parse_measurement(text, NAMES).value(Scene(mask, **about))


def brute_diameter(inside, steps) -> float:
    """Largest distance of any two pixel corners of one component."""
    labels = measure.label(inside, connectivity=inside.ndim)
    found = np.nan
    for place in range(1, labels.max() + 1):
        pixels = np.argwhere(labels == place)
        corners = np.unique(np.concatenate([pixels + shift for shift in product((0, 1), repeat=inside.ndim)]), axis=0)
        found = np.nanmax([found, pdist(corners * steps).max()])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_planes_agree_with_scikit_image(seed):
    mask, spacing = blobs(seed), (0.5, 0.75)
    inside = mask == 1
    assert value("area:heart", mask) == inside.sum()
    assert value("area:heart", mask, spacing=spacing) == pytest.approx(inside.sum() * 0.375 / 100)
    assert value("count:heart", mask) == measure.label(inside, connectivity=2).max()
    assert value("diameter:heart", mask, spacing=spacing) == pytest.approx(brute_diameter(inside, spacing))
    (whole,) = measure.regionprops(inside.astype(int))
    assert value("centroid_y:heart", mask, spacing=spacing) == pytest.approx(whole.centroid[0] * 0.5)
    assert value("centroid_x:1", mask, spacing=spacing) == pytest.approx(whole.centroid[1] * 0.75)
    assert value("area:heart+left lung", mask) == np.isin(mask, (1, 2)).sum()


@pytest.mark.parametrize("seed", range(2))
def test_volumes(seed):
    mask, spacing = blobs(seed, (9, 11, 10)), (3.0, 0.5, 0.75)
    inside = mask == 2
    assert value("volume:left lung", mask, spacing=spacing) == pytest.approx(inside.sum() * 1.125 / 1000)
    assert value("diameter:left lung", mask, spacing=spacing) == pytest.approx(brute_diameter(inside, spacing))
    assert value("count:left lung", mask) == measure.label(inside, connectivity=3).max()
    assert value("centroid_z:left lung", mask, spacing=spacing) == pytest.approx(np.argwhere(inside)[:, 0].mean() * 3)


def test_single_pixels_and_lines_have_a_diameter():
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 1
    assert value("diameter:1", mask) == pytest.approx(np.sqrt(2))
    mask[2, 3:] = 1
    assert value("diameter:1", mask) == pytest.approx(np.sqrt(10))


def test_cardiothoracic_ratio_is_of_the_widths():
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 4:14], mask[5:15, 26:36], mask[10:15, 15:25] = 3, 2, 1
    assert value("ctr", mask) == pytest.approx(10 / 32)
    assert value("ctr:heart/left lung", mask) == pytest.approx(10 / 10)


def test_against_a_truth_and_an_image():
    mask, truth = blobs(0), blobs(1)
    image = np.random.default_rng(0).random((2, *mask.shape)).astype(np.float32)
    a, t = mask == 1, truth == 1
    assert value("dice:heart", mask, truth=truth) == pytest.approx(2 * (a & t).sum() / (a.sum() + t.sum()))
    assert value("iou:heart", mask, truth=truth) == pytest.approx((a & t).sum() / (a | t).sum())
    assert value("intensity:heart", mask, image=image) == pytest.approx(image[:, a].mean(), rel=1e-6)


@pytest.mark.parametrize("text", ["diameter:1", "ctr", "centroid_x:1", "intensity:1", "dice:1", "iou:1"])
def test_an_empty_mask_has_no_value_but_for_sizes_and_counts(text):
    empty = np.zeros((4, 4), np.uint8)
    about = {"truth": empty, "image": np.zeros((1, 4, 4), np.float32)}
    assert np.isnan(value(text, empty, **about))
    assert value("area:1", empty) == value("count:1", empty) == 0


def test_units_follow_from_spacing_and_axes():
    def unit(text, spacing, axes):
        return parse_measurement(text, NAMES).unit(spacing, axes)

    assert [unit("area:1", (1.0, 1.0), 2), unit("area:1", None, 2)] == ["cm2", "pixels"]
    assert [unit("volume:1", (1.0,) * 3, 3), unit("volume:1", None, 3)] == ["ml", "voxels"]
    assert [unit("diameter:1", (1.0, 1.0), 2), unit("diameter:1", None, 2), unit("ctr", None, 2)] == [
        "mm",
        "pixels",
        "",
    ]
    with pytest.raises(InputError, match="3 spatial axes"):
        unit("volume:1", None, 2)
    with pytest.raises(InputError, match="must hold 2 lengths"):
        unit("area:1", (1.0, -1.0), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("girth:heart", "unknown; use KIND:CLASS"),
        ("area:liver", "names the class 'liver'"),
        ("area", "names the class ''"),
        ("area:7", "names the class '7'"),
        ("ctr:heart", "names 1 groups of classes, and ctr has 2"),
        ("python:mine:f", "--allow-code"),
    ],
)
def test_spellings_are_refused_by_name(text, message):
    with pytest.raises(InputError, match=message):
        parse_measurement(text, NAMES)


def test_functions_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_numbers.py").write_text(
        "def perimeter(mask, spacing):\n    return float(mask.sum()) * spacing[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = parse_measurement("python:my_numbers:perimeter", NAMES, allow_code=True)
    assert own.value(Scene(np.ones((2, 2), np.uint8), (3.0, 1.0))) == 12 and not own.kind.reads_image
    assert measurement(lambda image: 1.0, "mean").kind.reads_image
    with pytest.raises(InputError, match="a measurement takes any of mask"):
        measurement(lambda pixels: 1.0, "mean")
    with pytest.raises(ModelError, match="mean failed on a noisy copy \\(ZeroDivisionError"):
        measurement(lambda mask: 1 / 0, "mean").value(Scene(np.ones((2, 2))))
