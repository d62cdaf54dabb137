"""Intervals as the verifier sees them: no honest one is refused, every number that was changed is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
from tiny_runs import write_scans
from verification.honest import interval_certificate

from certimed.api import run
from certimed.errors import InputError
from certimed.noise import as_law
from certimed.runs import DataSpec, MeasureTarget, RunSpec
from certimed.statistics import end_index
from certimed.verification import verify
from certimed.verification.certificates import certificate_faults
from certimed.verification.comparison import compare_records
from certimed.verification.intervals import _places


def test_honest_intervals_hold():
    stops = set()
    for index in range(60):
        try:
            made = interval_certificate(index)
        except InputError as error:
            assert "use n >=" in str(error)
            continue
        stops.add(made.stop.kind)
        assert list(certificate_faults(json.loads(made.to_json()))) == [], index
    assert stops == {"answered", "futile", "cap reached"}


@pytest.mark.parametrize("n", [30, 100, 1_000])
@pytest.mark.parametrize("ratio", [0.0001, 0.1, 0.674, 1.2])
def test_places_agree_with_the_statistics(n, ratio):
    from fractions import Fraction

    law = as_law("float32", 0.25)
    own = end_index(n, law.probability(ratio * 0.25), 0.0005)
    places = _places(n, ratio * 0.25, 0.25, Fraction(0.0005), Fraction(0))
    assert own in places and len(places) <= 2


def change(path: str, to: Any):
    def edit(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place: Any = data
        for name in parents:
            place = place[int(name) if name.isdigit() else name]
        key: Any = int(last) if last.isdigit() else last
        place[key] = to(place[key]) if callable(to) else to

    return edit


def narrower(data: dict[str, Any]) -> None:
    one = data["claim"]["intervals"][0]
    at = one["values"].index(one["upper"][0])
    one["upper"][0] = next(value for value in reversed(one["values"][:at]) if value < one["upper"][0])


def wider(data: dict[str, Any]) -> None:
    data["claim"]["intervals"][0]["lower"][0] = data["claim"]["intervals"][0]["values"][0]


def fewer(data: dict[str, Any]) -> None:
    data["claim"]["intervals"][0]["values"].pop()


EDITS = {
    "an end moved inwards": narrower,
    "an end moved outwards": wider,
    "an end that is no value": change("claim.intervals.0.upper.0", lambda end: end - 1e-9),
    "a value dropped": fewer,
    "a value changed": change("claim.intervals.0.values.0", 99.0),
    "undefined values hidden": change("claim.intervals.0.undefined", lambda count: count + 1),
    "another median": change("claim.intervals.0.median", lambda median: median + 0.5),
    "a larger radius": change("claim.radii.0", lambda radius: radius * 1.5),
    "the radius of the claim": change("claim.radius", lambda radius: radius * 1.5),
    "a smaller sigma": change("law.sigma", lambda sigma: sigma * 2),
    "a smaller alpha": change("alpha", {"level": 1e-5, "total": 1e-5, "of": 1, "why": "alone"}),
    "selection samples": change("samples.n0", 10),
    "another stop": change("samples.stop", {"kind": "answered"}),
    "a stop that says more": change("samples.stop", {"kind": "cap reached", "above": 0.1}),
    "another budget": change("samples.budget", "fixed:200"),
    "a budget of classes": change("samples.budget", "grid@100"),
    "other looks": change("samples.looks", [[50], [100]]),
    "one name twice": lambda data: data["claim"]["intervals"].append(copy.deepcopy(data["claim"]["intervals"][0])),
    "an unknown field": change("claim.intervals.0", lambda one: one | {"more": 1}),
    "a text for a number": change("claim.intervals.0.undefined", "0"),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_changed_is_found(name):
    data = json.loads(interval_certificate(1, "fixed:100", sigma=0.25, noise="float32").to_json())
    data["claim"]["intervals"][0]["threshold"] = None
    data["samples"]["stop"] = {"kind": "cap reached"}
    assert list(certificate_faults(data)) == []
    EDITS[name](data)
    assert list(certificate_faults(data)), name


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    scans = write_scans(tmp_path_factory.mktemp("scans") / "all", 2)
    target = MeasureTarget(("area:1", "diameter:1"), (0.05, 0.1), ("area:1=30",), taus=(0.6, 0.75))
    spec = RunSpec("python:tiny_models:segmenter", DataSpec(str(scans)), target, budget=150)
    out = tmp_path_factory.mktemp("runs") / "run"
    return spec, out, run(spec, out, allow_code=True)


def test_a_run_of_masks_and_measurements_holds_and_draws_again(measured):
    spec, out, made = measured
    verdict = verify(out)
    assert verdict.faults == () and verdict.certificates == 2 * 3
    job = spec.load(allow_code=True)
    for record in made.records():
        recorded, now = json.loads(record.to_json()), job.redraw(record.item)
        arrays = now["arrays"]
        found = compare_records({**recorded, "sha256": ""}, {**now, "sha256": ""}, arrays, changed={})
        assert found.findings == ()
        forged = copy.deepcopy(recorded)
        (interval,) = (one for one in forged["certificates"] if one["kind"] == "interval")
        interval["claim"]["intervals"][0]["values"] = [v + 5 for v in interval["claim"]["intervals"][0]["values"]]
        for changed in ({}, {"device": ("cpu", "cuda")}):
            assert compare_records(forged, now, arrays, changed=changed).level == "different"


def test_a_run_whose_request_asks_for_something_else_is_found(measured, tmp_path):
    import shutil

    from certimed.integrity import SETTINGS_DIGEST, seal_line, seal_manifest

    for name, value in (("radii", [0.05, 0.2]), ("measurements", ["area:1", "count:1"]), ("thresholds", ["area:1=9"])):
        folder = shutil.copytree(measured[1], tmp_path / name)
        manifest = json.loads((folder / "run.json").read_text())
        manifest["request"]["target"][name] = value
        manifest.pop(SETTINGS_DIGEST)
        sealed = seal_manifest(manifest)
        (folder / "run.json").write_text(json.dumps(sealed))
        lines = []
        for line in (folder / "certificates.jsonl").read_text().splitlines():
            data = json.loads(line)
            data.pop("sha256")
            lines.append(seal_line(json.dumps(data), sealed[SETTINGS_DIGEST]))
        (folder / "certificates.jsonl").write_text("\n".join(lines) + "\n")
        assert any("not those of the run" in what or "is not the run's" in what for _, what in verify(folder).faults)
