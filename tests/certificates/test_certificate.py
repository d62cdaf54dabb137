"""Certificates say what was proved, in several units, and survive JSON bit for bit."""

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certimed import ClassCertificate, InputError
from certimed.certificates import PROMPT_FROZEN, collect_provenance, radius_units

CERTIFICATE = ClassCertificate(
    item="axial/1.png",
    prediction=1,
    abstained=False,
    radius=0.1 + 0.2,
    p_lower=1 / 3 + 0.5,
    q_upper=None,
    counts=(10, 90),
    n0=100,
    n=100,
    budget="fixed:100",
    looks=1,
    proved_at=(10, 90),
    stopped="cap reached: 100 samples",
    alpha=1e-3,
    sigma=0.5,
    bound="one-sided",
    seed=0,
    shape=(3, 224, 224),
    provenance=collect_provenance("cpu", model="ab" * 32, intensity="8 bit, divided by 255"),
)


def test_certificate_is_frozen():
    with pytest.raises(FrozenInstanceError):
        CERTIFICATE.radius = 9.0


@given(
    radius=st.floats(0, 1e3, allow_nan=False),
    p_lower=st.floats(0, 1),
    item=st.text(min_size=1),
    notes=st.lists(st.text(), max_size=3),
)
def test_json_round_trip_is_lossless(radius, p_lower, item, notes):
    original = replace(CERTIFICATE, radius=radius, p_lower=p_lower, item=item, notes=tuple(notes))
    text = original.to_json()
    assert ClassCertificate.from_json(text) == original
    assert "\n" not in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prediction", 5),
        ("prediction", True),
        ("counts", [10, 91]),
        ("counts", [10.0, 90.0]),
        ("radius", "0.3"),
        ("radius", None),
        ("abstained", 0),
        ("schema", "certimed/class-certificate/99"),
        ("scope", "everything"),
        ("space", "moon"),
        ("provenance", {}),
        ("notes", "none"),
    ],
)
def test_wrong_fields_are_named(field, value):
    data = json.loads(CERTIFICATE.to_json()) | {field: value}
    with pytest.raises(InputError):
        ClassCertificate.from_json(json.dumps(data))


@pytest.mark.parametrize("field", [name for name in CERTIFICATE.to_dict() if name != "schema"])
def test_missing_fields_are_named(field):
    data = json.loads(CERTIFICATE.to_json())
    del data[field]
    with pytest.raises(InputError, match=field):
        ClassCertificate.from_json(json.dumps(data))


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1" + "0" * 5000, "1e999", "-1e999", "NaN"])
def test_numbers_beyond_all_bounds_are_refused(value):
    text = CERTIFICATE.to_json().replace('"sigma": 0.5', f'"sigma": {value}')
    with pytest.raises(InputError):
        ClassCertificate.from_json(text)


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", "null", "[" * 100_000])
def test_text_that_is_no_certificate_is_refused(text):
    with pytest.raises(InputError):
        ClassCertificate.from_json(text)


def test_units():
    units = CERTIFICATE.units()
    values = 3 * 224 * 224
    assert units == radius_units(CERTIFICATE.radius, (3, 224, 224))
    assert units.l2_grey_levels == pytest.approx(0.3 * 255)
    assert units.rms_grey_levels == pytest.approx(0.3 * 255 / math.sqrt(values))
    assert units.linf * math.sqrt(values) == pytest.approx(0.3)
    assert units.values == values


def test_statement_names_scope_space_and_confidence():
    text = replace(CERTIFICATE, scope=PROMPT_FROZEN).statement()
    assert "0.999" in text
    assert "nothing is proved about that pipeline" in text
    assert "before mean and std" in text
    assert "Nothing was proved" in replace(CERTIFICATE, abstained=True, radius=0.0).statement()


def test_representations_are_readable_and_harmless():
    assert "radius 0.3000" in repr(CERTIFICATE)
    assert "abstained" in repr(replace(CERTIFICATE, abstained=True, radius=0.0))
    page = replace(CERTIFICATE, item="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
