"""What is seen while a run goes on: a bar that fits a terminal, and in a log a line a minute."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from certimed.cli import watching
from certimed.runs import Record


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns."""
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=80, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr(watching, "err", terminal)
    return text


def test_the_bar_fits_80_columns(screen: io.StringIO) -> None:
    name = "patient/0001.dcm"
    with watching.watcher("auto") as watch:
        watch.start(12_345, 10_100, "cuda:0 (NVIDIA H200)")
        for _ in range(3):
            watch.image(name)
            for _ in range(50):
                watch.copies(2_000)
            watch.record(Record.failed(name, "it is broken"))
        watch.bar.refresh()  # type: ignore[attr-defined]
        watch.bar.update(watch.task, rate="123,456/s")  # type: ignore[attr-defined]
        watch.bar.refresh()  # type: ignore[attr-defined]
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").splitlines()
    assert any("3 of 12345" in line and "123,456/s" in line and " left " in line for line in lines), lines
    assert all("…" not in line and len(line.rstrip()) <= 80 for line in lines), lines
    assert watch.failed == 3  # type: ignore[attr-defined]


def test_a_log_has_a_line_a_minute_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock["now"])
    with watching.watcher("plain") as watch:
        watch.start(10, 100, "the CPU (2 threads)")
        for index in range(10):
            clock["now"] += 25.0
            done: Any = Record.failed(f"{index}.png", "broken") if index == 4 else Record(f"{index}.png", "certified")
            watch.record(done)
    assert capsys.readouterr().err.splitlines() == [
        "10 images to do on the CPU (2 threads)",
        "3 of 10 images done, 0 failed, 25.00 s an image, about 0:02:55 left",
        "failed 4.png: broken",
        "6 of 10 images done, 1 failed, 25.00 s an image, about 0:01:40 left",
        "9 of 10 images done, 1 failed, 25.00 s an image, about 0:00:25 left",
        "10 of 10 images done, 1 failed, 25.00 s an image, about 0:00:00 left",
    ]


@pytest.mark.parametrize(("kind", "quiet"), [("none", False), ("bar", True)])
def test_quiet_says_failures_alone(kind: str, quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with watching.watcher(kind, quiet=quiet) as watch:
        watch.start(1, 100, "the CPU (2 threads)")
        watch.record(Record.failed("a.png", "broken"))
    assert capsys.readouterr().err == "failed a.png: broken\n"
