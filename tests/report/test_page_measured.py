"""Runs of measurements on the page, in tables, in notebooks and in exports."""

from __future__ import annotations

import csv
import json
import re
from itertools import pairwise

import pytest
import tiny_models  # noqa: F401 - imported before any run so that python:tiny_models is there
from tiny_runs import write_scans

from certimed.api import run
from certimed.exports.summary import summary
from certimed.report.html.page import write_report
from certimed.report.kind_tables import table
from certimed.report.series import by_kind, series
from certimed.runs import DataSpec, MeasureTarget, RunSpec


@pytest.fixture(scope="module", params=[(), (0.75,)], ids=["alone", "with masks"])
def measured(request, tmp_path_factory):
    scans = write_scans(tmp_path_factory.mktemp("scans") / "all", 3)
    target = MeasureTarget(("area:1", "count:1"), (0.05, 0.1), ("area:1=30",), spacing=(2.0, 3.0), taus=request.param)
    spec = RunSpec("python:tiny_models:segmenter", DataSpec(str(scans)), target, budget=100)
    return run(spec, tmp_path_factory.mktemp("runs") / "run", allow_code=True)


def test_the_page_holds_every_interval_and_its_data(measured, tmp_path):
    found = write_report([measured.folder.path], tmp_path / "page.html", verify=True)
    page = (tmp_path / "page.html").read_text()
    assert found.images == 3 and 'id="measured"' in page
    assert ('id="masks"' in page) == bool(measured.spec.target.taus)
    data = json.loads(re.search(r'id="forest-data">(.*?)</script>', page)[1])
    records = list(measured.records())
    assert len(data["plots"]) == 2
    for plot in data["plots"]:
        assert len(plot["rows"]) == 3 and plot["radii"][-1] == 0.1
        for row in plot["rows"]:  # wider and wider, outwards
            assert all(a[0] >= b[0] and a[1] <= b[1] for a, b in pairwise(row))
    own = records[0].certificates["plain, measured"].intervals["area:1"]
    assert f"{own.lower[0]:g} to {own.upper[0]:g} cm2" in page
    assert "the median under noise that must be reported" in page


def test_tables_summaries_and_exports_agree(measured, tmp_path):
    certificates = [record.certificates["plain, measured"] for record in measured.records()]
    (shown,) = (table(own) for own in by_kind(series([measured.folder.path])) if own[0].measured)
    assert [row.cells[1] for row in shown.rows] == ["area:1", "area:1", "count:1", "count:1"]
    widths = [c.intervals["area:1"].upper[1] - c.intervals["area:1"].lower[1] for c in certificates]
    first = summary(measured.folder)["results"]["plain, measured"]["intervals"][1]
    assert first["width"] == pytest.approx(sum(widths) / 3) and first["below"] == 3 and first["above"] == 0
    from certimed.exports.tables import write_csv

    write_csv(measured.folder, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["measurement"]]
    assert len(rows) == 3 * 2 * 2
    assert float(rows[1]["lower"]) == certificates[0].intervals["area:1"].lower[1]
    assert {row["side"] for row in rows if row["measurement"] == "area:1"} == {"below"}
    assert float(rows[0]["native_radius"]) < float(rows[0]["radius"]) == 0.05
    assert "intervals of measurements" in measured._repr_html_()


def test_curves_are_of_masks_and_measurements_alone_are_a_forest(measured):
    figure = measured.plot()
    if measured.spec.target.taus:
        assert len(figure.axes) == 1
        return
    first, second = figure.axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("area:1, cm2", "count:1")
    own = [record.certificates["plain, measured"].intervals["area:1"] for record in measured.records()]
    drawn = [line.get_xdata() for line in first.lines]
    assert all([one.lower[at], one.upper[at]] in [list(xs) for xs in drawn] for one in own for at in (0, 1))
    assert [30.0, 30.0] in [list(xs) for xs in drawn]  # the threshold
