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
import time
from collections.abc import Callable

from certimed.assets import asset
from certimed.executors import LocalExecutor, Lost
from certimed.runs import DataSpec, RunSpec
from certimed.runs.run import Worker

Timed = tuple[int, float]
"""Process, and its processor seconds for one image."""


class TimedWorker(Worker):
    """The usual worker, measuring each image's processor time instead of giving its record."""

    def start(self) -> Callable[[str], Timed]:  # type: ignore[override]
        """Load everything; returns the function that certifies one item."""
        certify = super().start()

        def timed(item: str) -> Timed:
            begin = time.process_time()
            certify(item)
            return os.getpid(), time.process_time() - begin

        return timed


def measure(workers: int, images: int, n: int) -> tuple[float, float]:
    """Seconds an image by the clock, and median processor seconds an image."""
    spec = RunSpec("demo", DataSpec(str(asset("demo_images")), limit=images), budget=n)
    run = LocalExecutor(workers).run(TimedWorker(spec, False), spec.load().dataset.ids)
    found: list[Timed] = []
    begin = time.perf_counter()
    started = 0
    for _, one in run:
        if isinstance(one, Lost):
            raise RuntimeError(one.reason)
        found.append(one)
        # Until each worker has an image behind it: its imports, its model and its first pass are no steady state.
        if not started and len({process for process, _ in found}) == workers:
            begin, started = time.perf_counter(), len(found)
    clock = (time.perf_counter() - begin) / (len(found) - started)
    return clock, statistics.median(seconds for _, seconds in found)


def main() -> None:
    """Print medians of alternating rounds and the speed-up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("images", 33), ("n", 500), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for workers, times in found.items():
            times.append(measure(workers, options.images, options.n))
    clock, cpu = ({w: statistics.median(one[part] for one in times) for w, times in found.items()} for part in (0, 1))
    for workers in found:
        print(f"{workers} workers: {clock[workers]:.3f} s an image, {cpu[workers]:.3f} s of processor time in a worker")
    print(f"speed-up by the clock {clock[1] / clock[2]:.2f}; on two free cores {2 * cpu[1] / cpu[2]:.2f}")


if __name__ == "__main__":
    main()
