"""Worker processes give what one process gives, and a lost worker costs its image's time, nothing else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_work import RefusesToStart, Slow, Square

from certimed import InputError
from certimed.executors import LocalExecutor, Lost
from certimed.executors.driver import DIED, DONE, READY, Event, drive
from certimed.threads import Machine


def entries(journal):
    return [line.split() for line in journal.read_text().splitlines()]


def test_tasks_are_spread_and_each_worker_starts_once(tmp_path):
    journal = tmp_path / "journal"
    found = dict(LocalExecutor(2).run(Slow(journal), range(12)))
    assert found == {task: task * task for task in range(12)}
    noted = entries(journal)
    assert sum(what == "start" for _, what, _ in noted) == 2
    assert sorted(int(what) for _, what, _ in noted if what != "start") == list(range(12))
    assert {threads for _, _, threads in noted} == {"1"}


def test_a_killed_worker_costs_its_task_only(tmp_path):
    journal = tmp_path / "journal"
    found = dict(LocalExecutor(2).run(Slow(journal, die_once=3), range(8)))
    assert found == {task: task * task for task in range(8)}
    done = [what for _, what, _ in entries(journal) if what != "start"]
    assert sorted(done) == sorted([*map(str, range(8)), "3"])


def test_a_task_that_always_kills_is_given_up_and_the_others_are_done(tmp_path):
    found = dict(LocalExecutor(1, retries=1).run(Square(tmp_path / "journal", die_always=1), range(3)))
    assert found[0] == 0
    assert found[2] == 4
    assert found[1] == Lost("its worker ended 2 times (signal 9)")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("refuse", InputError, "there is no model nowhere/; name another"),
        ("break", RuntimeError, "ZeroDivisionError"),
        ("break in a task", RuntimeError, "ZeroDivisionError"),
        ("die", RuntimeError, "workers end while they start: exit code 3"),
    ],
)
def test_work_that_cannot_start_is_an_error_here(how, error, message):
    with pytest.raises(error, match=message):
        list(LocalExecutor(1, retries=0).run(RefusesToStart(how), [1, 2]))


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1, "threads": 0}, {"workers": 1, "retries": -1}])
def test_impossible_crews_are_refused(options):
    with pytest.raises(InputError):
        LocalExecutor(**options)


class Script:
    """A backend that follows a script: which tasks end their worker; checks that nobody gets two tasks at once."""

    def __init__(self, deadly, late_start_deaths=0):
        self.deadly = dict(deadly)
        self.start_deaths = late_start_deaths
        self.alive = []
        self.launched = 0

    def launch(self):
        self.launched += 1
        handle = {"news": Event(DIED, "start") if self.start_deaths else Event(READY)}
        self.start_deaths = max(0, self.start_deaths - 1)
        self.alive.append(handle)
        return handle

    def submit(self, handle, task):
        assert handle["news"] is None
        if self.deadly.get(task, 0):
            self.deadly[task] -= 1
            handle["news"] = Event(DIED, "signal 9")
        else:
            handle["news"] = Event(DONE, -task)

    def wait(self, handles):
        handle = next(one for one in handles if one["news"] is not None)
        news, handle["news"] = handle["news"], None
        return handle, news

    def stop(self, handle):
        self.alive.remove(handle)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("deadly", [{}, {3: 1}, {0: 2, 7: 2}, {task: 2 for task in range(8)}])
def test_the_driver_finishes_everything_whoever_dies(workers, deadly):
    backend = Script(deadly)
    found = dict(drive(backend, range(8), workers, retries=2))
    assert found == {task: -task for task in range(8)}
    assert backend.alive == []


def test_the_driver_gives_up_hopeless_tasks_and_hopeless_starts():
    assert [r for _, r in drive(Script({1: 9}), range(3), 2, retries=2) if isinstance(r, Lost)] == [
        Lost("its worker ended 3 times (signal 9)")
    ]
    with pytest.raises(RuntimeError, match="while they start"):
        list(drive(Script({}, late_start_deaths=9), range(3), 2, retries=2))
    assert dict(drive(Script({}, late_start_deaths=2), range(3), 2, retries=2)) == {0: 0, 1: -1, 2: -2}


def test_leaving_early_ends_the_workers(tmp_path):
    backend = Script({})
    run = drive(backend, range(8), 3, retries=0)
    next(run)
    run.close()
    assert backend.alive == []


def test_workers_do_not_outlive_a_killed_driver(tmp_path):
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[1])!r}]
from pathlib import Path
from tiny_work import Slow
from certimed.executors import LocalExecutor
if __name__ == "__main__":
    for task, result in LocalExecutor(1).run(Slow(Path({str(tmp_path / "journal")!r})), range(1000)):
        print(task, flush=True)
"""
    script = tmp_path / "driver.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "0\n"
        child.kill()
    worker = int(entries(tmp_path / "journal")[0][0])
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{worker}/stat")
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # ended; nobody has asked for its exit code
        time.sleep(0.1)
    pytest.fail("the worker is still alive")


@pytest.mark.parametrize(
    ("workers", "threads", "variable", "expected"),
    [
        (None, None, None, (8, 1)),
        (2, None, None, (2, 4)),
        (3, None, None, (3, 2)),
        (16, None, None, (16, 1)),
        (2, 3, "5", (2, 3)),
        (2, None, "5", (2, 5)),
        (None, None, "4", (2, 4)),
        (2, None, "lots", (2, 4)),
    ],
)
def test_workers_share_the_cores_unless_told_otherwise(monkeypatch, workers, threads, variable, expected):
    monkeypatch.setattr("certimed.executors.local.machine", lambda: Machine(8, None, 0.0, 8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    executor = LocalExecutor(workers, threads=threads)
    assert (executor.workers, executor.threads) == expected
