"""A request is data: it survives JSON, says what is wrong in one sentence, and refuses what cannot be."""

import json
import math
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certimed import ClassTarget, DataSpec, InputError, MaskTarget, RunSpec
from certimed.data import ReadOptions
from certimed.engine import Acceleration
from certimed.runs import Tuning

SIZES = st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999))
WORDS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)
DATA = st.builds(
    DataSpec, path=WORDS, classes=st.none() | st.tuples(WORDS, WORDS), limit=st.none() | st.integers(1, 99),
    split=st.none() | WORDS,
    reading=st.builds(ReadOptions, window=st.none() | st.just((40.0, 400.0)), slice=st.none() | st.integers(0, 9)),
)  # fmt: skip
SPECS = st.one_of(
    st.builds(
        RunSpec, model=WORDS, data=DATA, target=st.just(ClassTarget()),
        sigma=st.floats(0.01, 2), budget=st.sampled_from([None, 400, "grid", "fixed:77"]),
        alpha=st.sampled_from([1e-3, 0.05]), seed=st.integers(0, 2**60), templates=st.just(()) | st.just(("a {}",)),
        tuning=st.builds(Tuning, copies=st.integers(1, 9)), size=SIZES,
        speed=st.builds(Acceleration, engine=st.sampled_from(("torch", "compile"))),
    ),
    st.builds(
        RunSpec, model=WORDS, data=DATA, target=st.builds(MaskTarget, taus=st.sampled_from([(0.75,), (0.6, 0.9)])),
        budget=st.sampled_from([None, 400, "pixels:100,200/0.01"]), size=SIZES,
        batch_size=st.sampled_from([None, 8, "auto"]),
    ),
)  # fmt: skip


@given(SPECS)
def test_a_request_survives_json(spec):
    data = json.loads(json.dumps(spec.to_dict()))
    assert RunSpec.from_dict(data) == spec
    assert RunSpec.from_dict(data).to_dict() == spec.to_dict()


def test_what_is_left_out_has_its_default():
    assert RunSpec.from_dict({"model": "m", "data": {"path": "x"}}) == RunSpec("m", DataSpec("x"))
    masks = RunSpec.from_dict({"task": "mask", "model": "m", "data": {"path": "x"}})
    assert masks == RunSpec("m", DataSpec("x"), MaskTarget())
    assert (masks.budget, masks.n0, RunSpec("m", DataSpec("x")).n0) == ("fixed:100", 10, 100)


def test_one_request_has_one_spelling():
    assert RunSpec("m", DataSpec("x"), budget=400) == RunSpec("m", DataSpec("x"), budget="fixed:400")
    whole = RunSpec.from_dict({"model": "m", "data": {"path": "x"}, "sigma": 1, "tuning": {"lr": 1}})
    assert json.dumps(whole.to_dict()) == json.dumps(
        RunSpec("m", DataSpec("x"), sigma=1.0, tuning=Tuning(lr=1.0)).to_dict()
    )


def named_fields(kind=RunSpec, prefix=""):
    for one in fields(kind):
        inner = {
            "data": DataSpec,
            "tuning": Tuning,
            "speed": Acceleration,
            "reading": ReadOptions,
            "target": ClassTarget,
        }
        if one.name in inner and is_dataclass(inner[one.name]):
            yield from named_fields(inner[one.name], f"{prefix}{one.name}.")
        yield f"{prefix}{one.name}"


class Odd:
    """No type of JSON."""


@pytest.mark.parametrize("field", sorted(named_fields()))
@pytest.mark.parametrize(
    "value",
    [Odd(), {"": 0}, [[]], [1, "a"], True, 1.5, -1, "", 10**310, math.nan],
    ids=["odd", "object", "nested", "mixed", "true", "1.5", "-1", "empty", "huge", "nan"],
)
def test_a_value_of_another_kind_is_one_sentence_or_accepted(field, value):
    data = {"model": "m", "data": {"path": "x"}}
    place = data
    *parents, last = field.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    try:
        spec = RunSpec.from_dict(data)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        json.dumps(spec.to_dict())


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "a run must be an object with named fields, not NoneType"),
        ([], "not list"),
        ({}, "has missing fields"),
        ({"model": "m"}, "has missing fields"),
        ({"model": "m", "data": {}}, "data has missing fields"),
        ({"model": "m", "data": {"path": "x"}, "sigmas": 1}, "the run has no field 'sigmas'; it has alpha, "),
        ({"model": "m", "data": {"path": "x", "reading": {"windows": 1}}}, "reading has no field 'windows'"),
        ({"model": "m", "data": {"path": "x"}, "target": {"taus": [0.7]}}, "target has no field 'taus'; it has bound"),
        ({"task": "segment", "model": "m", "data": {"path": "x"}}, "task 'segment' is unknown"),
        ({"model": "m", "data": {"path": "x"}, "sigma": "high"}, "sigma of the run cannot be 'high': "),
        ({"model": "m", "data": {"path": "x"}, "methods": "plain"}, "methods of the run cannot be 'plain': a list"),
        ({"model": "m", "data": {"path": "x"}, "methods": []}, "no method is named"),
        ({"model": "m", "data": {"path": "x"}, "size": [3]}, "must hold two sides"),
        ({"model": "m", "data": {"path": "x"}, "size": [0, 3]}, "has an empty side"),
        ({"model": "m", "data": {"path": "x", "limit": 0}}, "limit 0 leaves no image"),
        ({"model": "m", "data": {"path": "x"}, "tuning": {"copies": 0}}, "copies=0"),
        ({"model": "m", "data": {"path": "x"}, "tuning": {"lr": math.nan}}, "lr=nan"),
        ({"model": "m", "data": {"path": "x"}, "noise": "pink"}, "noise='pink' is unknown"),
        ({"model": "m", "data": {"path": "x"}, "budget": "lots"}, "budget 'lots' is not understood"),
        ({"model": "m", "data": {"path": "x"}, "space": "outer"}, "space='outer' is unknown"),
        ({"model": "m", "data": {"path": "x"}, "batch_size": 0}, "0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(data, sentence):
    with pytest.raises(InputError) as caught:
        RunSpec.from_dict(data)
    assert sentence in str(caught.value)
