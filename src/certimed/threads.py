"""Threads and memory for the machine one has: set before PyTorch is loaded, chosen by what is free, never over a wish.

OpenMP's threads spin while they wait for each other, and beside other busy processes burn the time slices that the
thread they wait for would need. A short spin costs nothing on an idle machine. And glibc hands the memory of large
tensors back to the kernel, which has to clear pages again for the next ones; kept, they serve again. Figures:
``python -m benchmarks.contention``.

Standard library only, as it runs before anything else.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPIN = "10000"
"""Rounds of a waiting thread's loop before it sleeps (GOMP_SPINCOUNT); libgomp's default is 300 000."""

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # either is a wish: libgomp lets the first one win
_MEMORY = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_KEEP_ALL = 2**31 - 1
_CROWDED = 1.5  # load a core from which a run takes visibly longer

_ours: set[str] = set()  # variables that hold our choice, not the user's


@dataclass(frozen=True)
class Machine:
    """What this process may use, and what else runs.

    Attributes:
        cores: that this process may run on (affinity).
        quota: processor time a second that its control group may use, in cores; None: no limit.
        load: processes that ran or waited to run over the last minute, this one's children included; None where the
            system does not say.
        total: cores of the machine, which ``load`` is spread over.
    """

    cores: int
    quota: float | None
    load: float | None
    total: int

    @property
    def usable(self) -> int:
        """Cores' worth of processor time: affinity and quota, at least 1."""
        return max(1, min(self.cores, math.floor(self.quota) if self.quota is not None else self.cores))

    @property
    def crowded(self) -> bool:
        """Whether others compete for the cores."""
        return self.load is not None and self.load >= _CROWDED * self.total

    def describe(self) -> str:
        """In words, e.g. ``"2 cores, load 0.4"``."""
        words = [f"{self.cores} core{'s' * (self.cores > 1)}"]
        words += [f"a quota of {self.quota:g}"] if self.quota is not None and self.quota < self.cores else []
        words += [f"load {self.load:.1f}"] if self.load is not None else []
        return ", ".join(words)


@dataclass(frozen=True)
class ThreadPolicy:
    """What was chosen; as text a sentence.

    Attributes:
        threads: of PyTorch's arithmetic in this process.
        machine: what it was chosen by.
        wished: the variable of the user's that decided instead, or None.
        waiting: whether waiting threads spin shortly: set here, or by the user's own variables; False where PyTorch was
            loaded before and its threads spin on.
        memory: whether freed memory is kept for the next tensors.
    """

    threads: int
    machine: Machine
    wished: str | None
    waiting: bool
    memory: bool

    def __str__(self) -> str:
        why = f"{self.wished} is set" if self.wished else self.machine.describe()
        words = [f"{self.threads} thread{'s' * (self.threads > 1)} ({why})"]
        if not self.waiting and self.threads > 1:
            words.append("PyTorch was loaded before they were set up, so they spin while they wait")
        return "; ".join(words)


def machine() -> Machine:
    """Look at this machine now."""
    total = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        load = None
    return Machine(cores, cgroup_quota(), load, total)


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The smallest processor quota of this process's control groups, in cores; None without one (both versions)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        # A container often sees its own group as the root, whatever the path says: so every level is looked at.
        levels = [Path(*Path(path).parts[1:i]) for i in range(1, len(Path(path).parts) + 1)]
        for level in (base / one for one in levels):
            found += [_quota(level / "cpu.max")] if not controllers else [_quota_of_old(level)]
    limits = [one for one in found if one is not None]
    return min(limits) if limits else None


def _quota(file: Path) -> float | None:
    try:
        allowed, period = file.read_text().split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_of_old(folder: Path) -> float | None:
    try:
        allowed, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return allowed / period if allowed > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def wished_threads(environ: Mapping[str, str] | None = None) -> int | None:
    """The user's own OMP_NUM_THREADS (of a list the first), or None; what :func:`use_threads` set is no wish."""
    text = (os.environ if environ is None else environ).get(COUNTS[0], "").split(",")[0].strip()
    return int(text) if COUNTS[0] not in _ours and text.isdigit() and int(text) > 0 else None


def use_threads(threads: int | None = None) -> ThreadPolicy:
    """Set up threads and memory of this process; call it before PyTorch is imported.

    The command line and its workers do so by themselves. In a program of your own::

        import certimed

        print(certimed.use_threads())
        import torch

    Sets, each only where the user has not: ``OMP_NUM_THREADS`` and its kin to the cores this process may use (affinity,
    control group's quota), ``GOMP_SPINCOUNT`` to a short spin, and glibc's allocator to keep freed memory. A crowded
    machine changes none of it: shared cores serve several threads that sleep while they wait better than one.

    Args:
        threads: as many instead, whatever the environment says (a worker's share).

    Returns:
        what was chosen, a sentence when printed. Where PyTorch is loaded already, its number of threads is set, and
        ``waiting`` says that they spin all the same.
    """
    here, wish = machine(), wished_threads()
    count = threads if threads is not None else wish if wish is not None else here.usable
    for name in COUNTS:
        if threads is not None or name in _ours or name not in os.environ:
            os.environ[name] = str(count)
            _ours.add(name)
    torch = sys.modules.get("torch")
    if torch is None:
        os.environ.update(waiting())
    elif threads is not None or wish is None:
        torch.set_num_threads(count)
    wished = COUNTS[0] if threads is None and wish is not None else None
    return ThreadPolicy(count, here, wished, any(name in os.environ for name in _WAITING), keep_memory())


def waiting() -> dict[str, str]:
    """The variable that makes waiting threads sleep soon; none where the user has chosen."""
    return {} if any(name in os.environ for name in _WAITING) else {"GOMP_SPINCOUNT": SPIN}


def keep_memory() -> bool:
    """Let glibc keep freed memory for the next tensors; whether it does now.

    Left alone where the user has set its variables or preloads another allocator, and where there is no glibc. Peak
    memory grows by what fragments: see docs/scale.md.
    """
    if any(name in os.environ for name in _MEMORY) or os.environ.get("LD_PRELOAD") or sys.platform != "linux":
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL))


def check() -> tuple[str, ...]:
    """What about threads will make a run here slower than it could be: sentences, none where nothing will."""
    here, wish, found = machine(), wished_threads(), []
    if wish is not None and wish > here.usable:
        found.append(
            f"{COUNTS[0]}={wish} asks for more threads than this process has cores ({here.usable}); they will wait for "
            f"each other, so set it to {here.usable} or leave it out"
        )
    if "torch" in sys.modules and waiting():
        found.append(
            "PyTorch was loaded before certimed.use_threads(), so that its threads spin while they wait, which is slow "
            "on a busy machine; call it first, or set GOMP_SPINCOUNT=10000"
        )
    if here.crowded and here.load is not None:
        found.append(
            f"this machine is busy (load {here.load:.1f} on {here.total} cores), so a run takes about "
            f"{1 + here.load / here.total:.1f} times as long as on an idle one"
        )
    return tuple(found)
