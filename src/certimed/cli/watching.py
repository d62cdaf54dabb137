"""What a person sees while a run goes on: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from certimed.cli.console import err, harmless, tell
from certimed.errors import InputError

if TYPE_CHECKING:
    from certimed.prompts import TuningProgress
    from certimed.runs import Record, Watcher

KINDS = ("auto", "bar", "plain", "none")
_EVERY = 60.0  # seconds between lines in a log
_NAME = 18  # characters of an image's name, so that the line fits 80 columns


@contextmanager
def watcher(kind: str, *, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher by its name; ``"auto"``: a bar where standard error is a terminal, else lines."""
    if kind not in KINDS:
        raise InputError(f"--progress {kind} is unknown; use one of {', '.join(KINDS)}")
    chosen = ("bar" if err.is_terminal else "plain") if kind == "auto" else kind
    if quiet or chosen == "none":
        yield _Quiet()
    elif chosen == "plain":
        yield _Lines()
    else:
        with _bar() as bar:
            yield _Bar(bar)


class _Quiet:
    """Says nothing but failures and notes."""

    failed = 0

    def start(self, images: int, copies: int, where: str) -> None:
        """See :class:`certimed.runs.Watcher`."""

    def image(self, item: str) -> None:
        """See :class:`certimed.runs.Watcher`."""

    def copies(self, done: int) -> None:
        """See :class:`certimed.runs.Watcher`."""

    def record(self, record: Record) -> None:
        """See :class:`certimed.runs.Watcher`."""
        if record.reason is not None:
            self.failed += 1
            tell(Text("failed", "red"), f" {harmless(record.item)}: {harmless(record.reason, 1000)}")

    def note(self, sentence: str) -> None:
        """See :class:`certimed.runs.Watcher`."""
        tell(harmless(sentence, 1000))


class _Lines(_Quiet):
    """A line a minute, and one at the end: images done, failures, rate, time left."""

    def start(self, images: int, copies: int, where: str) -> None:
        """See :class:`certimed.runs.Watcher`."""
        tell(f"{images} image{'s' * (images != 1)} to do on {where}")
        self.images, self.done, self.begin = images, 0, time.monotonic()
        self.said = self.begin

    def record(self, record: Record) -> None:
        """See :class:`certimed.runs.Watcher`."""
        super().record(record)
        self.done += 1
        now = time.monotonic()
        if now - self.said >= _EVERY or self.done == self.images:
            self.said = now
            pace = (now - self.begin) / self.done
            left = int(pace * (self.images - self.done))
            tell(
                f"{self.done} of {self.images} images done, {self.failed} failed, {pace:.2f} s an image, about "
                f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
            )


class _Bar(_Quiet):
    """A bar over noisy copies (over images, where workers draw them)."""

    def __init__(self, bar: Progress) -> None:
        self.bar, self.spent = bar, 0

    def start(self, images: int, copies: int, where: str) -> None:
        """See :class:`certimed.runs.Watcher`."""
        tell(f"{images} image{'s' * (images != 1)} to do on {where}")
        self.most = copies
        self.images, self.done = images, 0
        self.task = self.bar.add_task("starting", total=images * copies, rate="", images=f"0 of {images}")

    def image(self, item: str) -> None:
        """See :class:`certimed.runs.Watcher`."""
        self.bar.update(self.task, description=harmless(item, _NAME))

    def copies(self, done: int) -> None:
        """See :class:`certimed.runs.Watcher`."""
        self.spent += done
        self.bar.advance(self.task, done)
        speed = self.bar.tasks[self.task].speed
        self.bar.update(self.task, rate="" if speed is None else f"{speed:,.0f}/s")

    def record(self, record: Record) -> None:
        """See :class:`certimed.runs.Watcher`."""
        super().record(record)
        self.bar.advance(self.task, self.most - self.spent)
        self.spent, self.done = 0, self.done + 1
        self.bar.update(self.task, images=f"{self.done} of {self.images}")


@contextmanager
def tuning_line() -> Iterator[Callable[[TuningProgress], None]]:
    """A line that shows how tuning gets on: the stage, the loss and the noisy accuracy; gone afterwards."""
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", visible=False)

        def show(state: TuningProgress) -> None:
            text = f"{state.stage} {state.done}/{state.total}"
            if state.loss is not None and state.accuracy is not None:
                text += f", loss {state.loss:.3f}, noisy accuracy {100 * state.accuracy:.0f} %"
            for sigma, share in (state.held_out or {}).items():
                text += f", held out at {sigma:g}: {100 * share:.0f} %"
            bar.update(task, description=text, visible=True)

        yield show


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[images]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, transient=True)
