"""Worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from certimed.errors import InputError
from certimed.executors.driver import DIED, Event, Lost, Served, Work, drive
from certimed.threads import machine, use_threads, wished_threads

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """Fresh processes (spawned, never forked), each with the model loaded once.

    Args:
        workers: processes; default as many as have ``threads`` cores each.
        threads: threads of each worker's arithmetic; default OMP_NUM_THREADS where the user has set it, else an equal
            share of the cores that this process may use (see :mod:`certimed.threads`), one at least. Results may differ
            in rounding between thread counts, not between worker counts.
        gpus: ids of GPUs, dealt to the workers in turn; each worker sees its own only, as ``cuda``.
        retries: how often an image is tried again after its worker ended (out of memory, kill -9).

    Raises:
        InputError: a number below 1 (retries: 0).
    """

    def __init__(
        self, workers: int | None = None, *, threads: int | None = None, gpus: Sequence[str] = (), retries: int = 2
    ) -> None:
        cores, wish = machine().usable, wished_threads()
        self.workers = workers if workers is not None else max(1, cores // max(1, threads or wish or 1))
        self.threads = threads if threads is not None else wish or max(1, cores // max(1, self.workers))
        if self.workers < 1 or self.threads < 1 or retries < 0:
            raise InputError(f"workers={workers}, threads={threads}, retries={retries}: use 1, 1 and 0 or more")
        self.gpus = tuple(gpus)
        self.retries = retries

    def __repr__(self) -> str:
        return f"LocalExecutor(workers={self.workers}, threads={self.threads})"

    def run(self, work: Work[T, R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """See :class:`certimed.executors.Executor`."""
        return drive(_Processes(work, self.threads, self.gpus), tasks, self.workers, self.retries)


@dataclass(eq=False)
class _Handle:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    gpu: str | None


class _Processes:
    def __init__(self, work: Work[Any, Any], threads: int, gpus: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._work = work
        self._threads = threads
        self._gpus = list(gpus)

    def launch(self) -> _Handle:
        ours, theirs = self._context.Pipe()
        gpu = self._gpus.pop(0) if self._gpus else None
        process = self._context.Process(target=_serve, args=(theirs, self._threads, gpu), daemon=True)
        process.start()
        theirs.close()
        # The work goes through the pipe: unpickled as an argument, it would import torch before the threads are set.
        with suppress(OSError):
            ours.send(self._work)
        return _Handle(process, ours, gpu)

    def submit(self, handle: _Handle, task: Any) -> None:
        with suppress(OSError):  # a worker that has just ended is reported by wait
            handle.pipe.send(task)

    def wait(self, handles: list[_Handle]) -> tuple[_Handle, Event]:
        found = connection.wait([thing for one in handles for thing in (one.pipe, one.process.sentinel)])
        handle = next(one for one in handles if one.pipe in found or one.process.sentinel in found)
        try:
            # What a worker said before it ended still counts.
            if handle.pipe.poll():
                return handle, handle.pipe.recv()
        except (EOFError, OSError):
            pass
        handle.process.join()
        code = handle.process.exitcode or 0
        return handle, Event(DIED, f"signal {-code}" if code < 0 else f"exit code {code}")

    def stop(self, handle: _Handle) -> None:
        handle.process.kill()
        handle.process.join()
        handle.pipe.close()
        if handle.gpu is not None:
            self._gpus.append(handle.gpu)


def _serve(pipe: Connection, threads: int, gpu: str | None) -> None:
    # Ctrl-C reaches the whole process group; the driver decides what becomes of workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_threads(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with suppress(EOFError, OSError):  # the driver has gone: so does the worker
        served: Served[Any, Any] = Served(pipe.recv())
        pipe.send(served.start())
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        while True:
            pipe.send(served.do(pipe.recv()))
