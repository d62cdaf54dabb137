"""Timing two or more sides in turn, in one process, so that what else the machine does falls on all of them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch


class Times(NamedTuple):
    """One run of one side: seconds on the clock, and seconds of processor time, which other processes disturb less."""

    wall: float
    processor: float

    @property
    def seconds(self) -> float:
        """As :func:`stopwatch` counts."""
        return self.processor if torch.get_num_threads() == 1 else self.wall


def stopwatch() -> float:
    """Seconds, for differences: of processor time with one thread, else on the clock.

    With one thread both are the same on an idle machine; on a busy one processor time is the steadier.
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(work: Callable[[], object]) -> Times:
    """One call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall, time.process_time() - processor)


def alternate(sides: Mapping[str, Callable[[], object]], repeats: int, *, warm: bool = True) -> dict[str, list[Times]]:
    """Times of each side, run in turn after one run to warm up."""
    times: dict[str, list[Times]] = {name: [] for name in sides}
    if warm:
        for work in sides.values():
            work()
    for _ in range(repeats):
        for name, work in sides.items():
            times[name].append(timed(work))
    return times


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest, and the values themselves, as JSON."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": list(values)}


def seconds(times: Sequence[Times]) -> dict[str, Any]:
    """:func:`spread` of seconds, and the median on the clock beside it."""
    return {**spread([run.seconds for run in times]), "clock": statistics.median(run.wall for run in times)}


def ratios(over: Sequence[Times], under: Sequence[Times]) -> dict[str, Any]:
    """:func:`spread` of the ratios of adjacent runs."""
    return spread([a.seconds / b.seconds for a, b in zip(over, under, strict=True)])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()],
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
