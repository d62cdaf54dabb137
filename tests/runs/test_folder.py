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
from tiny_runs import class_spec, full_run, lines, manifest, write_images

from certimed import InputError, ModelError, load_run
from certimed.integrity import line_holds, seal_line, seal_manifest, settings_of, strict_json
from certimed.runs import CERTIFIED, FAILED, RunFolder, Silent, data_section, execute, remaining
from certimed.runs import lock as lock_module

# Forked, not spawned: a child starts in milliseconds, and can be shot at any moment.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", 6)


@pytest.fixture
def run(images, tmp_path):
    full_run(class_spec(images), tmp_path / "run")
    return tmp_path / "run"


class Journal(Silent):
    """Writes down which image is begun; may take its time, and may end the process at the n-th."""

    def __init__(self, path=None, *, delay=0.0, stop_at=None):
        self.path, self.delay, self.stop_at, self.begun = path, delay, stop_at, []

    def image(self, item):
        if len(self.begun) == self.stop_at:
            raise KeyboardInterrupt
        self.begun.append(item)
        time.sleep(self.delay)
        if self.path is not None:
            with self.path.open("a") as stream:
                stream.write(f"{item}\n")


def finish(folder, spec=None, **how):
    """Go on with a run; returns the images that were done."""
    journal = Journal()
    full_run(spec, folder, resume=True, watcher=journal, **how)
    return journal.begun


def drop(folder, keep):
    """Keep the first so many lines."""
    path = folder / "certificates.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))


def test_resume_finishes_exactly_the_missing_images(images, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        full_run(class_spec(images), tmp_path / "cut", watcher=Journal(stop_at=2))
    rest = finish(tmp_path / "cut")
    assert len(rest) == 4
    assert lines(tmp_path / "cut") == lines(run)
    assert RunFolder.open(tmp_path / "cut").digest() == RunFolder.open(run).digest()
    assert finish(tmp_path / "cut") == []


@pytest.mark.parametrize("keep", [0, 1, 30, -1])
def test_a_torn_last_line_is_cut_and_its_image_done_again(run, keep):
    path = run / "certificates.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[:-1]) + content[-1][:keep])
    with (run / "timing.jsonl").open("a") as stream:
        stream.write('{"item": "da')
    notes = []
    journal = Journal()
    journal.note = notes.append
    full_run(None, run, resume=True, watcher=journal)
    cut = len(content[-1][:keep])
    assert notes == ([f"an unfinished line of {cut} bytes was cut off; its image is done again"] if cut else [])
    assert len(journal.begun) == 1
    assert path.read_bytes() == b"".join(content)
    assert len(RunFolder.open(run).timings()) == 6


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_touched(run):
    path = run / "certificates.jsonl"
    content = path.read_text().splitlines(keepends=True)
    content[2] = content[2][:40] + "\n"
    path.write_text("".join(content))
    with pytest.raises(InputError, match="line 3 is broken"):
        finish(run)
    assert path.read_text() == "".join(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.5}, r"request\.sigma was 0\.25 and is now 0\.5"),
        ({"budget": 51}, r"request\.budget was \"fixed:50\" and is now \"fixed:51\""),
        ({"seed": 4}, r"request\.seed was 3 and is now 4"),
        ({"noise": "float32"}, r"request\.noise was \"grid\" and is now \"float32\""),
        ({"space": "native"}, r"request\.space was \"model input\" and is now \"native\""),
        ({"model": "python:tiny_models:shifted"}, r"model\.identity was \""),
    ],
)
def test_a_changed_setting_is_refused_by_name(images, run, change, message):
    before = (run / "certificates.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        finish(run, class_spec(images, **change))
    assert (run / "certificates.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "identity"), "b" * 64, r"model\.identity was \""),
        (("provenance", "versions", "torch"), "0.0", r"provenance\.versions\.torch"),
        (("provenance", "dtype"), "bfloat16", r"provenance\.dtype was \"float32\" and is now \"bfloat16\""),
        (("provenance", "device"), "cuda:1", r"provenance\.device was \"cpu\" and is now \"cuda\""),
        (("classes",), ["dark", "bright"], r"classes\[1\] was \"light\" and is now \"bright\""),
        (("denoiser",), "x", r"denoiser was null and is now \"x\""),
        (("request", "templates"), ["a {}"], r"request\.templates was \[\] and is now"),
        (("methods",), [], r"methods was \[\{"),
        (("certimed",), "9", r"certimed was \"[0-9.]+\" and is now \"9\""),
        (("prompt",), "x", r"prompt was absent and is now \"x\""),
    ],
)
def test_a_changed_model_method_or_version_is_refused_by_name(run, path, value, message):
    changed = manifest(run)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(InputError, match=message):
        RunFolder.resume(run, changed)


def test_what_may_differ_between_machines_does_not_stop_a_resume(run):
    other = manifest(run)
    other.update(created="later", local={"batch_size": 3})
    other["provenance"]["device_name"] = "another processor"
    other["model"]["name"] = other["request"]["model"] = "/elsewhere/model"
    other["request"]["data"]["path"] = "/elsewhere/images"
    other["request"].update(batch_size=3, device="cuda:1")
    RunFolder.resume(run, other).close()


def test_moved_images_can_be_named_at_their_new_place(images, run, tmp_path):
    drop(run, 4)
    images.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="images"):
        finish(run)
    assert len(finish(run, class_spec(tmp_path / "moved"))) == 2


@pytest.mark.parametrize("how", ["content", "added", "removed", "label"])
def test_changed_data_is_refused(images, run, how):
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
        finish(run)


@pytest.mark.parametrize("shard", ["x", 3, {}, {"index": 9, "count": 2}, {"index": "a", "count": None}])
def test_a_shard_that_does_not_exist_is_one_sentence(run, shard):
    (run / "run.json").write_text(json.dumps(seal_manifest({**manifest(run), "shard": shard})))
    with pytest.raises(InputError):
        RunFolder.open(run).shard  # noqa: B018
    with pytest.raises(InputError):
        finish(run)


def test_an_edited_manifest_is_not_resumed(images, run):
    path = run / "run.json"
    path.write_text(path.read_text().replace('"sigma": 0.25', '"sigma": 0.5'))
    for spec in (None, class_spec(images, sigma=0.5)):
        with pytest.raises(InputError, match="its settings are not those the run was started with"):
            finish(run, spec)


def test_without_a_request_there_is_nothing_to_run(run, tmp_path):
    with pytest.raises(InputError, match="no request to run"):
        full_run(None, tmp_path / "new")
    with pytest.raises(InputError, match="is not a run folder"):
        full_run(None, tmp_path / "new", resume=True)
    for request in (None, [], {"data": 3}, {"model": "x", "data": {"path": "y"}, "sigma": "high"}):
        (run / "run.json").write_text(json.dumps({**manifest(run), "request": request}))
        with pytest.raises(InputError):
            finish(run)


def test_unchanged_files_are_not_hashed_again_and_touched_ones_are(images, monkeypatch):
    dataset = class_spec(images).data.open()
    first = data_section(dataset)
    monkeypatch.setattr("certimed.runs.manifest.identity", lambda _: "hashed again")
    assert data_section(dataset, first) == first
    os.utime(images / "dark" / "00000.png", (1, 1))
    assert data_section(dataset, first)["identity"] == "hashed again"
    assert data_section(dataset)["identity"] == "hashed again"


def test_failed_images_stay_listed_and_can_be_retried(tmp_path):
    images = write_images(tmp_path / "images", 4, broken=(2,))
    run = full_run(class_spec(images), tmp_path / "run")
    failed = [record for record in run.records() if record.status == FAILED]
    assert [record.item for record in failed] == ["dark/00002.png"]
    assert "00002.png" in failed[0].reason
    assert finish(tmp_path / "run") == []
    assert finish(tmp_path / "run", retry_failed=True) == ["dark/00002.png"]
    assert [record.item for record in run.records()].count("dark/00002.png") == 1
    dataset = class_spec(images).data.open()
    assert remaining(dataset, run.folder) == []
    assert remaining(dataset, run.folder, retry_failed=True) == [1]


class Moody:
    """A job that fails at the images named, through the model; a new kind of failure each time, or always the same."""

    def __init__(self, spec, *items, same=False):
        self.job = spec.load(allow_code=True)
        certify = self.job.certify

        def moody(image, progress=None):
            if image.id in items or not items:
                raise ModelError("not today" if same else f"not today: {image.id}")
            return certify(image, progress)

        self.job.certify = moody


def test_a_retry_that_succeeds_replaces_the_failure(images, run, tmp_path):
    moody = Moody(class_spec(images), "light/00003.png").job
    execute(class_spec(images), tmp_path / "moody", job=moody)
    assert finish(tmp_path / "moody", retry_failed=True) == ["light/00003.png"]
    assert [record.status for record in load_run(tmp_path / "moody").records()] == [CERTIFIED] * 6
    assert RunFolder.open(tmp_path / "moody").digest() == RunFolder.open(run).digest()


def test_a_model_that_fails_alike_on_the_first_images_stops_the_run_once(tmp_path):
    images = write_images(tmp_path / "images", 8, broken=(2,))
    spec = class_spec(images)
    with pytest.raises(ModelError, match="every image fails for one reason: not today; what was written is kept"):
        execute(spec, tmp_path / "run", job=Moody(spec, same=True).job)
    records = list(load_run(tmp_path / "run").records())
    # An image that cannot be read says nothing of the model.
    assert [record.item for record in records] == [f"dark/0000{i}.png" for i in (0, 2, 4, 6)]
    assert [record.reason for record in records].count("not today") == 3
    execute(spec, tmp_path / "others", job=Moody(spec).job)  # each for a reason of its own: nothing to conclude
    assert len(list(load_run(tmp_path / "others").records())) == 8
    some = Moody(spec, "dark/00004.png", "dark/00006.png", "light/00001.png", "light/00003.png", same=True).job
    execute(spec, tmp_path / "some", job=some)
    assert len(list(load_run(tmp_path / "some").records())) == 8


def test_workers_notice_a_hopeless_model_too(tmp_path):
    images = write_images(tmp_path / "images", 6)
    spec = class_spec(images, model="python:tiny_models:broken")
    with pytest.raises(ModelError, match=r"every image fails for one reason: the model returned \(8, 5\)"):
        full_run(spec, tmp_path / "run", workers=2)
    assert len(RunFolder.open(tmp_path / "run").status()) == 3


def test_the_second_writer_is_refused_and_a_closed_one_is_not(run, tmp_path):
    first = RunFolder.create(tmp_path / "new", manifest(run))
    with pytest.raises(InputError, match=f"process {os.getpid()} on "):
        RunFolder.resume(tmp_path / "new", manifest(run))
    assert RunFolder.open(tmp_path / "new").status() == {}
    first.close()
    first.close()
    with RunFolder.resume(tmp_path / "new", manifest(run)):
        pass
    with pytest.raises(InputError, match="reading only"):
        first.append(next(load_run(run).records()))


def test_a_lock_left_by_a_killed_process_is_stale(run):
    code = f"""
import sys, time
from pathlib import Path
from certimed.runs.lock import FolderLock
held = FolderLock(Path({str(run)!r}))
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {child.pid} on "):
            finish(run)
        child.kill()
    assert finish(run) == []


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
    spec = class_spec(images)
    busy, half, new = tmp_path / "busy", tmp_path / "half", tmp_path / "new"
    busy.mkdir()
    (busy / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        full_run(spec, busy)
    half.mkdir()
    for name in (".lock", "run.json.part", "certificates.jsonl"):
        (half / name).touch()
    full_run(spec, half)
    full_run(spec, new)
    assert lines(half) == lines(new)
    with pytest.raises(InputError, match="not empty"):
        full_run(spec, half)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError):
            full_run(spec, path)


def certify_on_a_full_disk(images, out, pipe):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Full(Silent):
        def start(self, images, copies, where):
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    try:
        full_run(class_spec(images), out, watcher=Full())
    except InputError as error:
        pipe.send(str(error))
    else:
        pipe.send("it was never full")


def test_a_full_disk_is_one_sentence_and_leaves_whole_lines(images, tmp_path):
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=certify_on_a_full_disk, args=(images, tmp_path / "run", theirs))
    child.start()
    assert "cannot be written (File too large); what was certified before is kept" in ours.recv()
    child.join()
    content = (tmp_path / "run" / "certificates.jsonl").read_text()
    assert content.endswith("}\n")
    assert 1 <= len(content.splitlines()) < 6
    assert len(finish(tmp_path / "run")) == 6 - len(content.splitlines())


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
    class Started(Journal):
        def start(self, images, copies, where):
            if started is not None:
                started.set()

    full_run(class_spec(images), out, resume=(out / "run.json").exists(), watcher=Started(journal, delay=0.01))


def check_shot(images, tmp_path, seed):
    """Start, kill at a random moment, finish: the run is the undisturbed one, one image at most was done twice."""
    out, journal, started = tmp_path / f"run-{seed}", tmp_path / f"journal-{seed}", FORK.Event()
    child = FORK.Process(target=certify_slowly, args=(images, out, journal, started))
    child.start()
    assert started.wait(60)
    time.sleep(random.Random(seed).uniform(0, 0.4))
    child.kill()
    child.join()
    assert child.exitcode in (-signal.SIGKILL, 0)
    certify_slowly(images, out, journal)
    assert lines(out) == lines(tmp_path / "whole")
    begun = journal.read_text().splitlines()
    assert len(begun) - len(set(begun)) <= 1


def test_kill_at_random_moments_then_resume(tmp_path):
    images = write_images(tmp_path / "images", 20)
    full_run(class_spec(images), tmp_path / "whole")
    for seed in range(4):
        check_shot(images, tmp_path, seed)


@pytest.mark.slow
def test_kill_at_fifty_random_moments_then_resume(tmp_path):
    images = write_images(tmp_path / "images", 20)
    full_run(class_spec(images), tmp_path / "whole")
    for seed in range(50):
        check_shot(images, tmp_path, seed)


@pytest.mark.slow
def test_ten_thousand_images_flat_memory_and_instant_resume(tmp_path):
    import psutil

    images = write_images(tmp_path / "images", 10_000)
    process, seen = psutil.Process(), []

    class Memory(Silent):
        done = 0

        def record(self, record):
            self.done += 1
            if self.done in (500, 9_500):
                seen.append(process.memory_info().rss)

    spec = class_spec(images, budget=20)
    full_run(spec, tmp_path / "run", watcher=Memory())
    assert seen[1] - seen[0] < 20 << 20
    job = spec.load(allow_code=True)
    begin = time.perf_counter()
    assert execute(spec, tmp_path / "run", resume=True, job=job).path == tmp_path / "run"
    assert time.perf_counter() - begin <= 2.0
