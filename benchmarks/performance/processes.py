"""Sections measured in processes of their own: peak memory of every budget, and the other toolbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.performance.engines import EXACT, fastest
from benchmarks.performance.replay import ALPHA
from benchmarks.performance.settings import Scale
from benchmarks.timing import spread
from certimed.errors import InputError

ROOT = Path(__file__).parents[2]
SIGMA = 0.25
KINDS = ("fixed:{n}", "looks:{first},{n}", "grid@{n}", "betting:0.25@{n}", "planned:5%@{n}")
ART, SAME_N, DEFAULT = "ART", "certimed, same fixed n", "certimed, default budget"
LOW_PRECISION = "certimed, default budget, bfloat16"
FAST = "certimed, default budget, OpenVINO"
SAME_N_FAST = "certimed, same fixed n, OpenVINO float32"
DEMO_CLASSES = 11
ART_VERSION = "1.20.1"
ART_INSTALL = (
    f"python -m venv art && art/bin/pip install adversarial-robustness-toolbox=={ART_VERSION} statsmodels -e '.[all]'"
)


def probe(task: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """Run one task of :mod:`benchmarks.performance.probe` and read its line.

    Raises:
        InputError: the task failed; the message ends with its last line.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [python, "-m", "benchmarks.performance.probe", json.dumps(task)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise InputError(f"the task {task} failed under {python}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def memory(scale: Scale) -> dict[str, Any]:
    """Memory beyond what the process held before, for every budget at growing n."""
    found: dict[str, Any] = {}
    for spelling in KINDS:
        tasks = [{"kind": "budget", "budget": spelling.format(n=n, first=n // 2)} for n in scale.memory_n]
        found[spelling.partition(":")[0].partition("@")[0]] = _by_n(scale.memory_n, tasks)
    sizes = [max(100, n // 10) for n in scale.memory_n]
    found["pixels"] = _by_n(sizes, [{"kind": "mask", "budget": f"pixels:{n // 2},{n}"} for n in sizes])
    kept = sizes[:2]
    found["published segmentation loop"] = _by_n(kept, [{"kind": "published mask", "n": n} for n in kept])
    return {"budgets": found}


def _by_n(sizes: Any, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        str(n): {key: value for key, value in probe(task).items() if key != "seconds"} for n, task in zip(sizes, tasks)
    }


def art(scale: Scale, python: str | None) -> dict[str, Any]:
    """Images of the demo: adversarial-robustness-toolbox and this package, in turn, each in a process of its own.

    A fixed n costs the same on every image, so one image a round will do; under the default budget the cost depends on
    the image, so a round takes the mean over one image of every class.
    """
    if python is None:
        return {"missing": ART_INSTALL}
    common = {"sigma": SIGMA, "n0": scale.n0, "n": scale.n, "alpha": ALPHA}
    sides: dict[str, dict[str, Any]] = {
        ART: {"kind": "art", "images": 1, **common},
        SAME_N: {"kind": "certimed", "images": 1, "budget": f"fixed:{scale.n}", **common},
        DEFAULT: {"kind": "certimed", "images": DEMO_CLASSES, "budget": f"grid@{scale.n}", **common},
    }
    sides[LOW_PRECISION] = {**sides[DEFAULT], "precision": "bfloat16"}
    sides[SAME_N_FAST] = {**sides[SAME_N], "engine": EXACT.engine}
    best = fastest()
    sides[FAST] = {**sides[DEFAULT], "precision": best.precision, "engine": best.engine}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(scale.repeats):
        for name, task in sides.items():
            runs[name].append(probe(task, python))
    return {
        "n": scale.n,
        "n0": scale.n0,
        "sigma": SIGMA,
        "seconds": {name: spread([run["seconds"] / len(run["result"]) for run in done]) for name, done in runs.items()},
        "bytes": {name: spread([run["bytes"] for run in done]) for name, done in runs.items()},
        "results": {name: done[0]["result"] for name, done in runs.items()},
    }
