"""Ray actors give what one process gives, one actor killed in mid-run or not."""

import os
import signal
from pathlib import Path

import pytest
from tiny_runs import class_spec, full_run, write_images
from tiny_work import RefusesToStart, Slow

from certimed import InputError
from certimed.executors import RayExecutor
from certimed.runs import Silent

pytest.importorskip("ray", reason="ray is not installed (extra: ray)")


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("ray") / "journal"


@pytest.fixture(scope="module")
def cluster(journal):
    import ray

    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path, "TINY_JOURNAL": str(journal)}},
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_with_two_actors_equals_one_process(cluster, journal, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_JOURNAL", str(journal))
    images = write_images(tmp_path / "images", 6, broken=(4,))
    whole = full_run(class_spec(images), tmp_path / "whole")

    class Killer(Silent):
        """One actor dies in mid-run, with an image in flight."""

        done = 0

        def record(self, record):
            self.done += 1
            if self.done == 1:
                os.kill(int(journal.read_text().splitlines()[-1]), signal.SIGKILL)

    slow = class_spec(images, model="python:tiny_models:slow")
    run = full_run(slow, tmp_path / "run", executor=RayExecutor(2), watcher=Killer())
    assert counts(run) == counts(whole)
    assert len(set(journal.read_text().splitlines())) >= 3  # this process, two actors, and the one that came after


def counts(run):
    return {
        record.item: record.certificates["plain"].counts if record.certificates else record.reason
        for record in run.records()
    }


@pytest.mark.slow
def test_actors_that_die_are_replaced(cluster, tmp_path):
    journal = tmp_path / "journal"
    found = dict(RayExecutor(2).run(Slow(journal, die_once=3), range(6)))
    assert found == {task: task * task for task in range(6)}
    assert sum(" start " in line for line in journal.read_text().splitlines()) >= 2


@pytest.mark.slow
def test_errors_come_back_as_they_are(cluster):
    with pytest.raises(InputError, match="there is no model nowhere"):
        list(RayExecutor(1).run(RefusesToStart("refuse"), [1]))


def test_impossible_crews_are_refused():
    with pytest.raises(InputError):
        RayExecutor(0)
