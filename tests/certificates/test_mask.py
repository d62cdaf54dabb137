"""Mask certificates: what they say, and that files give back exactly what was written."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from toys import mask_certificate, threshold

from certimed.budgets import Agreement, Fixed
from certimed.certificates import certificate_from_dict, load_certificate
from certimed.errors import InputError
from certimed.noise import as_law
from certimed.segmentation import SmoothedSegmenter
from certimed.statistics import holm_threshold, radius_map_bonferroni
from certimed.targets import Pixels


@pytest.mark.parametrize("changes", [{}, {"space": (4, 5, 6)}, {"num_classes": 400}, {"n": 70_000}])
def test_round_trip_is_lossless(tmp_path, changes) -> None:
    written = mask_certificate(item="patient 1/slice é", **changes)
    assert written.save(tmp_path / "a.b") == (tmp_path / "a.b.json", tmp_path / "a.b.npz")
    read = load_certificate(tmp_path / "a.b")
    assert read == written == load_certificate(tmp_path / "a.b.json")
    for field in dataclasses.fields(written.claim):
        before, after = getattr(written.claim, field.name), getattr(read.claim, field.name)
        assert np.array_equal(before, after) and type(before) is type(after), field.name
    assert read.mask.dtype == written.mask.dtype and np.array_equal(read.certified, written.certified)
    assert np.array_equal(read.radius_map(), written.radius_map())
    assert "\n" not in written.to_json()


def test_files_are_compact_deterministic_and_without_pickles(tmp_path) -> None:
    big = mask_certificate(space=(256, 256))
    assert (big.mask.dtype, big.agreement.dtype) == (np.uint8, np.uint8)
    first, second = tmp_path / "1", tmp_path / "2"
    paths = [big.save(stem)[1] for stem in (first, second)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 256 * 256 * 2
    assert set(np.load(paths[0], allow_pickle=False).files) == {"mask", "agreement", "certified"}


def test_tampered_or_foreign_arrays_are_refused(tmp_path) -> None:
    written = mask_certificate()
    text, arrays = written.save(tmp_path / "c")
    data, other = json.loads(text.read_text()), tmp_path / "other.npz"
    stored = dict(np.load(arrays))
    np.savez(other, **{**stored, "agreement": np.full_like(stored["agreement"], 100)})
    with pytest.raises(InputError, match="not those this mask certificate was written for"):
        certificate_from_dict(data, other)
    np.savez(other, **{**stored, "certified": ~written.certified})
    with pytest.raises(InputError, match="contradicts"):
        certificate_from_dict(data, other)
    np.savez(other, mask=np.array([{}], dtype=object), agreement=[1], certified=[True])
    with pytest.raises(InputError, match="cannot be read"):
        certificate_from_dict(data, other)
    np.savez(other, mask=stored["mask"], agreement=stored["agreement"])
    with pytest.raises(InputError, match="lacks an array"):
        certificate_from_dict(data, other)
    with pytest.raises(InputError, match="there is no certificate"):
        load_certificate(tmp_path / "missing")
    arrays.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_certificate(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "x"),
        (("samples", "n"), 50),
        (("claim", "threshold"), 0),
        (("claim", "threshold"), 101),
        (("claim", "threshold"), 90.5),
        (("claim", "threshold"), ...),
        (("claim", "num_classes"), 1),
        (("claim", "sigma"), 0.26),
        (("claim", "tau"), 0.76),
        (("claim", "tau"), 2.0),
        (("claim", "radius"), 0.2),
        (("claim", "correction"), "fdr"),
        (("claim", "arrays_sha256"), "0" * 64),
        (("claim", "arrays_sha256"), ...),
        (("scope",), "x"),
        (("alpha",), None),
        (("shape",), [1, 8, 6]),
    ],
)
def test_contradicting_json_is_refused(tmp_path, path, value) -> None:
    _, arrays = mask_certificate().save(tmp_path / "c")
    data = json.loads((tmp_path / "c.json").read_text())
    *parents, last = path
    place = data
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(InputError):
        certificate_from_dict(data, arrays)


def test_a_mask_whose_sigma_is_not_its_noises_is_refused(tmp_path) -> None:
    """Both the radius and sigma of the claim changed together would pass for a stronger claim."""
    text, arrays = mask_certificate(sigma=0.25).save(tmp_path / "c")
    data = json.loads(text.read_text())
    data["claim"] |= {"sigma": 0.5, "radius": mask_certificate(sigma=0.5).radius}
    with pytest.raises(InputError, match="sigma"):
        certificate_from_dict(data, arrays)


def test_arrays_and_fields_are_frozen() -> None:
    made = mask_certificate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.share = None  # type: ignore[misc]
    for array in (made.mask, made.agreement, made.certified, made.radius_map()):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    assert made.radius_map() is made.radius_map()


def test_numbers_follow_from_the_counts() -> None:
    made = mask_certificate()
    assert made.threshold == holm_threshold(made.histogram(), 100, 0.75, 1e-3)
    assert np.array_equal(made.certified, made.agreement >= made.threshold)
    assert made.samples.looks == ((100, made.threshold),) and made.level == made.alpha == 1e-3
    assert np.array_equal(made.radius_map(), radius_map_bonferroni(made.agreement, 100, 1e-3, made.pixels, 0.25))


def test_numbers_add_up_and_words_state_them() -> None:
    made = mask_certificate()
    causes = made.abstention()
    assert sum(causes.values()) + int(made.certified.sum()) == made.pixels == made.histogram().sum()
    assert made.units().l2_grey_levels == pytest.approx(made.radius * 255)
    text = made.statement()
    assert f"All {int(made.certified.sum())} certified pixels" in text and "holm, all pixels at once" in text
    assert "fails with probability at most 0.001" in text and "at least" not in text
    assert made.item in repr(made) and "holm" in repr(made)
    assert "<table>" in made._repr_html_()
    nothing = SmoothedSegmenter(threshold, 2, 5.0).certify(torch.full((1, 6, 8), 0.5), seed=1)
    assert nothing.threshold is None and nothing.share_certified == 0 and "Nothing was proved" in nothing.statement()
    assert nothing.abstained and nothing.claim.radius > 0


def test_layers_have_names() -> None:
    made = mask_certificate()
    assert np.array_equal(made.layer("mask"), made.mask) and made.layer("radius") is made.radius_map()
    assert np.array_equal(made.layer("certified"), made.certified) and made.layer("certified").dtype == np.uint8
    with pytest.raises(InputError, match="layer 'agreement' is unknown"):
        made.layer("agreement")


def test_a_notebook_shows_no_foreign_markup() -> None:
    page = mask_certificate(item="<b>slice</b>")._repr_html_()
    assert "<b>slice</b>" not in page and "&lt;b&gt;slice&lt;/b&gt;" in page


def test_statistics_of_a_large_image_take_five_milliseconds() -> None:
    generator = np.random.default_rng(0)
    mask = torch.from_numpy(generator.integers(0, 2, size=(512, 512)).astype(np.uint8))
    seen = Agreement(1_000, generator.integers(500, 1001, size=(512, 512)).astype(np.int16))
    target, law, seconds = Pixels(2), as_law("float32", 0.25), []
    for _ in range(7):
        start = time.perf_counter()
        session = target.start(mask, (1, 512, 512), Fixed(1_000), 1e-3, law)
        ((claim, _, _),) = target.claims(mask, seen, session.finish(seen), 1e-3, law)
        assert claim.certified.any()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.005


def test_a_volume_is_certified_like_an_image() -> None:
    volume = torch.rand(1, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    made = SmoothedSegmenter(threshold, 2, 0.1).certify(volume, seed=1)
    assert made.mask.shape == (6, 7, 8) and made.shape == (1, 6, 7, 8)
    assert (made.mask[made.certified] == (volume[0] > 0.5).numpy()[made.certified]).all()
    assert made.item.startswith("sha256:")
