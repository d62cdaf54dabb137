"""Ray actors give what one process gives, one actor killed in mid-run or not."""

import os
import signal
from pathlib import Path

import pytest
import tiny_runs
from tiny_runs import Certify, full_run, lines, manifest, open_images, write_images
from tiny_work import RefusesToStart, Slow

from certimed import InputError
from certimed.executors import RayExecutor
from certimed.runs import ClassificationWork, RunFolder, certify_with

pytest.importorskip("ray", reason="ray is not installed (extra: ray)")


@pytest.fixture(scope="module")
def cluster():
    import ray

    tests = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_with_two_actors_equals_one_process(cluster, tmp_path):
    images = write_images(tmp_path / "images", 6, broken=(4,))
    whole = full_run(images, tmp_path / "whole")
    dataset = open_images(images)
    journal = tmp_path / "journal"
    work = ClassificationWork(tiny_runs.make, images=str(images), delay=0.3, journal=str(journal))
    with RunFolder.create(tmp_path / "run", manifest(dataset, Certify())) as folder:
        run = certify_with(RayExecutor(2), work, dataset, folder)
        next(run)
        # One actor dies in mid-run, with an image in flight.
        os.kill(int(journal.read_text().splitlines()[-1].split()[0]), signal.SIGKILL)
        assert len(list(run)) == 5
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert folder.digest() == whole.digest()
    computed = [line.split(" ", 1)[1] for line in journal.read_text().splitlines()]
    assert len(computed) - len(set(computed)) <= 1


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
