"""Work for executors: importable, so that it travels to workers; some of it is deadly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from certimed import InputError


class Square:
    """Squares numbers; writes down each start and each task; dies on request."""

    def __init__(self, journal: Path, *, die_once: int | None = None, die_always: int | None = None) -> None:
        self.journal = journal
        self.die_once = die_once
        self.die_always = die_always

    def start(self) -> Callable[[int], int]:
        self.note("start")
        return self.do

    def do(self, task: int) -> int:
        self.note(str(task))
        marker = self.journal.with_name(f"died-{task}")
        if task == self.die_always or (task == self.die_once and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task * task

    def note(self, what: str) -> None:
        with self.journal.open("a") as stream:
            stream.write(f"{os.getpid()} {what} {os.environ.get('OMP_NUM_THREADS')}\n")


class Slow(Square):
    """A task takes a while."""

    def do(self, task: int) -> int:
        time.sleep(0.05)
        return super().do(task)


class RefusesToStart:
    """A model that is not there, or that breaks."""

    def __init__(self, how: str) -> None:
        self.how = how

    def start(self) -> Callable[[int], int]:
        if self.how == "refuse":
            raise InputError("there is no model nowhere/; name another")
        if self.how == "die":
            os._exit(3)
        if self.how == "break in a task":
            return lambda task: 1 // 0
        return 1 // 0  # type: ignore[return-value]
