"""Runs as tables: every format says the same, and nothing in a name can do harm."""

import csv
import json

import pytest
from tiny_runs import Certify, full_run, manifest, open_images, write_images
from typer.testing import CliRunner

from certimed import InputError
from certimed.cli.app import app
from certimed.cli.console import printable
from certimed.runs import ClassRecord, RunFolder, load_run, merge
from certimed.verification import verify


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("export")
    return full_run(write_images(base / "images", 8, broken=(6,)), base / "run")


def test_rows_say_what_the_records_say(run):
    rows = {row["item"]: row for row in load_run(run.path).rows()}
    assert len(rows) == 8
    for record in run.records():
        row = rows[record.item]
        assert row["status"] == record.status
        if record.certificates:
            cert = record.certificates["none"]
            assert row["radius"] == cert.radius
            assert json.loads(row["counts"]) == list(cert.counts)
            assert row["correct"] == (not cert.abstained and cert.prediction == record.label)
            assert row["label_name"] == ("dark", "light")[record.label]
            assert row["seconds"] == record.seconds > 0
        else:
            assert row["reason"] == record.reason


def test_csv_round_trip(run, tmp_path):
    assert load_run(run.path).to_csv(tmp_path / "run.csv") == 8
    with (tmp_path / "run.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, expected in zip(rows, load_run(run.path).rows(), strict=True):
        assert row["item"] == expected["item"]
        if expected["status"] == "certified":
            assert float(row["radius"]) == expected["radius"]
    assert not list(tmp_path.glob("*.part"))


def test_pandas(run):
    pytest.importorskip("pandas")
    frame = load_run(run.path).to_pandas()
    assert len(frame) == 8
    assert list(frame.columns) == list(load_run(run.path).columns)
    assert frame["radius"].max() == max(c.radius for r in run.records() for c in r.certificates.values())


def test_parquet(run, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert load_run(run.path).to_parquet(tmp_path / "run.parquet") == 8
    again = pandas.read_parquet(tmp_path / "run.parquet")
    assert again["item"].tolist() == load_run(run.path).to_pandas()["item"].tolist()
    assert again["radius"].dropna().tolist() == load_run(run.path).to_pandas()["radius"].dropna().tolist()


def test_cohen_format(run, tmp_path):
    """What smoothing's own analysis reads: certified accuracy at r is the mean of correct and radius >= r."""
    assert load_run(run.path).to_cohen(tmp_path / "run.tsv") == 7
    with (tmp_path / "run.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert list(rows[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    records = {index: record for index, record in enumerate(run.records())}
    assert len(rows) == 7
    for row in rows:
        record = records[int(row["idx"])]
        cert = record.certificates["none"]
        assert int(row["predict"]) == (-1 if cert.abstained else cert.prediction)
        assert cert.radius - 2e-7 <= float(row["radius"]) <= cert.radius
        assert int(row["correct"]) == int(not cert.abstained and cert.prediction == record.label)
        hours, minutes, seconds = row["time"].split(":")
        assert abs(3600 * int(hours) + 60 * int(minutes) + float(seconds) - record.seconds) < 1e-5
    with pytest.raises(InputError, match="must be one of none"):
        load_run(run.path).to_cohen(tmp_path / "x.tsv", "zero-shot")


def test_unwritable_targets_are_one_sentence(run, tmp_path):
    for name in ("no/such/folder/run.csv", "."):
        with pytest.raises(InputError, match="cannot be written"):
            load_run(run.path).to_csv(tmp_path / name)


HOSTILE = [
    "=cmd|'/C calc'!A0",
    "../../../../etc/passwd",
    "a\x1b[31mred\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "line\nbreak\r\u2028\x00",
    "[bold red]markup[/]",
    "\u202egnp.exe",
    "bytes\udcff\udcfe",
    "x" * 5000,
    "p\u0430ypal",
    '", "sha256": "' + "0" * 64,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless_in_run_table_and_terminal(tmp_path, name):
    dataset, certify = open_images(write_images(tmp_path / "images", 2)), Certify()
    _, certificates = certify(dataset.load(0))
    from dataclasses import replace

    made = manifest(dataset, certify)
    made["classes"] = [name, "light"]
    record = ClassRecord(
        name, "certified", 0, None, 0.1, {"none": 0}, {"none": replace(certificates["none"], item=name)}
    )
    broken = ClassRecord(name + "2", "failed", reason=name)
    with RunFolder.create(tmp_path / "run", made) as folder:
        folder.append(record)
        folder.append(broken)
    before = {path for path in tmp_path.rglob("*") if "run" not in path.parts[len(tmp_path.parts) :][:1]}
    assert len((tmp_path / "run" / "certificates.jsonl").read_text().splitlines()) == 2
    assert [r.item for r in RunFolder.open(tmp_path / "run").records()] == [name, name + "2"]
    faults = verify(tmp_path / "run").faults
    assert [what for _, what in faults] == [
        "its images are not those the run was started with (ids_sha256 does not match)"
    ]
    assert load_run(tmp_path / "run").to_csv(tmp_path / "run.csv") == 2
    with (tmp_path / "run.csv").open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)
    shown = printable(name)
    assert not any(ord(char) < 32 or ord(char) == 0x202E or 0xD800 <= ord(char) < 0xE000 for char in shown)
    assert len(shown) < 300
    after = {path for path in tmp_path.rglob("*") if "run" not in path.parts[len(tmp_path.parts) :][:1]}
    assert after - before == {tmp_path / "run.csv"}


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_verify_command(run, tmp_path):
    done = call("verify", run.path)
    assert done.exit_code == 0, done.output
    assert "true: 7 certificates of 8 images, 1 images failed" in done.output
    assert run.digest() in done.output.replace("\n", "")
    assert call("verify", run.path, "--expect", run.digest()).exit_code == 0
    assert call("verify", run.path, "--expect", "0" * 64).exit_code == 1
    assert call("verify", tmp_path / "nothing").exit_code == 2


def test_verify_command_names_the_first_false_line(tmp_path):
    run = full_run(write_images(tmp_path / "images", 4), tmp_path / "run").path
    path = run / "certificates.jsonl"
    content = path.read_text().splitlines(keepends=True)
    content[1] = content[1].replace('"alpha": 0.001', '"alpha": 0.0001')
    path.write_text("".join(content))
    done = call("verify", run)
    assert done.exit_code == 1
    assert done.output.startswith("false certificates.jsonl line 2: ")


def test_export_and_merge_commands(run, tmp_path):
    assert call("export", run.path, "--out", tmp_path / "a.csv").exit_code == 0
    assert call("export", run.path, "--out", tmp_path / "a.tsv").exit_code == 0
    assert call("export", run.path, "--out", tmp_path / "a.xlsx").exit_code == 2
    assert call("merge", run.path, run.path, "--out", tmp_path / "merged").exit_code == 2
    assert call("merge", run.path, "--out", tmp_path / "merged").exit_code == 2
    with pytest.raises(InputError):
        merge([run.path, run.path], tmp_path / "merged")
