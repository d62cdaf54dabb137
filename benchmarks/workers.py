"""Time of a run with 1 and with 2 worker processes of one thread each: ``python -m benchmarks.workers``.

The clock starts with each worker's model loaded (the first result), so that it measures images, not imports.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from certimed.assets import asset
from certimed.cli import classify, inputs
from certimed.cli.prompting import parse_prompts
from certimed.cli.running import make_classification
from certimed.data import DEFAULT_READ
from certimed.executors import LocalExecutor
from certimed.runs import ClassificationWork

IMAGES, COPIES, ROUNDS = 33, 500, 3


def seconds(workers: int) -> float:
    """Seconds an image, from the first result to the last."""
    prepare: dict[str, Any] = {
        "model": "demo",
        "source": inputs.Source(asset("demo_images"), None, None, None, DEFAULT_READ, None),
        "templates": ["an image of {}."],
        "prompting": parse_prompts("none"),
        "limit": IMAGES,
        "seed": 0,
        "device": "cpu",
    }
    settings = classify.Settings(0.25, 100, COPIES, 1e-3, "one-sided", 0, None)
    job = classify.prepare(**prepare)
    items = job.dataset.ids
    work = ClassificationWork(make_classification, prepare=prepare, settings=settings)
    run = LocalExecutor(workers).run(work, items)
    for _ in range(workers):
        next(run)
    begin = time.perf_counter()
    rest = sum(1 for _ in run)
    return (time.perf_counter() - begin) / rest


def main() -> None:
    """Print the median of alternating rounds and the speed-up."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers, found in times.items():
            found.append(seconds(workers))
    one, two = (statistics.median(times[workers]) for workers in (1, 2))
    print(f"1 worker: {one:.3f} s an image; 2 workers: {two:.3f} s an image; speed-up {one / two:.2f}")


if __name__ == "__main__":
    main()
