"""A run folder survives anything: torn lines, second writers, changed settings, full disks, kills."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import Certify, full_run, lines, manifest, open_images, write_images

from certimed import InputError
from certimed.cli.running import Running
from certimed.integrity import line_holds, seal_line, seal_manifest, settings_of, strict_json
from certimed.runs import CERTIFIED, FAILED, RunFolder, certify_dataset, data_section, remaining
from certimed.runs import lock as lock_module

# Forked, not spawned: a child starts in milliseconds, and can be shot at any moment.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", 6)


def finish(images, out, certify=None, **options):
    dataset, certify = open_images(images), certify or Certify()
    with RunFolder.resume(out, manifest(dataset, certify)) as folder:
        return [record.item for record in certify_dataset(dataset, certify, folder, **options)]


def test_resume_finishes_exactly_the_missing_images(images, tmp_path):
    whole = full_run(images, tmp_path / "whole")
    dataset, certify = open_images(images), Certify()
    with RunFolder.create(tmp_path / "run", manifest(dataset, certify)) as folder:
        run = certify_dataset(dataset, certify, folder)
        first = [next(run).item for _ in range(2)]
        run.close()
    rest = finish(images, tmp_path / "run")
    assert sorted(first + rest) == sorted(dataset.ids)
    assert len(rest) == 4
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert RunFolder.open(tmp_path / "run").digest() == whole.digest()
    assert finish(images, tmp_path / "run") == []


@pytest.mark.parametrize("keep", [0, 1, 30, -1])
def test_a_torn_last_line_is_cut_and_its_image_done_again(images, tmp_path, keep):
    full_run(images, tmp_path / "run")
    path = tmp_path / "run" / "certificates.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:-1]) + content[-1][:keep])
    with (tmp_path / "run" / "timing.jsonl").open("a") as stream:
        stream.write('{"item": "da')
    dataset, certify = open_images(images), Certify()
    with RunFolder.resume(tmp_path / "run", manifest(dataset, certify)) as folder:
        assert folder.repaired == len(content[-1][:keep])
        assert len(list(certify_dataset(dataset, certify, folder))) == 1
    assert path.read_bytes() == b"".join(content)
    assert len(RunFolder.open(tmp_path / "run").timings()) == 6


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_touched(images, tmp_path):
    full_run(images, tmp_path / "run")
    path = tmp_path / "run" / "certificates.jsonl"
    content = path.read_text().splitlines(keepends=True)
    content[2] = content[2][:40] + "\n"
    path.write_text("".join(content))
    with pytest.raises(InputError, match="line 3 is broken"):
        finish(images, tmp_path / "run")
    assert path.read_text() == "".join(content)


CHANGES = [
    ({"sigma": 0.5}, r"settings\.sigma was 0\.25 and is now 0\.5"),
    ({"n": 51}, r"settings\.n was 50 and is now 51"),
    ({"seed": 4}, r"settings\.seed was 3 and is now 4"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_changed_setting_is_refused_by_name(images, tmp_path, change, message):
    full_run(images, tmp_path / "run")
    with pytest.raises(InputError, match=message):
        finish(images, tmp_path / "run", Certify(**change))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "identity"), "b" * 64, r"model\.identity was \"aaa"),
        (("provenance", "versions", "torch"), "0.0", r"provenance\.versions\.torch"),
        (("provenance", "dtype"), "bfloat16", r"provenance\.dtype was \"float32\" and is now \"bfloat16\""),
        (("provenance", "device"), "cuda:1", r"provenance\.device was \"cpu\" and is now \"cuda\""),
        (("classes",), ["dark", "bright"], r"classes\[1\] was \"light\" and is now \"bright\""),
        (("prompt",), "x", r"prompt was absent and is now \"x\""),
        (("templates",), ["{}", "a {}"], r"templates was \[\"\{\}\"\] and is now"),
        (("certimed",), "9", r"certimed was \"0\.1\.0\" and is now \"9\""),
    ],
)
def test_a_changed_model_prompt_or_version_is_refused_by_name(images, tmp_path, path, value, message):
    full_run(images, tmp_path / "run")
    changed = json.loads(json.dumps(manifest(open_images(images), Certify())))
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(InputError, match=message):
        RunFolder.resume(tmp_path / "run", changed)


def test_what_may_differ_between_machines_does_not_stop_a_resume(images, tmp_path):
    full_run(images, tmp_path / "run")
    other = json.loads(json.dumps(manifest(open_images(images), Certify())))
    other.update(created="later", arguments=["--resume"], local={"folder": "/elsewhere"})
    other["provenance"]["device_name"] = "another processor"
    other["model"]["name"] = "/elsewhere/model"
    RunFolder.resume(tmp_path / "run", other).close()


@pytest.mark.parametrize("how", ["content", "added", "removed", "label"])
def test_changed_data_is_refused(images, tmp_path, how):
    full_run(images, tmp_path / "run")
    victim = images / "dark" / "00000.png"
    if how == "content":
        victim.write_bytes((images / "light" / "00001.png").read_bytes())
    elif how == "added":
        (images / "dark" / "zz.png").write_bytes(victim.read_bytes())
    elif how == "removed":
        victim.unlink()
    else:
        victim.rename(images / "light" / "00000.png")
    with pytest.raises(InputError, match=r"data\.identity was"):
        finish(images, tmp_path / "run")


@pytest.mark.parametrize("shard", ["x", 3, {}, {"index": 9, "count": 2}, {"index": "a", "count": None}])
def test_a_shard_that_does_not_exist_is_one_sentence(images, tmp_path, shard):
    full_run(images, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(seal_manifest({**json.loads(path.read_text()), "shard": shard})))
    with pytest.raises(InputError):
        RunFolder.open(tmp_path / "run").shard  # noqa: B018
    with pytest.raises(InputError):
        Running(resume=tmp_path / "run").open(
            open_images(images), lambda data: manifest(open_images(images), Certify())
        )


def test_an_edited_manifest_is_not_resumed(images, tmp_path):
    full_run(images, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"sigma": 0.25', '"sigma": 0.5'))
    with pytest.raises(InputError, match="its settings are not those the run was started with"):
        finish(images, tmp_path / "run", Certify(sigma=0.5))


def test_unchanged_files_are_not_hashed_again_and_touched_ones_are(images, monkeypatch):
    dataset = open_images(images)
    first = data_section(dataset)
    monkeypatch.setattr("certimed.runs.manifest.identity", lambda _: "hashed again")
    assert data_section(dataset, first) == first
    os.utime(images / "dark" / "00000.png", (1, 1))
    assert data_section(dataset, first)["identity"] == "hashed again"
    assert data_section(dataset)["identity"] == "hashed again"


def test_failed_images_stay_listed_and_can_be_retried(tmp_path):
    images = write_images(tmp_path / "images", 4, broken=(2,))
    full_run(images, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    failed = [record for record in folder.records() if record.status == FAILED]
    assert [record.item for record in failed] == ["dark/00002.png"]
    assert "00002.png" in failed[0].reason
    assert finish(images, tmp_path / "run") == []
    assert finish(images, tmp_path / "run", retry_failed=True) == ["dark/00002.png"]
    assert [record.item for record in folder.records()].count("dark/00002.png") == 1
    assert remaining(open_images(images), folder) == []
    assert remaining(open_images(images), folder, retry_failed=True) == [1]


def test_a_retry_that_succeeds_replaces_the_failure(images, tmp_path):
    class Moody(Certify):
        def __call__(self, image):
            if image.id.endswith("00003.png"):
                from certimed import ModelError

                raise ModelError("not today")
            return super().__call__(image)

    dataset = open_images(images)
    with RunFolder.create(tmp_path / "run", manifest(dataset, Certify())) as folder:
        list(certify_dataset(dataset, Moody(), folder))
    assert finish(images, tmp_path / "run", retry_failed=True) == ["light/00003.png"]
    records = list(RunFolder.open(tmp_path / "run").records())
    assert [record.status for record in records] == [CERTIFIED] * 6
    whole = full_run(images, tmp_path / "whole")
    assert RunFolder.open(tmp_path / "run").digest() == whole.digest()


def test_the_second_writer_is_refused_and_a_closed_one_is_not(images, tmp_path):
    dataset, certify = open_images(images), Certify()
    first = RunFolder.create(tmp_path / "run", manifest(dataset, certify))
    with pytest.raises(InputError, match=f"process {os.getpid()} on "):
        RunFolder.resume(tmp_path / "run", manifest(dataset, certify))
    assert RunFolder.open(tmp_path / "run").status() == {}
    first.close()
    first.close()
    with RunFolder.resume(tmp_path / "run", manifest(dataset, certify)):
        pass
    with pytest.raises(InputError, match="reading only"):
        first.append(next(iter(full_run(images, tmp_path / "other").records())))


def test_a_lock_left_by_a_killed_process_is_stale(images, tmp_path):
    dataset, certify = open_images(images), Certify()
    RunFolder.create(tmp_path / "run", manifest(dataset, certify)).close()
    code = f"""
import sys, time
from pathlib import Path
from certimed.runs.lock import FolderLock
held = FolderLock(Path({str(tmp_path / "run")!r}))
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {child.pid} on "):
            RunFolder.resume(tmp_path / "run", manifest(dataset, certify))
        child.kill()
    RunFolder.resume(tmp_path / "run", manifest(dataset, certify)).close()


def test_without_flock_the_open_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "fcntl", None)
    lock_module.FolderLock(tmp_path).release()
    lock_module.FolderLock(tmp_path).release()

    def in_use(self, missing_ok=False):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "unlink", in_use)
    with pytest.raises(InputError, match="being written by another process"):
        lock_module.FolderLock(tmp_path)


def test_create_keeps_what_is_there_and_takes_over_what_a_killed_create_left(images, tmp_path):
    dataset, certify = open_images(images), Certify()
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create(busy, manifest(dataset, certify))
    half = tmp_path / "half"
    half.mkdir()
    for name in (".lock", "run.json.part", "certificates.jsonl"):
        (half / name).touch()
    RunFolder.create(half, manifest(dataset, certify)).close()
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create(half, manifest(dataset, certify))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError):
            RunFolder.create(path, manifest(dataset, certify))


def certify_on_a_full_disk(images, out, pipe):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    dataset, certify = open_images(images), Certify()
    folder = RunFolder.create(out, manifest(dataset, certify))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    try:
        list(certify_dataset(dataset, certify, folder))
    except InputError as error:
        pipe.send(str(error))


def test_a_full_disk_is_one_sentence_and_leaves_whole_lines(images, tmp_path):
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=certify_on_a_full_disk, args=(images, tmp_path / "run", theirs))
    child.start()
    assert "cannot be written (File too large); what was certified before is kept" in ours.recv()
    child.join()
    content = (tmp_path / "run" / "certificates.jsonl").read_text()
    assert content.endswith("}\n")
    assert 1 <= len(content.splitlines()) < 6
    assert len(finish(images, tmp_path / "run")) == 6 - len(content.splitlines())


def test_lines_belong_to_their_run_and_every_byte_counts():
    line = seal_line('{"a": 1, "b": ", \\"sha256\\": \\"x"}', "s" * 64)
    assert json.loads(line)["a"] == 1
    assert line_holds(line, "s" * 64)
    assert not line_holds(line, "t" * 64)
    for index in range(len(line)):
        assert not line_holds(line[:index] + "~" + line[index + 1 :], "s" * 64)
        assert not line_holds(line[:index] + line[index + 1 :], "s" * 64)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "NaN", '{"x": -Infinity}', "[" * 100_000, "1" * 5000, "", '"\\ud800', "{}x"]
)
def test_ambiguous_json_is_refused(text):
    with pytest.raises(InputError, match="the file is not valid JSON"):
        strict_json(text, "the file")


def test_settings_leave_out_what_machines_may_differ_in():
    full = {"a": 1, "created": 2, "data": {"source": "x", "identity": "y"}, "provenance": {"device": "cuda:3"}}
    assert settings_of(full) == {"a": 1, "data": {"identity": "y"}, "provenance": {"device": "cuda"}}
    assert full["data"]["source"] == "x"


def certify_slowly(images, out, journal, started=None):
    dataset, certify = open_images(images), Certify(delay=0.01, journal=journal)
    made = manifest(dataset, certify)
    folder = RunFolder.resume(out, made) if (out / "run.json").exists() else RunFolder.create(out, made)
    if started is not None:
        started.set()
    for _ in certify_dataset(dataset, certify, folder):
        pass


def shoot(images, out, journal, seed):
    """Start, kill at a random moment, then finish."""
    started = FORK.Event()
    child = FORK.Process(target=certify_slowly, args=(images, out, journal, started))
    child.start()
    assert started.wait(60)
    time.sleep(random.Random(seed).uniform(0, 0.4))
    child.kill()
    child.join()
    certify_slowly(images, out, journal)
    return child.exitcode


def check_shot(images, tmp_path, seed):
    out, journal = tmp_path / f"run-{seed}", tmp_path / f"journal-{seed}"
    assert shoot(images, out, journal, seed) in (-signal.SIGKILL, 0)
    assert lines(out) == lines(tmp_path / "whole")
    computed = [line.split(" ", 1)[1] for line in journal.read_text().splitlines()]
    assert len(computed) - len(set(computed)) <= 1


def test_kill_at_random_moments_then_resume(tmp_path):
    images = write_images(tmp_path / "images", 20)
    full_run(images, tmp_path / "whole")
    for seed in range(4):
        check_shot(images, tmp_path, seed)


@pytest.mark.slow
def test_kill_at_fifty_random_moments_then_resume(tmp_path):
    images = write_images(tmp_path / "images", 20)
    full_run(images, tmp_path / "whole")
    for seed in range(50):
        check_shot(images, tmp_path, seed)


@pytest.mark.slow
def test_ten_thousand_images_flat_memory_and_instant_resume(tmp_path):
    import psutil

    images = write_images(tmp_path / "images", 10_000)
    dataset, certify = open_images(images), Certify(n=20)
    made = manifest(dataset, certify)
    process, seen = psutil.Process(), []
    with RunFolder.create(tmp_path / "run", made) as folder:
        for done, _ in enumerate(certify_dataset(dataset, certify, folder)):
            if done in (500, 9_500):
                seen.append(process.memory_info().rss)
    assert seen[1] - seen[0] < 20 << 20
    begin = time.perf_counter()
    with RunFolder.resume(tmp_path / "run", manifest(dataset, certify, made["data"])) as folder:
        assert remaining(dataset, folder) == []
    assert time.perf_counter() - begin <= 2.0
