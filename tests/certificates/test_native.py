"""A radius at native resolution: rounded down, kept in JSON, checked by other arithmetic, and hard to forge."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from test_operators_norm import set_ups

from certimed import ClassCertificate, InputError, MaskCertificate
from certimed.certificates import NATIVE, NativeRadius
from certimed.classification import certificate_from_counts
from certimed.operators import REPEAT, Axis, Geometry, norm_bound, unchanged
from certimed.segmentation import certificate_from_agreement
from certimed.verification import verify
from certimed.verification.native import _norm
from certimed.vlm import Preprocess

SHAPE = (3, 24, 24)
GEOMETRY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3).geometry((3, 61, 47))
GREY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear").geometry((1, 15, 15))


def certificate(winner: int = 960, geometry: Geometry | None = GEOMETRY) -> ClassCertificate:
    counts = np.array([1000 - winner, winner])
    found = certificate_from_counts(
        counts, counts, item="a.png", alpha=1e-3, sigma=0.5, seed=0, shape=SHAPE, model_id="ab" * 32
    )
    return found.with_geometry(geometry)


@pytest.mark.parametrize("geometry", [GEOMETRY, GREY])
def test_the_native_radius_is_the_radius_over_the_norm(geometry: Geometry) -> None:
    found = certificate(geometry=geometry)
    assert found.native is not None and found.native_radius == found.native.radius
    assert found.native.norm == norm_bound(geometry)
    assert found.native.radius * found.native.norm <= found.radius
    assert found.native.radius == pytest.approx(found.radius / found.native.norm, rel=1e-12)
    assert found.native.shape == geometry.shape
    values = math.prod(geometry.shape)
    assert found.native.units().rms_grey_levels == pytest.approx(255 * found.native.radius / values**0.5)


def test_json_keeps_every_bit_and_the_field_only_where_known() -> None:
    found = certificate()
    assert ClassCertificate.from_json(found.to_json()) == found
    plain = certificate(geometry=None)
    assert plain.native is None and plain.native_radius is None and "native" not in plain.to_dict()
    assert ClassCertificate.from_json(plain.to_json()) == plain
    assert replace(plain, space=NATIVE).native_radius == plain.radius


def test_an_abstention_is_worth_nothing_at_native_resolution_either() -> None:
    found = certificate(winner=500)
    assert found.abstained and found.native_radius == 0.0
    assert ClassCertificate.from_json(found.to_json()) == found


def test_people_are_told() -> None:
    found = certificate()
    assert found.native is not None
    assert f"{found.native.radius:.6g}" in found.statement() and "3x61x47" in found.statement()
    assert "native 3x61x47" in repr(found)
    assert "native per-value RMS" in found._repr_html_()


def test_a_geometry_of_another_input_is_refused() -> None:
    with pytest.raises(InputError, match="native geometry"):
        certificate(geometry=Preprocess((20, 24), (0.5,) * 3, (0.5,) * 3).geometry((3, 61, 47)))
    with pytest.raises(InputError, match="native radius already"):
        replace(certificate(geometry=None), space=NATIVE).with_geometry(GEOMETRY)


def test_the_published_schema_holds() -> None:
    schemas = [json.loads(p.read_text()) for p in (Path(__file__).parents[1] / "docs" / "schema").glob("*.json")]
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas])
    schema = next(s for s in schemas if s["$id"] == "urn:certimed:class-certificate:1")
    Draft202012Validator(schema, registry=registry).validate(json.loads(certificate().to_json()))


@pytest.mark.parametrize(("how", "shape"), set_ups(40, seed=1))
def test_the_verifiers_own_kernels_give_the_same_norm(how: dict[str, Any], shape: tuple[int, ...]) -> None:
    geometry = Preprocess(**how).geometry(shape)
    own = _norm(json.loads(json.dumps(geometry.to_dict())))
    assert own <= norm_bound(geometry) * (1 + 1e-12)
    assert norm_bound(geometry) <= own * (1 + 1e-5)


def test_the_verifiers_kernels_at_real_sizes() -> None:
    for native, kernel in ((1024, "bilinear"), (512, "bicubic"), (150, "bicubic"), (2321, "bilinear")):
        geometry = Geometry(REPEAT, 1, (Axis(native, (0, 0), 224, (0, 0)), unchanged(5)), kernel)
        assert _norm(geometry.to_dict()) <= norm_bound(geometry) <= _norm(geometry.to_dict()) * (1 + 1e-5)


def _verdict(tmp_path: Path, data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(data))
    return verify(path).faults


@pytest.mark.parametrize("geometry", [GEOMETRY, GREY, None])
@pytest.mark.parametrize("winner", [960, 500])
def test_an_honest_certificate_passes(tmp_path: Path, geometry: Geometry | None, winner: int) -> None:
    assert _verdict(tmp_path, certificate(winner, geometry).to_dict()) == ()


FORGERIES: dict[str, tuple[Any, str]] = {
    "a larger native radius": (lambda n: n.update(radius=n["radius"] * (1 + 1e-12)), "more than"),
    "a smaller native radius": (lambda n: n.update(radius=n["radius"] * 0.999), "is not radius"),
    "a smaller norm": (
        lambda n: n.update(norm=n["norm"] * 0.9999, radius=n["radius"] / 0.9999 * (1 - 1e-12)),
        "below the norm",
    ),
    "a larger norm": (lambda n: n.update(norm=n["norm"] * 2, radius=n["radius"] / 2), "is not the norm"),
    "no norm": (lambda n: n.pop("norm"), "'norm' is missing"),
    "a boolean norm": (lambda n: n.update(norm=True), "norm must be"),
    "a larger native image": (lambda n: n["geometry"]["axes"][0].__setitem__(0, 120), "norm"),
    "another kernel": (lambda n: n["geometry"].update(kernel="bilinear"), "norm"),
    "a mean of channels": (lambda n: n["geometry"].update(channels="mean"), "makes images of"),
    "a crop of everything": (lambda n: n["geometry"]["axes"][0].__setitem__(4, -99), "impossible"),
    "a monstrous image": (lambda n: n["geometry"]["axes"][0].__setitem__(0, 10**12), "too large to be checked"),
    "an axis of five numbers": (lambda n: n["geometry"]["axes"][0].pop(), "axes must be"),
    "one axis": (lambda n: n["geometry"]["axes"].pop(), "makes images of"),
    "an unknown field": (lambda n: n.update(approximate=True), "unknown to this version"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_found(tmp_path: Path, name: str) -> None:
    forge, words = FORGERIES[name]
    data = copy.deepcopy(certificate().to_dict())
    forge(data["native"])
    faults = _verdict(tmp_path, data)
    assert faults and any(words in fault for _, fault in faults), faults


def test_a_native_space_has_no_second_native_radius(tmp_path: Path) -> None:
    data = certificate().to_dict() | {"space": NATIVE}
    assert any("no other native radius" in fault for _, fault in _verdict(tmp_path, data))


@pytest.mark.parametrize("change", [{"radius": 9.0}, {"norm": 0.0}, {"norm": "1"}, {"geometry": {}}])
def test_reading_refuses_what_contradicts_itself(change: dict[str, Any]) -> None:
    data = certificate().to_dict()
    data["native"] = data["native"] | change
    with pytest.raises(InputError):
        ClassCertificate.from_dict(data)


def test_norm_one_carries_the_radius_over_unchanged() -> None:
    found = NativeRadius.of(0.3, Geometry("same", 3, (unchanged(24), unchanged(24))))
    assert (found.radius, found.norm) == (0.3, 1.0)


def mask_certificate(geometry: Geometry | None = GEOMETRY) -> MaskCertificate:
    generator = np.random.default_rng(0)
    found = certificate_from_agreement(
        generator.integers(0, 3, size=SHAPE[1:]),
        generator.integers(70, 101, size=SHAPE[1:]),
        item="<b>slice</b>",
        num_classes=3,
        n0=10,
        n=100,
        tau=0.75,
        alpha=1e-3,
        correction="holm",
        sigma=0.5,
        seed=0,
        shape=SHAPE,
    )
    return found.with_geometry(geometry)


def test_masks_carry_it_too(tmp_path: Path) -> None:
    found = mask_certificate()
    assert found.native is not None and found.native_radius == found.native.radius
    assert found.native.radius == pytest.approx(found.radius / norm_bound(GEOMETRY), rel=1e-12)
    found.save(tmp_path / "a")
    read = MaskCertificate.load(tmp_path / "a")
    assert read == found and read.native == found.native
    assert verify(tmp_path / "a.json").faults == ()
    plain = mask_certificate(None)
    assert plain.native_radius is None and "native" not in plain.to_dict() and plain != found
    assert "at native 3x61x47" in repr(found) and "3x61x47" in found.statement()


@pytest.mark.parametrize("name", ["a larger native radius", "a smaller norm", "a larger native image", "no norm"])
def test_forged_masks_are_found(tmp_path: Path, name: str) -> None:
    forge, words = FORGERIES[name]
    text, _ = mask_certificate().save(tmp_path / "a")
    data = json.loads(text.read_text())
    forge(data["native"])
    text.write_text(json.dumps(data))
    faults = verify(text).faults
    assert faults and any(words in fault for _, fault in faults), faults


def test_the_mask_schema_holds() -> None:
    schemas = [json.loads(p.read_text()) for p in (Path(__file__).parents[1] / "docs" / "schema").glob("*.json")]
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in schemas])
    schema = next(s for s in schemas if s["$id"] == "urn:certimed:mask-certificate:1")
    Draft202012Validator(schema, registry=registry).validate(json.loads(mask_certificate().to_json()))


def test_a_notebook_shows_pictures_and_no_foreign_markup() -> None:
    page = mask_certificate()._repr_html_()
    assert page.count("data:image/png;base64,") == 3
    assert "<b>slice</b>" not in page and "&lt;b&gt;slice&lt;/b&gt;" in page
    assert "native per-value RMS" in page
