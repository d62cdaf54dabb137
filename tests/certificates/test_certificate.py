"""Certificates say what was proved, in several units, and survive JSON bit for bit."""

from __future__ import annotations

import json
import math
import re
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import class_certificate, mask_certificate

from certimed import InputError
from certimed.budgets import Stop
from certimed.certificates import (
    CHOSEN_AT_X,
    END_TO_END,
    FROZEN_AT_X,
    NATIVE,
    ClassCertificate,
    Samples,
    Share,
    certificate_from_dict,
    load_certificate,
    radius_units,
)
from certimed.statistics import clopper_pearson_lower, radius_from_lower

CERTIFICATE = class_certificate((10, 90), item="axial/1.png", shape=(3, 224, 224))


def again(certificate: ClassCertificate) -> ClassCertificate:
    return certificate_from_dict(json.loads(certificate.to_json()))  # type: ignore[return-value]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The certificate's JSON with one field, by its dotted path, set; or taken away with the value ``...``."""
    data = json.loads(CERTIFICATE.to_json())
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


def test_certificate_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        CERTIFICATE.claim = None  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        CERTIFICATE.claim.radius = 9.0  # type: ignore[misc]


def test_recorded_numbers_are_the_published_procedures() -> None:
    """The witness that another shape of certificate changed no number: 90 of 100 at alpha 0.001 and sigma 0.5."""
    assert CERTIFICATE.p_lower == float(clopper_pearson_lower(90, 100, 1e-3)) == 0.7753298801669997
    assert CERTIFICATE.radius == float(radius_from_lower(0.7753298801669997, 0.5)) == 0.37825770255466246
    assert (CERTIFICATE.n0, CERTIFICATE.n, CERTIFICATE.budget) == (100, 100, "fixed:100")
    assert CERTIFICATE.samples.looks == ((100, 90, 10),) and CERTIFICATE.stop == Stop("cap reached")


@given(
    radius=st.floats(0, 1e3, allow_nan=False),
    p_lower=st.floats(0, 1),
    q_upper=st.none() | st.floats(0, 1),
    item=st.text(min_size=1),
    seed=st.integers(-(10**20), 10**20),
    total=st.floats(1e-12, 0.5),
)
def test_json_round_trip_is_lossless(radius, p_lower, q_upper, item, seed, total) -> None:
    claim = replace(CERTIFICATE.claim, radius=radius, abstained=radius == 0, p_lower=p_lower, q_upper=q_upper)
    about = replace(CERTIFICATE.about, item=item, seed=seed, views=(0.3, 0.7))
    samples = Samples(100, 100, "grid@100", ((64, 60, 4), (100, 90, 10)), 0, Stop("answered", above=0.1, below=radius))
    original = replace(CERTIFICATE, claim=claim, about=about, samples=samples, share=Share(total / 3, total, 3, "taus"))
    assert again(original) == original
    assert "\n" not in original.to_json()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "certimed/certificate/99"),
        ("kind", "sculpture"),
        ("kind", 3),
        ("claim", []),
        ("claim.prediction", 5),
        ("claim.prediction", True),
        ("claim.counts", [10, 91]),
        ("claim.counts", [10.0, 90.0]),
        ("claim.counts", [-10, 110]),
        ("claim.counts", []),
        ("claim.selection", [10, 91]),
        ("claim.selection", [90, 10]),
        ("claim.selection", [-10, 110]),
        ("claim.selection", [100]),
        ("claim.radius", "0.3"),
        ("claim.radius", None),
        ("claim.radius", -0.1),
        ("claim.abstained", 0),
        ("claim.abstained", True),
        ("claim.p_lower", 1.5),
        ("claim.q_upper", -0.5),
        ("claim.bound", "cohen"),
        ("samples", None),
        ("samples.n", 99),
        ("samples.n0", -1),
        ("samples.budget", "100"),
        ("samples.budget", "nonsense"),
        ("samples.looks", []),
        ("samples.looks", [[100, 90, "10"]]),
        ("samples.looks", [[101, 90, 10]]),
        ("samples.looks", [[]]),
        ("samples.proved_at", 1),
        ("samples.proved_at", -1),
        ("samples.stop", {"kind": "done"}),
        ("samples.stop", {"reason": "done"}),
        ("samples.stop.above", "far"),
        ("alpha", 0.001),
        ("alpha.level", 0.01),
        ("alpha.total", 1.0),
        ("alpha.of", 0),
        ("alpha.of", 2),
        ("alpha.why", "because"),
        ("scope", "everything"),
        ("space", "moon"),
        ("chosen_from", "plain"),
        ("chosen_from", [1]),
        ("chosen_from", ["plain"]),
        ("views", [0.3]),
        ("views", ["a", "b"]),
        ("shape", "3x224x224"),
        ("seed", 0.5),
        ("provenance", {}),
        ("provenance.versions", "1.0"),
        ("provenance.decoders", {"pillow": 11}),
        ("provenance.device", 0),
        ("provenance.pixels", 7),
        ("provenance.unknown", "x"),
        ("native", {}),
    ],
)
def test_wrong_fields_are_named(path: str, value: Any) -> None:
    with pytest.raises(InputError):
        certificate_from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"), [("law", {}), ("law.sigma", "wide"), ("law.sigma", -1.0), ("law.name", "cauchy")]
)
def test_wrong_laws_are_refused(path: str, value: Any) -> None:
    pytest.importorskip("certimed.noise.laws")
    test_wrong_fields_are_named(path, value)


def leaves(data: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for name, value in data.items():
        found.append(before + name)
        if isinstance(value, dict) and name not in ("law", "decoders", "versions", "stop"):
            found += leaves(value, f"{before}{name}.")
    return found


@pytest.mark.parametrize("path", leaves(json.loads(CERTIFICATE.to_json())))
def test_missing_fields_are_named(path: str) -> None:
    with pytest.raises(InputError, match=path.rsplit(".", maxsplit=1)[-1]):
        certificate_from_dict(changed(path, ...))


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1" + "0" * 5000, "1e999", "-1e999", "NaN"])
def test_numbers_beyond_all_bounds_are_refused(tmp_path, value: str) -> None:
    (tmp_path / "c.json").write_text(
        CERTIFICATE.to_json()
        .replace('"seed": 0', f'"seed": {value}')
        .replace(f'"radius": {CERTIFICATE.radius!r}', f'"radius": {value}')
    )
    with pytest.raises(InputError):
        load_certificate(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", "null", "[" * 100_000])
def test_text_that_is_no_certificate_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError):
        load_certificate(tmp_path / "c")


def test_a_class_certificate_is_one_file(tmp_path) -> None:
    (tmp_path / "a.b.npz").write_bytes(b"of something else")
    assert CERTIFICATE.save(tmp_path / "a.b") == (tmp_path / "a.b.json",)
    assert load_certificate(tmp_path / "a.b") == load_certificate(tmp_path / "a.b.json") == CERTIFICATE


def test_units() -> None:
    units = CERTIFICATE.units()
    values, radius = 3 * 224 * 224, CERTIFICATE.radius
    assert units == radius_units(radius, (3, 224, 224))
    assert units.l2_grey_levels == pytest.approx(radius * 255)
    assert units.rms_grey_levels == pytest.approx(radius * 255 / math.sqrt(values))
    assert units.linf * math.sqrt(values) == pytest.approx(radius)
    assert units.values == values


def test_statement_names_scope_space_and_failure_and_rounds_outwards() -> None:
    text = CERTIFICATE.statement()
    assert "fails with probability at most 0.001" in text and "at least" not in text and "0.999" not in text
    assert "L2 norm below 0.378257." in text
    assert "before mean and std" in text and "the whole pipeline" in text
    assert "budget" not in text
    frozen = replace(CERTIFICATE, about=replace(CERTIFICATE.about, scope=FROZEN_AT_X)).statement()
    assert "tuned on this very image" in frozen and "nothing is proved about that pipeline" in frozen
    assert "native resolution" in replace(CERTIFICATE, about=replace(CERTIFICATE.about, space=NATIVE)).statement()


@pytest.mark.parametrize("alpha", [1e-12, 3.3333e-4, 0.1])
def test_a_failure_probability_is_never_shown_as_smaller_than_it_is(alpha: float) -> None:
    text = class_certificate((10, 990), alpha=alpha).statement()
    (shown,) = re.findall(r"fails with probability at most ([0-9.e-]+[0-9])", text)
    assert alpha <= float(shown) <= alpha * 1.01


def test_an_abstention_claims_nothing() -> None:
    nothing = class_certificate((50, 50))
    assert nothing.abstained and nothing.radius == 0.0
    text = nothing.statement()
    assert text.startswith("Nothing was proved for a.png") and "won 50 of 100 noisy copies" in text
    assert "fails with probability" not in text


def test_who_shares_alpha_and_what_was_chosen_are_fields_and_words() -> None:
    share, about = Share(0.001, 0.003, 3, "methods"), replace(CERTIFICATE.about, scope=CHOSEN_AT_X)
    one = replace(CERTIFICATE, share=share)
    assert one.alpha == 0.001
    assert "3 methods were compared, each at 0.001 (Bonferroni); together they fail with 0.003" in one.statement()
    best = replace(one, about=replace(about, chosen_from=("plain", "few-shot", "pool")))
    assert best.alpha == 0.003 and "fails with probability at most 0.003" in best.statement()
    assert "chosen by looking at this very image" in best.statement()
    assert "largest radius of plain, few-shot, pool" in best.statement()
    assert again(best) == best
    with pytest.raises(InputError, match="cannot be end-to-end"):
        replace(one, about=replace(about, scope=END_TO_END, chosen_from=("plain", "pool")))
    both = replace(CERTIFICATE, share=Share(0.0005, 0.001, 2, "taus"))
    assert "One of 2 certificates from the same samples: together they fail with 0.001" in both.statement()


def test_two_views_are_told() -> None:
    split = replace(CERTIFICATE, about=replace(CERTIFICATE.about, views=(0.7, 0.8)))
    assert "1/s^2 = 1/s1^2 + 1/s2^2" in split.statement() and "sigma 0.7" in split.statement()


def test_representations_are_readable_and_harmless() -> None:
    assert "radius 0.3782" in repr(CERTIFICATE) and "p>=0.7753" in repr(CERTIFICATE)
    assert "abstained" in repr(class_certificate((50, 50)))
    page = class_certificate(item="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_kinds_do_not_read_each_others_files(tmp_path) -> None:
    data = json.loads(CERTIFICATE.to_json()) | {"kind": "mask"}
    with pytest.raises(InputError):
        certificate_from_dict(data, tmp_path / "none.npz")
    mask = json.loads(mask_certificate().to_json())
    with pytest.raises(InputError, match="npz"):
        certificate_from_dict(mask)
    with pytest.raises(InputError):
        certificate_from_dict(mask | {"kind": "classes"})


def test_equality_is_of_all_fields() -> None:
    assert class_certificate() == class_certificate() != class_certificate(item="b.png")
    assert mask_certificate() == mask_certificate() != mask_certificate(sigma=0.3)
    assert np.array_equal(mask_certificate().mask, mask_certificate().mask)
