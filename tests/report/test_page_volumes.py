"""Volumes on the page: three planes as the patient lies, exact radii, and a page that stays small."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from report_runs import VOLUME_AFFINE, slice_spec, volume_images, volume_run
from toys import mask_certificate

import certimed
from certimed.data import Geometry
from certimed.metrics import count_pixels, overlap_scores
from certimed.metrics.segmentation import DICE_LOW
from certimed.report.html.layers import viewer_layers, weight
from certimed.report.profiles import Layers, foreground
from certimed.report.tables import bound, per_cent

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra: report)")
pytest.importorskip("nibabel", reason="nibabel is not installed (extra: medical)")
from certimed.report.html import write_report


def unpacked(text, kind, shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind).reshape(shape)


def test_the_planes_lie_as_the_patient_does_and_hold_exact_radii(tmp_path):
    run = volume_run(volume_images(tmp_path / "heads", 2), tmp_path / "run")
    report = write_report([tmp_path / "run"], tmp_path / "page.html", verify=False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert report.notes == () and report.pictures == 2
    text = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.S).group(1)
    viewer = json.loads(text)["runs"][0]
    for entry, record in zip(viewer["images"], run.records(), strict=True):
        certificate, layers = record.certificates["plain"], entry["layers"]
        # Stored: left, superior, anterior. Drawn: right, anterior, superior.
        assert layers["size"] == [12, 8, 10] and layers["shape"] == [12, 10, 8]
        assert layers["spacing"] == [1.0, 1.5, 3.0]
        assert [plane["name"] for plane in layers["planes"]] == ["Axial", "Coronal", "Sagittal"]

        def drawn(values):
            return values[::-1].transpose(0, 2, 1)

        packed = layers["maps"][viewer["series"][0]["key"]]
        ranks = unpacked(packed["ranks"], f"<u{packed['bytes']}", layers["shape"])
        assert np.array_equal(np.array([0.0, *packed["radii"]])[ranks], drawn(certificate.radius_map()))
        assert np.array_equal(unpacked(packed["mask"], "<u2", layers["shape"]), drawn(certificate.mask))
        assert set(np.unique(unpacked(layers["truth"], "<u2", layers["shape"]))) == {0, 1, 2}
        grey = unpacked(layers["base"], "u1", layers["shape"])
        assert (grey.min(), grey.max()) == (0, 255) and layers["thumb"].startswith("data:image/jpeg")
    assert "Dice, clean" in page
    # Where the images are not there any more, the planes are still the patient's.
    (tmp_path / "heads").rename(tmp_path / "gone")
    write_report([tmp_path / "run"], tmp_path / "page.html", verify=False)
    bare = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"name": "Axial"' in bare or '"name":"Axial"' in bare


def test_without_a_place_planes_are_those_of_the_file():
    certificate = mask_certificate((4, 5, 6))
    found = viewer_layers({"a": (certificate, Layers.of(certificate))}, None, None, None)
    assert [plane["name"] for plane in found["planes"]] == ["Third axis", "Second axis", "First axis"]
    assert found["spacing"] == [1.0, 1.0, 1.0] and "base" not in found
    assert np.array_equal(unpacked(found["maps"]["a"]["mask"], "<u2", (4, 5, 6)), certificate.mask)


def test_a_page_of_a_large_volume_is_small():
    """128^3 voxels, and no two neighbours alike: the worst that ranks and grey levels can be."""
    certificate = mask_certificate((128, 128, 128), n=100)
    pixels = np.random.default_rng(0).random((1, 128, 128, 128), dtype=np.float32)
    geometry = Geometry.of(VOLUME_AFFINE, (128, 128, 128), "nifti")
    found = viewer_layers({"a": (certificate, Layers.of(certificate))}, pixels, None, geometry)
    assert 1e6 < weight(found) <= 15e6


def test_slices_are_put_together_by_volume(tmp_path):
    """The table's shares and Dice are those of the volume's voxels; what holds at once fails with the sum."""
    volume_images(tmp_path / "heads", 2)
    run = certimed.run(slice_spec(tmp_path / "heads"), tmp_path / "run", allow_code=True)
    write_report([tmp_path / "run"], tmp_path / "page.html", verify=False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'<section id="volumes".*?<tbody>(.*?)</tbody>', page, re.S)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
    rows = [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in rows]
    opened = run.spec.data.open()
    scans = {item: index for index, item in enumerate(opened.ids)}
    for row, name in zip(rows, ("0.nii.gz", "1.nii.gz"), strict=True):
        own = [record for record in run.records() if record.item.startswith(name)]
        certificates = [record.certificates["plain"] for record in own]
        truth = np.stack([opened.load(scans[record.item]).mask for record in own])
        mask, sure = (np.stack([getattr(one, what) for one in certificates]) for what in ("mask", "certified"))
        scores = overlap_scores(count_pixels(mask, sure, truth, 3))
        assert row[:4] == ["plain", name, str(len(own)), "0"] and len(own) == 3
        assert row[4] == per_cent(float(sure.mean()), 1, "lower")
        assert row[5] == bound(foreground(scores[DICE_LOW]), "lower")
        assert row[6] == "0.003"
