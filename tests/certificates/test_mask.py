"""Mask certificates: what they say, and that files give back exactly what was written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from certimed.certificates import MaskCertificate
from certimed.errors import InputError
from certimed.segmentation import SmoothedSegmenter, certificate_from_agreement


def certificate(space=(6, 8), **changes) -> MaskCertificate:
    generator = np.random.default_rng(0)
    settings = {"n": 100, "num_classes": 3, "correction": "holm", "alpha": 1e-3, "sigma": 0.25, "tau": 0.75} | changes
    return certificate_from_agreement(
        generator.integers(0, settings["num_classes"], size=space),
        generator.integers(settings["n"] * 7 // 10, settings["n"] + 1, size=space),
        item="patient 1/slice é",
        n0=10,
        seed=3,
        shape=(1, *space),
        intensity="window 40/400",
        notes=("A note.",),
        **settings,
    )


@pytest.mark.parametrize("changes", [{}, {"space": (4, 5, 6)}, {"num_classes": 400}, {"n": 70_000}])
def test_round_trip_is_lossless(tmp_path, changes):
    written = certificate(**changes)
    written.save(tmp_path / "a.b")
    read = MaskCertificate.load(tmp_path / "a.b")
    assert read == written
    for field in dataclasses.fields(MaskCertificate):
        before, after = getattr(written, field.name), getattr(read, field.name)
        assert np.array_equal(before, after) and type(before) is type(after), field.name
    assert read.mask.dtype == written.mask.dtype and np.array_equal(read.certified, written.certified)
    assert np.array_equal(read.radius_map(), written.radius_map())
    assert "\n" not in written.to_json()


def test_files_are_compact_deterministic_and_without_pickles(tmp_path):
    big = certificate(space=(256, 256))
    assert (big.mask.dtype, big.agreement.dtype) == (np.uint8, np.uint8)
    first, second = tmp_path / "1", tmp_path / "2"
    paths = [big.save(stem)[1] for stem in (first, second)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 256 * 256 * 2
    assert set(np.load(paths[0], allow_pickle=False).files) == {"mask", "agreement", "certified"}


def test_tampered_or_foreign_arrays_are_refused(tmp_path):
    written = certificate()
    text, arrays = written.save(tmp_path / "c")
    stored = dict(np.load(arrays))
    stored["agreement"] = np.full_like(stored["agreement"], 100)
    np.savez(tmp_path / "other.npz", **stored)
    with pytest.raises(InputError, match="does not hold the arrays"):
        MaskCertificate.from_json(text.read_text(), tmp_path / "other.npz")
    stored = dict(np.load(arrays)) | {"certified": ~written.certified}
    np.savez(tmp_path / "other.npz", **stored)
    with pytest.raises(InputError, match="contradicts"):
        MaskCertificate.from_json(text.read_text(), tmp_path / "other.npz")
    np.savez(tmp_path / "other.npz", mask=np.array([{}], dtype=object), agreement=[1], certified=[True])
    with pytest.raises(InputError, match="cannot be read"):
        MaskCertificate.from_json(text.read_text(), tmp_path / "other.npz")
    with pytest.raises(InputError, match="no mask certificate"):
        MaskCertificate.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "x"),
        ("n", 50),
        ("threshold", 0),
        ("num_classes", 1),
        ("scope", "x"),
        ("correction", "fdr"),
        ("alpha", None),
    ],
)
def test_contradicting_json_is_refused(tmp_path, field, value):
    written = certificate()
    _, arrays = written.save(tmp_path / "c")
    data = written.to_dict() | {field: value}
    with pytest.raises(InputError):
        MaskCertificate.from_json(json.dumps(data), arrays)


def test_arrays_and_fields_are_frozen():
    made = certificate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.alpha = 0.5
    for array in (made.mask, made.agreement, made.certified, made.radius_map()):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    assert made.radius_map() is made.radius_map()


def test_numbers_add_up_and_words_state_them():
    made = certificate()
    causes = made.abstention()
    assert sum(causes.values()) + int(made.certified.sum()) == made.pixels == made.histogram().sum()
    assert made.units().l2_grey_levels == pytest.approx(made.radius * 255)
    assert f"{int(made.certified.sum())} certified pixels" in made.statement() and "A note." in made.statement()
    assert made.item in repr(made) and "holm" in repr(made)
    assert made._repr_html_().count("data:image/png") == 3
    nothing = certificate(tau=0.95, n=100)
    assert nothing.threshold is None and nothing.share_certified == 0 and "Nothing was proved" in nothing.statement()


def test_png_layers(tmp_path):
    made = certificate()
    made.save_png(tmp_path / "m.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "m.png")), made.mask)
    made.save_png(tmp_path / "c.png", "certified")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "c.png")) == 255, made.certified)
    step = made.save_png(tmp_path / "r.png", "radius")
    picture = Image.open(tmp_path / "r.png")
    assert repr(step) in picture.text["certimed:unit"]
    shown = np.asarray(picture).astype(float) * step
    assert (shown <= made.radius_map()).all() and (made.radius_map() - shown < step * 1.0001).all()
    many = certificate(num_classes=400)
    many.save_png(tmp_path / "many.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "many.png")), many.mask)
    with pytest.raises(InputError, match="NIfTI"):
        certificate(space=(3, 4, 5)).save_png(tmp_path / "v.png")
    with pytest.raises(InputError, match="layer"):
        made.save_png(tmp_path / "x.png", "agreement")


def test_nifti_layers(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    made, affine = certificate(space=(3, 4, 5)), np.diag([2.0, 2.0, 3.0, 1.0])
    made.save_nifti(tmp_path / "m.nii.gz", affine=affine)
    stored = nibabel.load(tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), made.mask) and np.array_equal(stored.affine, affine)
    made.save_nifti(tmp_path / "r.nii", "radius")
    radii = np.asarray(nibabel.load(tmp_path / "r.nii").dataobj)
    assert (radii <= made.radius_map()).all() and np.allclose(radii, made.radius_map(), rtol=1e-6)
    certificate().save_nifti(tmp_path / "flat.nii", "certified")
    assert nibabel.load(tmp_path / "flat.nii").shape == (6, 8, 1)
    with pytest.raises(InputError, match="affine"):
        made.save_nifti(tmp_path / "x.nii", affine=np.eye(3))


def test_statistics_of_a_large_image_take_five_milliseconds():
    generator = np.random.default_rng(0)
    mask = generator.integers(0, 2, size=(512, 512)).astype(np.uint8)
    agreement = generator.integers(500, 1001, size=(512, 512)).astype(np.int16)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        made = certificate_from_agreement(
            mask, agreement, item="x", num_classes=2, n0=10, n=1_000, tau=0.75, alpha=1e-3,
            correction="holm", sigma=0.25, seed=0, shape=(1, 512, 512),
        )  # fmt: skip
        assert made.certified.any()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.005


MEMORY = """
import resource, sys, torch
from certimed.segmentation import SmoothedSegmenter
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = torch.rand(1, 512, 512)
SmoothedSegmenter(lambda x: torch.cat([x, 1 - x], 1), 2, 0.25).certify(image, budget=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def peak_mib(n: int | str) -> float:
    result = subprocess.run([sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True)
    return float(result.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is not there")
def test_peak_memory_of_a_large_image():
    assert peak_mib(1_000) < 150


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_n():
    assert abs(peak_mib(10_000) - peak_mib(1_000)) < 10


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_looks():
    assert abs(peak_mib("pixels:200,400,1000,2000") - peak_mib(1_000)) < 10


def test_a_volume_is_certified_like_an_image():
    volume = torch.rand(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    made = SmoothedSegmenter(lambda x: x, 2, 0.1).certify(volume, seed=1)
    assert made.mask.shape == (6, 7, 8) and made.shape == (2, 6, 7, 8)
    assert (made.mask[made.certified] == (volume[1] > volume[0]).numpy()[made.certified]).all()
    assert made.item.startswith("sha256:")
