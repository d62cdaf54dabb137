"""NIfTI: orientation, slices, percentiles, scaling, exactly."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from certimed.data import ReadOptions, read_image
from certimed.errors import ImageError

nibabel = pytest.importorskip("nibabel")

# RAS volume (x to the right, y to anterior, z to superior), values 0..119: all positions are distinct.
RAS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
FULL = {"percentiles": (0.0, 100.0)}


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind: str = "Nifti1Image") -> Path:
    nibabel.save(getattr(nibabel, kind)(data, np.eye(4) if affine is None else affine), path)
    return path


def views(volume: np.ndarray) -> dict[str, np.ndarray]:
    """Middle slices written out by index: rows from the top, columns from the left."""
    nx, ny, nz = volume.shape
    return {
        "axial": np.array([[volume[x, y, nz // 2] for x in range(nx)] for y in reversed(range(ny))]),
        "coronal": np.array([[volume[x, ny // 2, z] for x in range(nx)] for z in reversed(range(nz))]),
        "sagittal": np.array([[volume[nx // 2, y, z] for y in range(ny)] for z in reversed(range(nz))]),
    }


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_middle_slices(tmp_path: Path, ending: str, axis: str) -> None:
    image = read_image(save(tmp_path / f"a.{ending}", RAS), ReadOptions(axis=axis, **FULL))
    np.testing.assert_allclose(image.pixels[0], views(RAS)[axis] / 119, atol=1e-7)
    size = RAS.shape[("sagittal", "coronal", "axial").index(axis)]
    assert image.intensity.startswith(f"{axis} slice {size // 2} of {size}")
    assert "(0 to 119) became 0 and 1" in image.intensity


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_storage_order_does_not_matter(tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    stored, affine = np.transpose(RAS, order), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(zip(order, signs)):
        affine[world, axis] = sign * 2.0
        if sign < 0:
            stored = np.flip(stored, axis)
    path = save(tmp_path / "a.nii.gz", np.ascontiguousarray(stored), affine)
    for axis in ("axial", "coronal", "sagittal"):
        pixels = read_image(path, ReadOptions(axis=axis, **FULL)).pixels[0]
        np.testing.assert_allclose(pixels, views(RAS)[axis] / 119, atol=1e-7)
        first = read_image(path, ReadOptions(axis=axis, slice=0, **FULL)).pixels[0]
        position = ("sagittal", "coronal", "axial").index(axis)
        np.testing.assert_allclose(first, np.rot90(np.take(RAS, 0, position)) / 119, atol=1e-7)


def test_percentiles_are_of_the_volume(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(100, 20, (8, 9, 10)).astype(np.float32)
    low, high = np.percentile(data, (0.5, 99.5))
    expected = np.clip((np.rot90(data[:, :, 5]) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(read_image(save(tmp_path / "a.nii", data)).pixels[0], expected, atol=1e-6)


def test_scaling_in_the_header_and_window(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(RAS, np.eye(4))
    image.header.set_slope_inter(2.0, -10.0)
    nibabel.save(image, tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii", ReadOptions(window=(50, 100)))
    scaled = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)
    np.testing.assert_allclose(read.pixels[0], np.clip(np.rot90(scaled[:, :, 3]) / 100, 0, 1), atol=1e-6)


def test_four_dimensions_and_frames(tmp_path: Path) -> None:
    data = np.stack([RAS, RAS[::-1]], axis=-1)
    path = save(tmp_path / "a.nii.gz", data)
    for frame in (0, 1):
        read = read_image(path, ReadOptions(frame=frame, **FULL))
        np.testing.assert_allclose(read.pixels[0], np.rot90(data[:, :, 3, frame]) / 119, atol=1e-7)
        assert f"frame {frame} of 2" in read.intensity
    with pytest.raises(ImageError, match="frame 2 was asked for and it has 2"):
        read_image(path, ReadOptions(frame=2))


def test_one_slice_thick_is_that_slice(tmp_path: Path) -> None:
    for name, data in (("flat", RAS[:, :, 0]), ("thin", RAS[:, :, :1])):
        read = read_image(save(tmp_path / f"{name}.nii", data), ReadOptions(**FULL))
        np.testing.assert_allclose(read.pixels[0], np.rot90(RAS[:, :, 0]) / RAS[:, :, 0].max(), atol=1e-7)
    coronal = read_image(save(tmp_path / "c.nii", RAS[:, :1, :]), ReadOptions(**FULL))
    assert coronal.pixels.shape == (1, 6, 4)
    assert coronal.intensity.startswith("coronal")


def test_nifti2_and_wrong_ending(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", RAS, kind="Nifti2Image").rename(tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz", ReadOptions(**FULL))
    np.testing.assert_allclose(read.pixels[0], views(RAS)["axial"] / 119, atol=1e-7)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="slice 6 was asked for and there are 6 axial"):
        read_image(save(tmp_path / "a.nii", RAS), ReadOptions(slice=6))
    with pytest.raises(ImageError, match="both 3"):
        read_image(save(tmp_path / "a.nii", np.full((3, 3, 3), 3, np.int16)))
    with pytest.raises(ImageError, match="colour or complex"):
        read_image(save(tmp_path / "a.nii", RAS.astype(np.complex64)))
    with pytest.raises(ImageError, match="not finite"):
        read_image(save(tmp_path / "a.nii", np.where(RAS == 7, np.nan, RAS).astype(np.float32)))
    with pytest.raises(ImageError, match="more than four dimensions"):
        read_image(save(tmp_path / "a.nii", np.zeros((3, 3, 3, 1, 2), np.int16)))
    with pytest.raises(ImageError, match="more than the 110 voxels"):
        read_image(save(tmp_path / "a.nii", RAS), ReadOptions(max_pixels=11))


def test_nan_has_the_meaning_that_is_asked_for(tmp_path: Path) -> None:
    data = RAS.astype(np.float32) - 10
    data[0], data[3, 4, 3] = np.nan, np.nan  # a border, and one in the middle slice
    path = save(tmp_path / "a.nii.gz", data)
    numbers = data[~np.isnan(data)]
    with pytest.raises(ImageError, match=r"values that are no number .*--nan zero or --nan min"):
        read_image(path)
    for nan, value in (("zero", 0.0), ("min", float(numbers.min()))):
        for window in (None, (40, 100)):
            image = read_image(path, ReadOptions(nan=nan, window=window))
            low, high = np.percentile(numbers, (0.5, 99.5)) if window is None else (-10, 90)
            plane = np.rot90(np.nan_to_num(data[:, :, 3], nan=value))
            np.testing.assert_allclose(image.pixels[0], np.clip((plane - low) / (high - low), 0, 1), atol=1e-6)
            assert f"6 values that are no number (NaN) read as {value:g} ({nan})" in image.intensity
    data[1, 1, 1] = np.inf
    with pytest.raises(ImageError, match="infinity"):
        read_image(save(path, data), ReadOptions(nan="zero"))
    with pytest.raises(ImageError, match="nothing but NaN"):
        read_image(save(path, np.full((3, 3, 3), np.nan, np.float32)), ReadOptions(nan="min"))


def test_gzip_is_read_to_its_checksum(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 9, (20, 20, 20), dtype=np.int16))
    whole = path.read_bytes()
    for options in (ReadOptions(), ReadOptions(window=(4, 8), slice=0)):
        path.write_bytes(whole)
        read_image(path, options)
        path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
        with pytest.raises(ImageError, match="CRC"):
            read_image(path, options)


def test_pairs(tmp_path: Path) -> None:
    from certimed.data import identity, open_dataset

    for kind in ("Nifti1Pair", "Nifti2Pair"):
        folder = tmp_path / kind
        folder.mkdir()
        save(folder / "a.img", RAS, kind=kind)
        dataset = open_dataset(folder)
        assert (dataset.ids, dataset.ignored) == (("a.hdr",), 0)
        np.testing.assert_array_equal(dataset.load(0).pixels, read_image(folder / "a.img").pixels)
        np.testing.assert_allclose(
            read_image(folder / "a.hdr", ReadOptions(**FULL)).pixels[0], views(RAS)["axial"] / 119
        )
        before = identity(dataset)
        data = (folder / "a.img").read_bytes()
        (folder / "a.img").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert identity(dataset) != before
        (folder / "a.img").unlink()
        with pytest.raises(ImageError, match=r"header of a pair, and a\.img with the voxels is not beside it"):
            read_image(folder / "a.hdr")


def test_analyze_is_refused_by_name(tmp_path: Path) -> None:
    nibabel.save(nibabel.AnalyzeImage(RAS, np.eye(4)), tmp_path / "a.img")
    with pytest.raises(ImageError, match=r"Analyze 7\.5 header, which does not say where left is"):
        read_image(tmp_path / "a.hdr")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flip", [1, -1])
def test_spacing_follows_the_axes_of_the_plane(tmp_path: Path, order: tuple[int, ...], flip: int) -> None:
    steps, affine = (1.0, 2.0, 3.5), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, world in enumerate(order):
        affine[world, axis] = flip * steps[world]
    path = save(tmp_path / "a.nii", np.ascontiguousarray(np.transpose(RAS, order)), affine)
    for axis, wanted in (("axial", (2.0, 1.0)), ("coronal", (3.5, 1.0)), ("sagittal", (3.5, 2.0))):
        assert read_image(path, ReadOptions(axis=axis, **FULL)).spacing == pytest.approx(wanted)


def test_spacing_is_in_millimetres_whatever_the_unit(tmp_path: Path) -> None:
    stored = nibabel.Nifti1Image(RAS, np.diag([200.0, 300.0, 400.0, 1.0]))
    stored.header.set_xyzt_units("micron")
    nibabel.save(stored, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii", ReadOptions(**FULL)).spacing == pytest.approx((0.3, 0.2))
