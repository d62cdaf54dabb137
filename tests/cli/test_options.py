"""Run options: contradictions are refused, resume needs no other option, code is run on consent only."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tiny_runs import Certify, full_run, lines, manifest, open_images, write_images

from certimed import InputError
from certimed.cli.running import Running, recorded_arguments
from certimed.executors import LocalExecutor
from certimed.runs import certify_dataset
from certimed.usercode import load_user_model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either --out NEW_FOLDER"),
        ({"out": "a", "resume": "b"}, "either --out NEW_FOLDER"),
        ({"out": "a", "retry_failed": True}, "add --resume RUN"),
        ({"out": "a", "executor": "slurm"}, "--executor slurm is unknown"),
        ({"out": "a", "address": "auto"}, "add --executor ray"),
        ({"out": "a", "shard": "5/4"}, "shard 5/4 does not exist"),
        ({"out": "a", "shard": "half"}, "is not I/N"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Running(**options).checked()


def test_crews():
    assert Running(out="a").crew() is None
    crew = Running(out="a", workers=3).crew()
    assert isinstance(crew, LocalExecutor)
    assert crew.workers == 3


def test_a_shard_is_created_and_resumed_without_naming_it_again(tmp_path):
    images = write_images(tmp_path / "images", 6)
    whole = full_run(images, tmp_path / "whole")
    dataset, certify = open_images(images), Certify()

    def describe(data):
        return {**manifest(dataset, certify), "data": data}

    folder, part = Running(out=tmp_path / "part", shard="2/3").open(dataset, describe)
    run = certify_dataset(part, certify, folder)
    next(run)
    folder.close()
    again, part = Running(resume=tmp_path / "part").checked().open(dataset, describe)
    with again:
        assert len(part) == 2
        assert len(list(certify_dataset(part, certify, again))) == 1
    assert set(lines(tmp_path / "part")) < set(lines(whole.path))
    with pytest.raises(InputError, match="holds shard 2/3"):
        Running(resume=tmp_path / "part", shard="1/3").open(dataset, describe)


def test_resume_takes_the_options_of_the_run_but_not_its_place_nor_consent(tmp_path):
    run = full_run(write_images(tmp_path / "images", 2), tmp_path / "run")
    given = ["certify", "--model", "demo", "--out", "runs/x", "--workers=4", "--n", "10", "--retry-failed"]
    for arguments, expected in (
        ([*given, "--allow-code"], ["--model", "demo", "--n", "10"]),
        ([*given, "--resume", "runs/x", "--sigma=0.5"], ["--model", "demo", "--n", "10", "--sigma=0.5"]),
    ):
        (run.path / "run.json").write_text(json.dumps({**run.manifest, "arguments": arguments}))
        assert recorded_arguments(run.path) == expected
    for arguments in (["demo"], [], None, "certify"):
        (run.path / "run.json").write_text(json.dumps({**run.manifest, "arguments": arguments}))
        with pytest.raises(InputError, match="was not started by"):
            recorded_arguments(run.path)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "certimed_test_model.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "value = 3\n"
        "def build():\n    return lambda x: x\n"
        "def nothing():\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("certimed_test_model", None)


def test_code_runs_with_consent_only(own_module):
    with pytest.raises(InputError, match="add --allow-code if you trust it"):
        load_user_model("python:certimed_test_model:build", allow_code=False)
    assert not (own_module / "ran").exists()
    made = load_user_model("python:certimed_test_model:build", allow_code=True)
    assert made.model(5) == 5
    assert len(made.source_sha256) == 64


@pytest.mark.parametrize(
    "spec",
    [
        "python:certimed_test_model:nothing",
        "python:certimed_test_model:value",
        "python:certimed_test_model:missing",
        "python:no_such_module_here:build",
        "python:os.system('true'):build",
        "python:../evil:build",
        "python::",
        "python:certimed_test_model:build\n",
    ],
)
def test_code_that_cannot_be_a_model_is_one_sentence(own_module, spec):
    with pytest.raises(InputError):
        load_user_model(spec, allow_code=True)


def test_sigterm_is_a_sentence_and_code_143(tmp_path):
    code = "\n".join(
        [
            "import signal, time",
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored",
            "from certimed.cli.stopping import orderly_stop",
            "with orderly_stop():",
            "    print('ready', flush=True)",
            "    time.sleep(60)",
        ]
    )
    for number, exit_code, words in ((signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGINT, 130, "by the user")):
        with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.05)
            os.kill(child.pid, number)
            _, said = child.communicate()
        assert child.returncode == exit_code
        assert words in said
        assert "--resume RUN" in said
        assert "Traceback" not in said
