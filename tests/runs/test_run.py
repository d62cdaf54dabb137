"""Runs from Python: a request and a folder in, a run to look at out."""

import os

import pytest
from tiny_runs import class_spec, full_run, lines, manifest, mask_spec, write_images, write_scans

from certimed import InputError, load_run
from certimed.data import open_dataset
from certimed.executors import Lost
from certimed.exports.summary import SUMMARY_SCHEMA, summary, write_summary
from certimed.metrics import summarise
from certimed.runs import CERTIFIED, FAILED, Record, RunFolder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), 8, broken=(4,))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return full_run(class_spec(images), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    base = tmp_path_factory.mktemp("masks")
    return full_run(mask_spec(write_scans(base / "scans", 3)), base / "run")


def test_the_run_says_what_was_asked_and_what_became_of_it(images, whole):
    assert whole.spec == class_spec(images)
    records = {record.item: record for record in whole.records()}
    assert sorted(records) == sorted(open_dataset(images).ids)
    assert {item for item, record in records.items() if record.status == FAILED} == {"dark/00004.png"}
    done = records["light/00001.png"]
    assert (done.label, done.status, done.reason) == (1, CERTIFIED, None)
    certificate = done.certificates["plain"]
    assert sum(certificate.counts) == certificate.n == 50
    assert certificate.about.provenance.model == manifest(whole)["methods"][0]["identity"]
    assert done.seconds > 0 and done.intensity is not None
    assert repr(whole) == f"Run({str(whole.folder.path)!r})"


@pytest.mark.parametrize("kind", ["whole", "masks"])
def test_records_survive_their_line(kind, request):
    run = request.getfixturevalue(kind)
    for record in run.records():
        again = Record.from_json(record.to_json(), run.folder.path)
        assert again.to_json() == record.to_json()
        assert (again.item, again.status, again.scores) == (record.item, record.status, record.scores)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_give_the_lines_of_one_process(images, whole, tmp_path, workers):
    run = full_run(class_spec(images), tmp_path / "run", workers=workers)
    assert lines(run) == lines(whole)
    assert run.folder.digest() == whole.folder.digest()


def test_batch_sizes_change_nothing_but_what_is_local(images, whole, tmp_path):
    run = full_run(class_spec(images, batch_size=7), tmp_path / "run")
    assert manifest(run)["local"] == {"batch_size": 7}
    assert lines(run) == lines(whole)
    (tmp_path / "run" / "certificates.jsonl").write_text("")
    full_run(class_spec(images, batch_size=3), tmp_path / "run", resume=True)
    assert lines(run) == lines(whole)


def test_an_automatic_batch_size_is_probed_once_recorded_and_kept(images, whole, tmp_path, monkeypatch):
    answers = [7]
    monkeypatch.setattr("certimed.runs.job.probe_batch_size", lambda *_, **__: answers.pop())
    run = full_run(class_spec(images, batch_size="auto"), tmp_path / "run")
    assert manifest(run)["local"] == {"batch_size": 7}
    assert manifest(run)["request"]["batch_size"] == "auto"
    assert lines(run) == lines(whole)
    (tmp_path / "run" / "certificates.jsonl").write_text("")
    full_run(None, tmp_path / "run", resume=True)  # another probe would find no answer
    assert lines(run) == lines(whole)


def test_a_data_set_that_is_open_already_need_not_be_named_on_disk(images, whole, tmp_path):
    run = full_run(class_spec("elsewhere"), tmp_path / "run", dataset=open_dataset(images))
    assert lines(run) == lines(whole)


def test_limits_are_balanced_by_class(images, tmp_path):
    spec = class_spec(images)
    run = full_run(spec.changed(data=spec.data.__class__(str(images), limit=4)), tmp_path / "run")
    assert sorted(record.item.split("/")[0] for record in run.records()) == ["dark", "dark", "light", "light"]


def test_a_lost_image_is_listed_as_failed(images, tmp_path):
    class Deadly:
        def run(self, work, tasks):
            for task in tasks:
                yield task, Lost("its worker ended 3 times (signal 9)")

    run = full_run(class_spec(images), tmp_path / "run", executor=Deadly())
    assert {record.reason for record in run.records()} == {"its worker ended 3 times (signal 9)"}


def test_code_needs_consent(images, tmp_path):
    from certimed import run

    with pytest.raises(InputError, match="add --allow-code if you trust it"):
        run(class_spec(images), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": "nonsense"}, "nonsense"),
        ({"device": "abacus"}, "abacus"),
        ({"output": "logits"}, "describes a segmentation network"),
        ({"templates": ("a {}",)}, "no text to prompt"),
        ({"methods": ("few-shot",)}, "needs a tuned prompt"),
        ({"methods": ("clever",)}, "clever"),
        ({"methods": ("zero-shot",)}, "needs a model that reads prompts"),
        ({"denoiser": "demo"}, "go together"),
        ({"size": (9, 9)}, "9"),
    ],
)
def test_impossible_requests_are_one_sentence_and_leave_no_folder(images, tmp_path, fields, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        full_run(class_spec(images, **fields), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="of one class only"):
        full_run(class_spec(write_images(tmp_path / "images", 1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(images, whole, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        full_run(class_spec(images), tmp_path / "run")


def test_the_summary_says_what_the_certificates_say(whole):
    found = summary(whole.folder)
    assert (found["schema"], found["task"], found["images"]) == (SUMMARY_SCHEMA, "classes", 8)
    assert (found["certified"], found["failed"], found["complete"]) == (7, 1, True)
    assert found["digest"] == whole.folder.digest()
    done = [record for record in whole.records() if record.status == CERTIFIED]
    expected = summarise(
        [record.certificates["plain"] for record in done],
        [record.label for record in done],
        [record.clean["plain"] for record in done],
        failed=1,
    )
    plain = found["results"]["plain"]
    assert plain["clean_accuracy"] == expected.clean_accuracy
    assert [row["certified_accuracy"] for row in plain["at_radius"]] == list(expected.certified_accuracy)
    assert [(row["low"], row["high"]) for row in plain["at_radius"]] == list(expected.intervals)
    assert plain["mean_samples"] == 50
    # By hand: correct and not abstained, of all eight.
    right = sum(r.certificates["plain"].prediction == r.label and r.certificates["plain"].radius > 0 for r in done)
    assert plain["at_radius"][0]["radius"] == 0
    assert plain["at_radius"][0]["certified_accuracy"] == right / 8


def test_the_summary_of_masks_says_what_the_scores_say(masks):
    found = summary(masks.folder)
    assert (found["task"], found["certified"], found["failed"]) == ("mask", 3, 0)
    plain = found["results"]["plain"]
    records = list(masks.records())
    shares = [record.certificates["plain"].share_certified for record in records]
    assert plain["share_certified"] == pytest.approx(sum(shares) / 3)
    (row,) = (r for r in plain["scores"] if (r["class"], r["metric"]) == ("class 1", "guaranteed Dice"))
    dice = [record.scores["plain"].per_class["guaranteed Dice"][1] for record in records]
    assert row["mean"] == pytest.approx(sum(dice) / 3)
    assert row["low"] <= row["mean"] <= row["high"]


def test_the_summary_of_an_unfinished_or_fruitless_run(images, whole, tmp_path):
    cut = full_run(class_spec(images), tmp_path / "cut").folder
    path = cut.path / "certificates.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    found = write_summary(RunFolder.open(cut.path), 0)
    assert (found["images"], found["certified"] + found["failed"], found["complete"]) == (8, 3, False)
    path.write_text("")
    assert summary(cut)["results"] == {}
    part = full_run(class_spec(images), tmp_path / "part", shard="1/2")
    assert (summary(part.folder)["images"], summary(part.folder)["complete"]) == (4, True)


def test_load_run_refuses_what_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        load_run(tmp_path)
