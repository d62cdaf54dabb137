"""Kill a demo run at random moments, resume it each time, and compare with the undisturbed run.

    python -m benchmarks.kills [--kills 50] [--images 10] [--n 300] [--seed 0]

Each trial is a run in a process of its own, forked from one that has everything imported, so that moments
fall into the run and not into imports. SIGKILL leaves no chance to tidy up. Exit code 1 if any resumed run differs, or
computed an image again that had its line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from certimed.assets import asset
from certimed.runs import DataSpec, RunSpec, execute


@dataclass(frozen=True)
class Trial:
    """One killed and resumed run.

    Attributes:
        moment: seconds after the start of the process.
        killed: False if the run had ended before.
        kept: lines that were whole when it was killed.
        equal: whether the resumed run holds the lines of the undisturbed one, and kept those it had.
        repeated: images computed again although they had their line; the one in flight has none.
    """

    moment: float
    killed: bool
    kept: int
    equal: bool
    repeated: int


def start(spec: RunSpec, folder: Path, *, resume: bool = False) -> multiprocessing.process.BaseProcess:
    """The run in a process of its own."""
    # The undisturbed and the killed process shall differ in nothing, so both are forked.
    process = multiprocessing.get_context("fork").Process(
        target=execute, args=(spec, folder), kwargs={"resume": resume}
    )
    process.start()
    return process


def finished(spec: RunSpec, folder: Path, *, resume: bool = False) -> float:
    """Run to the end; returns the seconds, RuntimeError if it fails."""
    begin = time.perf_counter()
    process = start(spec, folder, resume=resume)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run {folder} ended with {process.exitcode}")
    return time.perf_counter() - begin


def trial(spec: RunSpec, folder: Path, moment: float, wanted: list[str]) -> Trial:
    """Kill a new run at a moment and resume it."""
    process = start(spec, folder)
    time.sleep(moment)
    killed = process.is_alive()
    if killed:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    path = folder / "certificates.jsonl"
    before = whole_lines(path)
    # Killed before the manifest was there, the run is not one yet: it is started, in the same folder.
    finished(spec, folder, resume=(folder / "run.json").is_file())
    after = whole_lines(path)
    equal = sorted(after) == wanted and after[: len(before)] == before
    # One line of timing for every image that was computed to its end.
    computed = Counter(json.loads(line)["item"] for line in whole_lines(folder / "timing.jsonl"))
    repeated = sum(computed[json.loads(line)["item"]] - 1 for line in before)
    return Trial(moment, killed, len(before), equal, repeated)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that have their end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def kill_runs(kills: int, images: int, n: int, seed: int) -> list[Trial]:
    """So many trials at seeded moments, spread evenly at random over the time of the undisturbed run."""
    spec = RunSpec("demo", DataSpec(str(asset("demo_images")), limit=images), budget=n, n0=10)
    spec.load()  # everything is imported before the first fork
    draw = random.Random(seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as place:
        seconds = finished(spec, Path(place) / "whole")
        wanted = sorted(whole_lines(Path(place) / "whole" / "certificates.jsonl"))
        while sum(one.killed for one in trials) < kills:
            folder = Path(place) / f"run-{len(trials)}"
            trials.append(trial(spec, folder, draw.uniform(0, seconds), wanted))
    return trials


def main() -> int:
    """Print what came of the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("kills", 50), ("images", 10), ("n", 300), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found = [one for one in kill_runs(options.kills, options.images, options.n, options.seed) if one.killed]
    kept = sorted(one.kept for one in found)
    equal, once = sum(one.equal for one in found), sum(one.repeated == 0 for one in found)
    print(f"{len(found)} runs of {options.images} images killed at random moments, lines whole by then: {kept}")
    print(f"resumed to the lines of the undisturbed run: {equal}; none but the image in flight computed twice: {once}")
    return 0 if equal == once == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
