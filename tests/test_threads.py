"""Threads, waiting and memory: chosen by what is free, set before PyTorch is loaded, never over the user's own wish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from certimed import threads
from certimed.threads import SPIN, Machine, ThreadPolicy, cgroup_quota, check, machine, wished_threads

OWN = (*threads.COUNTS, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")


def python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if name not in OWN}
    return subprocess.run(
        [sys.executable, "-c", code], env={**bare, **environ}, capture_output=True, text=True, check=True
    )


SAY = (
    "import json, os, certimed; p = certimed.use_threads(); import torch\n"
    "print(json.dumps([dict(os.environ), torch.get_num_threads(), str(p)]))"
)


def said(**environ: str) -> tuple[dict[str, str], int, str]:
    return tuple(json.loads(python(SAY, **environ).stdout))  # type: ignore[return-value]


def test_torch_gets_the_usable_cores_and_a_short_spin() -> None:
    environ, count, sentence = said()
    assert count == machine().usable and environ["GOMP_SPINCOUNT"] == SPIN
    assert {environ[name] for name in threads.COUNTS} == {str(count)}
    assert sentence.startswith(f"{count} thread") and "spin" not in sentence


def libgomp_says(code: str, **environ: str) -> str:
    import torch

    if not list((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        pytest.skip("this PyTorch does not bring GNU's OpenMP")
    return python(code, OMP_DISPLAY_ENV="VERBOSE", **environ).stderr


def test_the_library_that_waits_has_read_it() -> None:
    assert f"GOMP_SPINCOUNT = '{SPIN}'" in libgomp_says("import certimed; certimed.use_threads(); import torch")
    late = libgomp_says(
        "import torch, certimed; p = certimed.use_threads(2); assert not p.waiting; assert 'spin' in str(p)"
    )
    assert f"GOMP_SPINCOUNT = '{SPIN}'" not in late


def test_the_command_line_sets_it_up_before_torch_is_loaded() -> None:
    code = (
        "import sys; from certimed.cli.app import main; sys.argv = ['certimed', 'plan', '--sigma', '0.5']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nimport torch"
    )
    assert f"GOMP_SPINCOUNT = '{SPIN}'" in libgomp_says(code)
    assert "GOMP_SPINCOUNT = '77'" in libgomp_says(code, GOMP_SPINCOUNT="77")


@pytest.mark.parametrize(
    "wish",
    [{"GOMP_SPINCOUNT": "5", "MKL_NUM_THREADS": "1"}, {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "1"}],
)
def test_no_wish_of_the_user_is_overridden(wish: dict[str, str]) -> None:
    environ, count, sentence = said(**wish)
    assert {name: environ[name] for name in wish} == wish
    if "OMP_NUM_THREADS" in wish:
        assert count == 1 and "OMP_NUM_THREADS is set" in sentence
        assert "GOMP_SPINCOUNT" not in environ


def test_what_was_set_here_is_no_wish_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import certimed; from certimed.threads import wished_threads; from certimed.executors import LocalExecutor\n"
        "certimed.use_threads(); e = LocalExecutor(); print(wished_threads(), e.workers, e.threads)"
    )
    assert python(code).stdout.split() == ["None", str(machine().usable), "1"]  # not a machine full of threads each
    assert python(code, OMP_NUM_THREADS="1").stdout.split()[0] == "1"
    assert wished_threads({"OMP_NUM_THREADS": "4,2"}) in (4, None if "OMP_NUM_THREADS" in threads._ours else 4)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_memory_is_kept_for_the_next_tensors() -> None:
    code = (
        "import certimed, resource, sys\nkept = sys.argv[0] == '-c' and {}\n"
        "p = certimed.use_threads() if kept else None\nimport torch\n"
        "def work():\n    for _ in range(30):\n        torch.ones(10_000_000)\n"
        "work(); a = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; work()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - a, p and p.memory)"
    )
    faults, kept = python(code.replace("{}", "True")).stdout.split()
    usual, _ = python(code.replace("{}", "False")).stdout.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert int(faults) < 1_000
    assert int(usual) > 30_000
    for name, value in (("MALLOC_MMAP_MAX_", "9"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=9")):
        assert python("import certimed; print(certimed.use_threads().memory)", **{name: value}).stdout == "False\n"


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({}, "0::/\n", None),
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1.5),
        ({"cpu.max": "400000 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "nonsense"}, "0::/gone\n", None),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/\n",
            2.0,
        ),
        ({"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, "3:memory:/y\n4:cpu:/x\n", None),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, files: dict[str, str], own: str, quota: float | None) -> None:
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    assert cgroup_quota(tmp_path / "root", tmp_path / "own") == quota
    assert cgroup_quota(tmp_path / "root", tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("here", "usable", "crowded", "words"),
    [
        (Machine(2, None, 0.4, 2), 2, False, "2 cores, load 0.4"),
        (Machine(8, 1.5, 0.0, 8), 1, False, "8 cores, a quota of 1.5, load 0.0"),
        (Machine(8, 0.2, 20.0, 8), 1, True, "8 cores, a quota of 0.2, load 20.0"),
        (Machine(1, 4.0, None, 64), 1, False, "1 core"),
    ],
)
def test_what_a_machine_offers(here: Machine, usable: int, crowded: bool, words: str) -> None:
    assert (here.usable, here.crowded, here.describe()) == (usable, crowded, words)


def test_sentences() -> None:
    here = Machine(2, None, 0.5, 2)
    assert str(ThreadPolicy(2, here, None, True, True)) == "2 threads (2 cores, load 0.5)"
    assert str(ThreadPolicy(1, here, "OMP_NUM_THREADS", False, True)) == "1 thread (OMP_NUM_THREADS is set)"


def test_what_slows_a_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "machine", lambda: Machine(2, None, 7.0, 2))
    monkeypatch.setattr(threads, "_ours", set())
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", sys)
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    many, spinning, busy = check()
    assert "OMP_NUM_THREADS=9" in many and "certimed.use_threads()" in spinning and "4.5 times" in busy
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(threads, "machine", lambda: Machine(2, None, 1.0, 2))
    assert check() == ()


def test_the_command_starts_at_once() -> None:
    """Setting up costs milliseconds."""
    code = (
        "import time; import certimed; b = time.perf_counter(); certimed.use_threads(); print(time.perf_counter() - b)"
    )
    assert min(float(python(code).stdout) for _ in range(3)) < 0.1
