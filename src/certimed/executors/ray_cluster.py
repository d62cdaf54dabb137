"""Workers on a Ray cluster, or on a Ray started on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from certimed.errors import InputError, require
from certimed.executors.driver import DIED, Event, Lost, Served, Work, drive
from certimed.threads import COUNTS, waiting

T = TypeVar("T")
R = TypeVar("R")


class RayExecutor:
    """One Ray actor a worker, the model loaded once in each; images are their tasks, one at a time.

    Every node needs certimed, the model and the data under the same paths. Needs the ``ray`` extra.

    Args:
        workers: actors.
        address: ``"auto"`` for the cluster this machine belongs to, a ``host:port``, or None for a Ray of its own.
        threads: processor cores (and threads of arithmetic) of each actor.
        gpus_per_worker: GPUs of each actor; 1 on a machine with several GPUs gives one actor each.
        retries: how often an image is tried again, on a new actor, after its actor or node was lost.

    Raises:
        InputError: a number below 1 (gpus_per_worker, retries: 0). MissingExtraError: ray is not installed.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        address: str | None = None,
        threads: int = 1,
        gpus_per_worker: float = 0,
        retries: int = 2,
    ) -> None:
        if workers < 1 or threads < 1 or gpus_per_worker < 0 or retries < 0:
            raise InputError(
                f"workers={workers}, threads={threads}, gpus_per_worker={gpus_per_worker}, retries={retries}: use "
                "1, 1, 0 and 0 or more"
            )
        self._ray = require("ray", "ray")
        self.workers = workers
        self.address = address
        self.threads = threads
        self.gpus_per_worker = gpus_per_worker
        self.retries = retries

    def __repr__(self) -> str:
        return f"RayExecutor(workers={self.workers}, address={self.address!r})"

    def run(self, work: Work[T, R], tasks: Iterable[T]) -> Iterator[tuple[T, R | Lost]]:
        """See :class:`certimed.executors.Executor`.

        Raises:
            InputError: there is no cluster at the address.
        """
        if not self._ray.is_initialized():
            try:
                self._ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise InputError(
                    f"there is no Ray cluster at {self.address} ({error}); start one with: ray start --head"
                ) from error
        backend = _Actors(self._ray, work, self.threads, self.gpus_per_worker)
        return drive(backend, tasks, self.workers, self.retries)


@dataclass(eq=False)
class _Handle:
    actor: Any
    pending: Any


class _Actors:
    def __init__(self, ray: Any, work: Work[Any, Any], threads: int, gpus: float) -> None:
        self._ray = ray
        # Restarts are the driver's: a replaced actor is a new one, so no task is ever run behind the driver's back.
        self._actor = ray.remote(
            num_cpus=threads,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": {**dict.fromkeys(COUNTS, str(threads)), **waiting()}},
        )(Served)
        self._work = ray.put(work)

    def launch(self) -> _Handle:
        actor = self._actor.remote(self._work)
        return _Handle(actor, actor.start.remote())

    def submit(self, handle: _Handle, task: Any) -> None:
        handle.pending = handle.actor.do.remote(task)

    def wait(self, handles: list[_Handle]) -> tuple[_Handle, Event]:
        waiting = {handle.pending: handle for handle in handles if handle.pending is not None}
        (done, *_), _ = self._ray.wait(list(waiting), num_returns=1)
        handle = waiting[done]
        handle.pending = None
        try:
            return handle, self._ray.get(done)
        except self._ray.exceptions.RayError as error:
            return handle, Event(DIED, f"{type(error).__name__} in Ray")

    def stop(self, handle: _Handle) -> None:
        self._ray.kill(handle.actor, no_restart=True)
