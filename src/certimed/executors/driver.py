"""The scheduling every executor shares: one task in flight a worker, and a lost worker costs that task only."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from certimed import errors

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

READY, DONE, ERROR, DIED = "ready", "done", "error", "died"
_KINDS = {kind.__name__: kind for kind in (errors.InputError, errors.ModelError, errors.MissingExtraError)}


class Work(Protocol[T_contra, R_co]):
    """What workers do. It travels to them, so it holds plain values; heavy things are loaded by :meth:`start`."""

    def start(self) -> Callable[[T_contra], R_co]:
        """Called once in every worker: load what is needed, return the function that does one task."""


@dataclass(frozen=True)
class Lost:
    """A task whose worker ended before it did, every time it was tried; ``reason`` is a sentence."""

    reason: str


class Executor(Protocol):
    """Something that spreads tasks over workers."""

    def run(self, work: Work[T, R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """Do all tasks; yields each task with its result, in the order of completion.

        No worker gets a task before its last result was taken, so a slow consumer holds the workers back.

        Raises:
            CertimedError: the work refused its input (as it would have here). RuntimeError: the work has a bug, or
                workers end while starting.
        """


@dataclass(frozen=True)
class Event:
    """News of one worker: ``READY``, ``DONE`` (payload: result), ``ERROR`` (payload: kind and text) or ``DIED``
    (payload: how)."""

    kind: str
    payload: Any = None


@dataclass(eq=False)
class Worker(Generic[T]):
    """One worker as its driver sees it; ``handle`` belongs to the backend."""

    handle: Any
    ready: bool = False
    tasks: list[T] = field(default_factory=list)  # the task in flight, or none


class Backend(Protocol):
    """How one kind of executor starts, feeds, hears and ends its workers."""

    def launch(self) -> Any:
        """Start a worker, which will report ``READY``."""

    def submit(self, handle: Any, task: Any) -> None:
        """Give a ready worker a task."""

    def wait(self, handles: list[Any]) -> tuple[Any, Event]:
        """The next news."""

    def stop(self, handle: Any) -> None:
        """End a worker, whatever it is doing."""


def drive(backend: Backend, tasks: Iterable[T], workers: int, retries: int) -> Iterator[tuple[T, Any]]:
    """Run the tasks over ``workers`` workers of a backend; see :meth:`Executor.run`.

    Args:
        backend: the kind of worker.
        tasks: taken one by one as workers become free; each must be hashable.
        workers: how many at a time.
        retries: how often a task is tried again after its worker ended.
    """
    waiting: deque[T] = deque(tasks)
    attempts: dict[T, int] = {}
    failed_starts = 0
    crew = [Worker[T](backend.launch()) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(worker.tasks for worker in crew):
            handle, event = backend.wait([worker.handle for worker in crew])
            worker = next(one for one in crew if one.handle is handle)
            if event.kind == ERROR:
                raise _rebuilt(*event.payload)
            if event.kind == DIED:
                crew.remove(worker)
                backend.stop(handle)
                if not worker.ready:
                    failed_starts += 1
                    if failed_starts > retries:
                        raise RuntimeError(f"workers end while they start: {event.payload}")
                for task in worker.tasks:
                    attempts[task] = attempts.get(task, 0) + 1
                    if attempts[task] > retries:
                        yield task, Lost(f"its worker ended {attempts[task]} times ({event.payload})")
                    else:
                        waiting.appendleft(task)
                if len(crew) < len(waiting) + sum(bool(one.tasks) for one in crew):
                    crew.append(Worker(backend.launch()))
                continue
            worker.ready = True
            if event.kind == DONE:
                yield worker.tasks.pop(), event.payload
            if waiting:
                worker.tasks.append(waiting.popleft())
                backend.submit(handle, worker.tasks[0])
    finally:
        for worker in crew:
            backend.stop(worker.handle)


class Served(Generic[T, R]):
    """The worker's side: start the work, then do tasks; nothing is raised, everything is reported."""

    def __init__(self, work: Work[T, R]) -> None:
        self._work = work
        self._do: Callable[[T], R] | None = None

    def start(self) -> Event:
        """``READY`` or ``ERROR``."""
        try:
            self._do = self._work.start()
        except Exception as error:
            return _reported(error)
        return Event(READY)

    def do(self, task: T) -> Event:
        """``DONE`` or ``ERROR``."""
        assert self._do is not None
        try:
            return Event(DONE, self._do(task))
        except Exception as error:
            return _reported(error)


def _reported(error: Exception) -> Event:
    for name, kind in _KINDS.items():
        if isinstance(error, kind):
            return Event(ERROR, (name, str(error)))
    return Event(ERROR, ("", "".join(traceback.format_exception(error))))


def _rebuilt(kind: str, text: str) -> Exception:
    return _KINDS[kind](text) if kind in _KINDS else RuntimeError(f"a worker failed unexpectedly:\n{text}")
