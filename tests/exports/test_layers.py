"""Layers of masks in files for other programs: read back as they are, radii never larger than what was proved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image
from toys import mask_certificate

from certimed.errors import InputError
from certimed.exports.nifti import write_nifti
from certimed.exports.png import write_png


def test_png_layers(tmp_path) -> None:
    made = mask_certificate()
    assert write_png(tmp_path / "m.png", made) == 1.0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "m.png")), made.mask)
    write_png(tmp_path / "c.png", made, "certified")
    certified = np.asarray(Image.open(tmp_path / "c.png"))
    assert np.array_equal(certified == 255, made.certified) and np.array_equal(certified == 0, ~made.certified)
    step = write_png(tmp_path / "r.png", made, "radius")
    picture = Image.open(tmp_path / "r.png")
    assert repr(step) in picture.text["certimed:unit"]
    shown = np.asarray(picture).astype(float) * step
    assert (shown <= made.radius_map()).all() and (made.radius_map() - shown < step * 1.0001).all()
    assert shown.max() > 0


def test_many_classes_and_no_radius_at_all(tmp_path) -> None:
    many = mask_certificate(num_classes=400)
    write_png(tmp_path / "many.png", many)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "many.png")), many.mask)
    nothing = mask_certificate(alpha=1e-12, tau=0.5, n=60)
    assert not nothing.radius_map().min()
    write_png(tmp_path / "r.png", nothing, "radius")
    assert not np.asarray(Image.open(tmp_path / "r.png"))[nothing.radius_map() == 0].any()


def test_what_png_cannot_hold_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="NIfTI"):
        write_png(tmp_path / "v.png", mask_certificate(space=(3, 4, 5)))
    for write in (write_png, write_nifti):
        with pytest.raises(InputError, match="layer"):
            write(tmp_path / "x", mask_certificate(), "agreement")
    assert list(tmp_path.iterdir()) == []


def test_nifti_layers(tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    made, affine = mask_certificate(space=(3, 4, 5)), np.diag([2.0, 2.0, 3.0, 1.0])
    write_nifti(tmp_path / "m.nii.gz", made, affine=affine)
    stored = nibabel.load(tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), made.mask) and np.array_equal(stored.affine, affine)
    write_nifti(tmp_path / "r.nii", made, "radius")
    radii = np.asarray(nibabel.load(tmp_path / "r.nii").dataobj)
    assert radii.dtype == np.float32 and radii.max() > 0
    assert (radii <= made.radius_map()).all() and np.allclose(radii, made.radius_map(), rtol=1e-6)
    write_nifti(tmp_path / "flat.nii", mask_certificate(), "certified")
    assert nibabel.load(tmp_path / "flat.nii").shape == (6, 8, 1)
    with pytest.raises(InputError, match="affine"):
        write_nifti(tmp_path / "x.nii", made, affine=np.eye(3))
    written = nibabel.load(tmp_path / "flat.nii")
    assert written.header["sform_code"] == written.header["qform_code"] == 0


def test_abstention_is_what_is_not_certified(tmp_path) -> None:
    made = mask_certificate()
    write_png(tmp_path / "a.png", made, "abstained")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")) == 255, ~made.certified)


def test_every_orientation_and_a_shear_come_back(tmp_path) -> None:
    """All 48 orders and directions of the axes, upright, turned and sheared: voxels equal, matrices to float32."""
    nibabel = pytest.importorskip("nibabel")
    made, generator = mask_certificate(space=(3, 4, 5)), np.random.default_rng(2)
    shear = np.array([[1.1, 0.2, -0.1], [0.0, 0.7, 0.3], [0.05, 0.0, 2.3]])
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = shear @ (np.eye(3)[:, order] * signs)
            affine[:3, 3] = generator.normal(0, 50, 3)
            write_nifti(tmp_path / "m.nii", made, affine=affine)
            stored = nibabel.load(tmp_path / "m.nii")
            assert np.array_equal(np.asarray(stored.dataobj), made.mask)
            assert np.array_equal(stored.affine, affine.astype(np.float32).astype(np.float64))
            assert stored.header.get_xyzt_units()[0] == "mm"
