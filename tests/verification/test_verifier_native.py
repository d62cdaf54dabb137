"""Forged native radii are found by other arithmetic than that which made them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_operators_norm import set_ups
from verification.honest import class_certificate, mask_certificates

from certimed.certificates import NATIVE, ClassCertificate, MaskCertificate
from certimed.operators import REPEAT, Axis, Geometry, norm_bound, unchanged
from certimed.verification import verify
from certimed.verification.native import _norm
from certimed.vlm import Preprocess

GEOMETRY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3).geometry((3, 61, 47))
GREY = Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear").geometry((1, 15, 15))


def certificate(share: float = 0.96, geometry: Geometry | None = GEOMETRY, noise: str = "grid") -> ClassCertificate:
    return class_certificate("1000", [1 - share, share], noise=noise, shape=(3, 24, 24)).with_geometry(geometry)


def carried() -> MaskCertificate:
    (made,) = mask_certificates("100", np.full((24, 24), 0.97), channels=3)
    return made.with_geometry(GEOMETRY)


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
@pytest.mark.parametrize("share", [0.96, 0.5])
@pytest.mark.parametrize("noise", ["grid", "float32"])
def test_an_honest_certificate_passes(tmp_path: Path, geometry: Geometry | None, share: float, noise: str) -> None:
    assert _verdict(tmp_path, certificate(share, geometry, noise).to_dict()) == ()


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


@pytest.mark.parametrize("name", ["a larger native radius", "a smaller norm", "a larger native image", "no norm"])
def test_forged_masks_are_found(tmp_path: Path, name: str) -> None:
    forge, words = FORGERIES[name]
    text, _ = carried().save(tmp_path / "a")
    data = json.loads(text.read_text())
    forge(data["native"])
    text.write_text(json.dumps(data))
    faults = verify(text).faults
    assert faults and any(words in fault for _, fault in faults), faults
