"""Runs as tables: every format says the same, and nothing in a name can do harm."""

import csv
import json
from dataclasses import replace

import pytest
from tiny_runs import class_spec, full_run, manifest, mask_spec, write_images, write_scans

from certimed import DataSpec, InputError, load_run
from certimed.cli.console import harmless
from certimed.exports.tables import columns, rows, to_pandas, write_cohen, write_csv, write_parquet
from certimed.runs import Record, RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("export")
    return full_run(class_spec(write_images(base / "images", 8, broken=(6,))), base / "run")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    base = tmp_path_factory.mktemp("masks")
    return full_run(mask_spec(write_scans(base / "scans", 2)), base / "run")


def test_rows_say_what_the_records_say(run):
    table = {row["item"]: row for row in run.rows()}
    assert len(table) == 8
    for record in run.records():
        row = table[record.item]
        assert row["status"] == record.status
        if record.certificates:
            cert = record.certificates["plain"]
            assert row["radius"] == cert.radius
            assert row["clean"] == record.clean["plain"]
            assert json.loads(row["counts"]) == list(cert.counts)
            assert row["correct"] == (not cert.abstained and cert.prediction == record.label)
            assert row["label_name"] == ("dark", "light")[record.label]
            assert (row["noise"], row["scope"], row["stop"]) == (cert.law.name, "end-to-end", cert.stop.kind)
            assert row["seconds"] == record.seconds > 0
        else:
            assert row["reason"] == record.reason
            assert row["method"] is None


def test_rows_of_masks(masks):
    for record, row in zip(masks.records(), masks.rows(), strict=True):
        cert = record.certificates["plain"]
        assert (row["item"], row["tau"], row["pixels"], row["num_classes"]) == (record.item, 0.75, 64, 2)
        assert (row["share_certified"], row["radius"], row["threshold"]) == (
            cert.share_certified, cert.radius, cert.threshold,
        )  # fmt: skip


def test_csv_round_trip(run, tmp_path):
    assert write_csv(run.folder, tmp_path / "run.csv") == 8
    with (tmp_path / "run.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    for row, expected in zip(read, run.rows(), strict=True):
        assert row["item"] == expected["item"]
        if expected["status"] == "certified":
            assert float(row["radius"]) == expected["radius"]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("kind", ["run", "masks"])
def test_pandas_and_parquet(kind, request, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    found = request.getfixturevalue(kind)
    frame = found.to_pandas()
    assert list(frame.columns) == list(columns(found.folder))
    assert frame["radius"].max() == max(c.radius for r in found.records() for c in r.certificates.values())
    assert write_parquet(found.folder, tmp_path / "run.parquet") == len(frame) == len(list(found.rows()))
    again = pandas.read_parquet(tmp_path / "run.parquet")
    assert again["item"].tolist() == frame["item"].tolist()
    assert again["radius"].dropna().tolist() == to_pandas(found.folder)["radius"].dropna().tolist()


def test_masks_carry_their_scores(tmp_path):
    scans = write_scans(tmp_path / "scans", 2)
    found = full_run(mask_spec(scans), tmp_path / "run")
    frame = {row["item"]: row for row in found.rows()}
    for record in found.records():
        row, scores = frame[record.item], record.scores["plain"]
        assert row["guaranteed_dice"] == scores.per_class["guaranteed Dice"][1]
        assert row["clean_dice"] == scores.per_class["Dice (clean)"][1]
        assert row["guaranteed_dice"] <= row["published_dice"] <= row["best_case_dice"]
        told = json.loads(row["scores"])
        assert told["guaranteed Dice"] == list(scores.per_class["guaranteed Dice"])
        assert told["certified accuracy"] == scores.whole["certified accuracy"]
    bare = full_run(mask_spec("").changed(data=DataSpec(str(scans / "images"), ("a", "b"))), tmp_path / "bare")
    assert {row["guaranteed_dice"] for row in bare.rows()} == {None}


def test_cohen_format(run, masks, tmp_path):
    """What smoothing's own analysis reads: certified accuracy at r is the mean of correct and radius >= r."""
    assert write_cohen(run.folder, tmp_path / "run.tsv") == 7
    with (tmp_path / "run.tsv").open() as stream:
        read = list(csv.DictReader(stream, delimiter="\t"))
    assert list(read[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    records = dict(enumerate(run.records()))
    assert len(read) == 7
    for row in read:
        record = records[int(row["idx"])]
        cert = record.certificates["plain"]
        assert int(row["predict"]) == (-1 if cert.abstained else cert.prediction)
        assert cert.radius - 2e-7 <= float(row["radius"]) <= cert.radius
        assert int(row["correct"]) == int(not cert.abstained and cert.prediction == record.label)
        hours, minutes, seconds = row["time"].split(":")
        assert abs(3600 * int(hours) + 60 * int(minutes) + float(seconds) - record.seconds) < 1e-5
    with pytest.raises(InputError, match="must be one of plain"):
        write_cohen(run.folder, tmp_path / "x.tsv", "zero-shot")
    with pytest.raises(InputError, match="is a run of masks"):
        write_cohen(masks.folder, tmp_path / "x.tsv")


def test_unwritable_targets_are_one_sentence(run, tmp_path):
    for name in ("no/such/folder/run.csv", "."):
        with pytest.raises(InputError, match="cannot be written"):
            write_csv(run.folder, tmp_path / name)


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
def test_hostile_names_are_harmless_in_run_and_table(run, tmp_path, name):
    certificate = next(run.records()).certificates["plain"]
    made = {name: value for name, value in manifest(run).items() if "sha256" not in name}
    made["classes"] = [name, "light"]
    named = replace(certificate, about=replace(certificate.about, item=name))
    record = Record(name, "certified", None, 0, None, {"plain": 0}, {"plain": named})
    with RunFolder.create(tmp_path / "run", made) as folder:
        folder.append(record)
        folder.append(Record.failed(name + "2", name))
    assert len((tmp_path / "run" / "certificates.jsonl").read_text().splitlines()) == 2
    assert [r.item for r in RunFolder.open(tmp_path / "run").records()] == [name, name + "2"]
    before = set(tmp_path.rglob("*"))
    assert write_csv(load_run(tmp_path / "run").folder, tmp_path / "run.csv") == 2
    with (tmp_path / "run.csv").open(newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)
    assert len(list(rows(folder))) == 2
    shown = harmless(name)
    assert not any(ord(char) < 32 or ord(char) == 0x202E or 0xD800 <= ord(char) < 0xE000 for char in shown)
    assert len(shown) < 300
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "run.csv"}
