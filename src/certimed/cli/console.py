"""What every verb shares: consoles, harmless text, and errors as one sentence with an exit code."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from certimed.errors import CertimedError

EXIT_BAD_INPUT = 2
EXIT_SOME_FAILED = 3

out = Console()
err = Console(stderr=True)

_LONGEST = 200
# Controls, format characters (bidirectional overrides among them), surrogates, private and unassigned ones, line ends.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def printable(text: str, longest: int = _LONGEST) -> str:
    """Text from a file or a file name, made harmless for a terminal: no control characters, no markup, bounded."""
    plain = "".join(" " if unicodedata.category(char) in _UNPRINTABLE else char for char in text)
    return escape(plain if len(plain) <= longest else plain[: longest - 1] + "…")


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn certimed's errors into one sentence on standard error and exit code 2."""
    try:
        yield
    except CertimedError as error:
        err.print(f"[bold red]error:[/] {printable(str(error), 1000)}", highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    except KeyboardInterrupt as error:
        err.print("stopped by the user; what was written before is kept", highlight=False)
        raise typer.Exit(130) from error


@contextmanager
def sample_progress(images: int, samples_per_image: int) -> Iterator[tuple[Progress, int]]:
    """A progress bar over samples with rate and time left; yields the bar and its task."""
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples, {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=images * samples_per_image, rate="")
        yield bar, task


@contextmanager
def image_progress(images: int) -> Iterator[Callable[[], None]]:
    """A progress bar over images with the time left; yields what moves it on by one."""
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("images", total=images)
        yield lambda: bar.advance(task)


def advance(bar: Progress, task: int, samples: int) -> None:
    """Move the bar on and refresh the rate."""
    bar.advance(task, samples)  # type: ignore[arg-type]
    speed = bar.tasks[task].speed
    bar.update(task, rate="" if speed is None else f"{speed:,.0f}/s")  # type: ignore[arg-type]
