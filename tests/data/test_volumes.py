"""Whole volumes of NIfTI: voxels and matrix round trip, orientations, masks on the same grid, slices as items."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from certimed.data import Geometry, ReadOptions, open_dataset, read_image
from certimed.data.geometry import NIFTI, on_grid
from certimed.data.slices import parse_slices
from certimed.errors import ImageError, InputError

nibabel = pytest.importorskip("nibabel")

VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
WHOLE = ReadOptions(volume=True, percentiles=(0.0, 100.0))
AFFINE = np.array([[2.0, 0, 0, -7], [0, 1.5, 0, 3], [0, 0, 3.0, 11], [0, 0, 0, 1]])


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def orientations() -> list[str]:
    pairs = [("L", "R"), ("P", "A"), ("I", "S")]
    return ["".join(one) for order in itertools.permutations(pairs) for one in itertools.product(*order)]


def world(values: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    """Value by place in the patient: what no reordering of axes may change."""
    index = np.indices(values.shape).reshape(3, -1)
    places = (affine @ np.vstack([index, np.ones(index.shape[1])]))[:3].T.round(4)
    return {tuple((place + 0.0).tolist()): float(v) for place, v in zip(places, values.reshape(-1))}


def reordered(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The volume and its matrix stored in another order and direction, by nibabel."""
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(AFFINE), nibabel.orientations.axcodes2ornt(codes)
    )
    turned = image.as_reoriented(change)
    return np.asarray(turned.dataobj), turned.affine


def test_there_are_48_orientations() -> None:
    assert len(set(orientations())) == 48


@pytest.mark.parametrize("codes", orientations())
def test_every_orientation_round_trips(tmp_path: Path, codes: str) -> None:
    values, affine = reordered(codes)
    path = save(tmp_path / "a.nii", values, affine)
    stored = read_image(path, WHOLE)
    assert stored.geometry is not None
    np.testing.assert_array_equal((stored.pixels[0] * 119).round(), values)
    np.testing.assert_allclose(stored.geometry.matrix, affine, atol=1e-6)
    turned = read_image(path, ReadOptions(volume=True, percentiles=(0.0, 100.0), orientation="lia"))
    assert turned.geometry is not None
    assert nibabel.aff2axcodes(turned.geometry.matrix) == ("L", "I", "A")
    assert world((turned.pixels[0] * 119).round(), turned.geometry.matrix) == world(values, affine)
    assert turned.spacing == pytest.approx((2.0, 3.0, 1.5))
    assert "axes turned to LIA" in turned.intensity


def test_a_sheared_matrix_is_kept_and_has_no_spacing(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    image = read_image(save(tmp_path / "a.nii.gz", VALUES, sheared), WHOLE)
    assert image.geometry is not None
    np.testing.assert_allclose(image.geometry.matrix, sheared, atol=1e-6)
    assert image.spacing is None  # the product of the steps is not the volume of a voxel
    assert image.geometry.steps == pytest.approx((2.0, 1.5, np.sqrt(10)))


def test_a_frame_and_the_checksum(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.stack([VALUES, 119 - VALUES], axis=-1))
    second = read_image(path, ReadOptions(volume=True, frame=1, percentiles=(0, 100)))
    np.testing.assert_array_equal((second.pixels[0] * 119).round(), 119 - VALUES)
    assert "frame 1 of 2" in second.intensity
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    with pytest.raises(ImageError, match="CRC"):
        read_image(path, WHOLE)


def test_nan_and_windows_of_a_volume(tmp_path: Path) -> None:
    data = VALUES.astype(np.float32)
    data[0, 0, :2] = np.nan
    path = save(tmp_path / "a.nii", data)
    with pytest.raises(ImageError, match="--nan zero or --nan min"):
        read_image(path, WHOLE)
    found = read_image(path, ReadOptions(volume=True, nan="min", window=(60, 120)))
    np.testing.assert_allclose(found.pixels[0], np.nan_to_num(data, nan=2) / 120, atol=1e-6)
    assert "2 values that are no number (NaN) read as 2 (min)" in found.intensity


def test_every_slice_is_the_one_that_is_read_by_number(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    save(tmp_path / "images" / "a.nii.gz", VALUES)
    save(tmp_path / "masks" / "a.nii.gz", (VALUES % 2).astype(np.uint8))
    for axis, count in (("axial", 6), ("coronal", 5), ("sagittal", 4)):
        data = open_dataset(tmp_path, options=ReadOptions(axis=axis), slices="all")
        assert data.ids == tuple(f"a.nii.gz#{k:04d}" for k in range(count))
        assert set(data.groups) == {"a.nii.gz"}
        for index in range(count):
            alone = read_image(tmp_path / "images" / "a.nii.gz", ReadOptions(axis=axis, slice=index))
            image = data.load(index)
            np.testing.assert_array_equal(image.pixels, alone.pixels)
            assert image.mask is not None
            assert image.geometry == alone.geometry
    assert len(open_dataset(tmp_path, slices="every:4")) == 2
    assert len(open_dataset(tmp_path, slices="2:5")) == 3
    with pytest.raises(InputError, match="leaves no slice"):
        open_dataset(tmp_path, slices="40:50")
    with pytest.raises(InputError, match="choose one"):
        open_dataset(tmp_path, slices="all", options=ReadOptions(volume=True))


@pytest.mark.parametrize("text", ["", "every:0", "5:5", "6:2", "-1:3", "every", "1:2:3"])
def test_spellings_of_slices_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="give all, every:K"):
        parse_slices(text)


def test_a_plane_knows_where_it_lies(tmp_path: Path) -> None:
    for codes in ("RAS", "LIA", "SPR", "PIL"):
        values, affine = reordered(codes)
        path = save(tmp_path / f"{codes}.nii", values, affine)
        known = world(values, affine)
        for axis in ("axial", "coronal", "sagittal"):
            plane = read_image(path, ReadOptions(axis=axis, slice=1, percentiles=(0, 100)))
            assert plane.geometry is not None
            shown = (plane.pixels[0] * 119).round()[:, :, None]
            assert world(shown, plane.geometry.matrix).items() <= known.items()


@pytest.mark.parametrize("codes", ["RAS", "LIA", "SPR", "AIL"])
def test_a_mask_in_another_order_is_laid_on_its_volume(tmp_path: Path, codes: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    save(tmp_path / "images" / "a.nii", VALUES)
    values, affine = reordered(codes)
    save(tmp_path / "masks" / "a.nii", (values % 3).astype(np.uint8), affine)
    image = open_dataset(tmp_path, options=WHOLE).load(0)
    assert image.mask is not None
    np.testing.assert_array_equal(image.mask, VALUES % 3)
    for off in (0.9, 1.5):  # between voxels, and one voxel further
        moved = affine.copy()
        moved[1, 3] += off
        save(tmp_path / "masks" / "a.nii", (values % 3).astype(np.uint8), moved)
        with pytest.raises(ImageError, match="are not those of the image"):
            open_dataset(tmp_path, options=WHOLE).load(0)


def test_a_grid_that_covers_a_part_is_0_elsewhere() -> None:
    part = Geometry.of(AFFINE, (3, 2, 4), NIFTI)
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, :3] @ [-1, 2, 3]  # the wanted grid begins outside, and ends inside
    found = on_grid(VALUES, AFFINE, Geometry.of(shifted, part.shape, NIFTI), partial=True)
    wanted = np.zeros(part.shape, VALUES.dtype)
    wanted[1:, :, :3] = VALUES[0:2, 2:4, 3:6]
    np.testing.assert_array_equal(found, wanted)
    assert on_grid(VALUES, AFFINE, Geometry.of(shifted, part.shape, NIFTI)) is None
    assert on_grid(VALUES, AFFINE, Geometry.of(AFFINE @ np.diag([2, 1, 1, 1]), (2, 5, 6), NIFTI)) is None


def test_geometry_of_another_size_and_as_json() -> None:
    geometry = Geometry.of(AFFINE, (4, 5, 6), NIFTI, ("a.nii",))
    half = geometry.resized((8, 5, 3))
    assert half.spacing == pytest.approx((1.0, 1.5, 6.0))
    # The corner of the first voxel stays where it is.
    for one in (geometry, half):
        np.testing.assert_allclose(one.matrix @ [-0.5, -0.5, -0.5, 1], geometry.matrix @ [-0.5, -0.5, -0.5, 1])
    data = geometry.to_dict()
    assert "files" not in data
    back = Geometry.from_dict(data)
    assert (back.affine, back.shape, back.source) == (geometry.affine, geometry.shape, geometry.source)
    with pytest.raises(InputError):
        Geometry.from_dict({**data, "affine": [[1.0]]})


@pytest.mark.parametrize("codes", ["RA", "RRS", "RAX", ""])
def test_orientations_that_are_none(codes: str) -> None:
    with pytest.raises(InputError, match="one of L and R"):
        ReadOptions(volume=True, orientation=codes)


def test_pictures_are_no_volumes(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="one picture and no volume"):
        read_image(tmp_path / "a.png", WHOLE)
