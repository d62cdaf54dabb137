"""A radius at native resolution: rounded down, kept in JSON and refused where it contradicts itself."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from toys import SHAPE, class_certificate, mask_certificate

from certimed import ClassCertificate, InputError, MaskCertificate
from certimed.certificates import NATIVE, NativeRadius, certificate_from_dict, load_certificate
from certimed.operators import Geometry, norm_bound, unchanged
from certimed.vlm import Preprocess

GEOMETRY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3).geometry((3, 61, 47))
GREY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear").geometry((1, 15, 15))


def certificate(winner: int = 960, geometry: Geometry | None = GEOMETRY) -> ClassCertificate:
    return class_certificate((1000 - winner, winner)).with_geometry(geometry)


def again(made: ClassCertificate) -> ClassCertificate:
    return certificate_from_dict(json.loads(made.to_json()))  # type: ignore[return-value]


def at(made: ClassCertificate, space: str) -> ClassCertificate:
    return replace(made, about=replace(made.about, space=space))


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


def test_json_keeps_every_bit() -> None:
    found = certificate()
    assert again(found) == found
    plain = certificate(geometry=None)
    assert plain.native is None and plain.native_radius is None and plain.to_dict()["native"] is None
    assert again(plain) == plain
    assert at(plain, NATIVE).native_radius == plain.radius


def test_an_abstention_is_worth_nothing_at_native_resolution_either() -> None:
    found = certificate(winner=500)
    assert found.abstained and found.native_radius == 0.0
    assert again(found) == found


def test_people_are_told() -> None:
    found = certificate()
    assert found.native is not None
    text = found.statement()
    (radius,) = re.findall(r"At native resolution \(3x61x47\) .* below ([0-9.]+[0-9]), as", text)
    (norm,) = re.findall(r"multiplies no norm by more than ([0-9.]+[0-9])", text)
    assert found.native.radius * (1 - 1e-5) < float(radius) <= found.native.radius
    assert found.native.norm <= float(norm) < found.native.norm * (1 + 1e-5)
    assert "native 3x61x47" in repr(found)
    assert "native per-value RMS" in found._repr_html_()


def test_a_geometry_of_another_input_is_refused() -> None:
    with pytest.raises(InputError, match="native geometry"):
        certificate(geometry=Preprocess((20, 24), (0.5,) * 3, (0.5,) * 3).geometry((3, 61, 47)))
    with pytest.raises(InputError, match="native radius already"):
        at(certificate(geometry=None), NATIVE).with_geometry(GEOMETRY)


@pytest.mark.parametrize("change", [{"radius": 9.0}, {"norm": 0.0}, {"norm": "1"}, {"geometry": {}}])
def test_reading_refuses_what_contradicts_itself(change: dict[str, Any]) -> None:
    data = certificate().to_dict()
    data["native"] = data["native"] | change
    with pytest.raises(InputError):
        certificate_from_dict(data)


def test_norm_one_carries_the_radius_over_unchanged() -> None:
    found = NativeRadius.of(0.3, Geometry("same", 3, (unchanged(24), unchanged(24))))
    assert (found.radius, found.norm) == (0.3, 1.0)


def test_masks_carry_it_too(tmp_path) -> None:
    plain = mask_certificate((24, 24), shape=SHAPE)
    found: MaskCertificate = plain.with_geometry(GEOMETRY)
    assert found.native is not None and found.native_radius == found.native.radius
    assert found.native.radius == pytest.approx(found.radius / norm_bound(GEOMETRY), rel=1e-12)
    found.save(tmp_path / "a")
    read = load_certificate(tmp_path / "a")
    assert read == found and read.native == found.native
    assert plain.native_radius is None and plain != found
    assert "at native 3x61x47" in repr(found) and "3x61x47" in found.statement()
    assert "native per-value RMS" in found._repr_html_()
