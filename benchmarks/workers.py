"""Time of a run with 1 and with 2 worker processes of one thread each.

    python -m benchmarks.workers [--images 33] [--n 500] [--rounds 3]

The clock starts when every worker has its model loaded and an image behind it, so that it measures images, not
imports. Processor time an image, measured inside the workers, tells on a busy machine what the clock cannot: where it
is the same with 1 and 2 workers, two free cores do twice the work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from certimed.assets import asset
from certimed.certificates import ClassCertificate
from certimed.cli import classify, inputs
from certimed.cli.prompting import parse_prompts
from certimed.cli.running import make_classification
from certimed.data import DEFAULT_READ, Dataset, MedicalImage
from certimed.executors import LocalExecutor
from certimed.runs import Certifier, ClassificationWork


def make_timed(prepare: dict[str, Any], settings: classify.Settings, journal: str) -> tuple[Dataset, Certifier]:
    """The usual certifier, noting each image's processor time."""
    dataset, certifier = make_classification(prepare, settings)

    def timed(image: MedicalImage) -> tuple[dict[str, int], dict[str, ClassCertificate]]:
        begin = time.process_time()
        result = certifier(image)
        with Path(journal).open("a") as stream:
            stream.write(f"{os.getpid()} {time.process_time() - begin}\n")
        return result

    return dataset, timed


def measure(workers: int, images: int, n: int) -> tuple[float, float]:
    """Seconds an image by the clock, and median processor seconds an image."""
    prepare: dict[str, Any] = {
        "model": "demo",
        "source": inputs.Source(asset("demo_images"), None, None, None, DEFAULT_READ, None),
        "templates": ["an image of {}."],
        "prompting": parse_prompts("none"),
        "limit": images,
        "seed": 0,
        "device": "cpu",
    }
    settings = classify.Settings(0.25, 100, n, 1e-3, "one-sided", 0, None)
    items = classify.prepare(**prepare).dataset.ids
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "seconds"
        work = ClassificationWork(make_timed, prepare=prepare, settings=settings, journal=str(journal))
        run = LocalExecutor(workers).run(work, items)
        # Until each worker has an image behind it: its imports, its model and its first pass are no steady state.
        while len({line.split()[0] for line in lines_of(journal)}) < workers:
            next(run)
        begin = time.perf_counter()
        rest = sum(1 for _ in run)
        clock = (time.perf_counter() - begin) / rest
        return clock, statistics.median(float(line.split()[1]) for line in lines_of(journal))


def lines_of(path: Path) -> list[str]:
    """Lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Print medians of alternating rounds and the speed-up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=33)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers, times in found.items():
            times.append(measure(workers, options.images, options.n))
    clock = {workers: statistics.median(time for time, _ in times) for workers, times in found.items()}
    cpu = {workers: statistics.median(time for _, time in times) for workers, times in found.items()}
    for workers in found:
        print(f"{workers} workers: {clock[workers]:.3f} s an image, {cpu[workers]:.3f} s of processor time in a worker")
    print(f"speed-up by the clock {clock[1] / clock[2]:.2f}; on two free cores {2 * cpu[1] / cpu[2]:.2f}")


if __name__ == "__main__":
    main()
