"""The command line as tests call it: every test of a verb goes through :func:`call`."""

from __future__ import annotations

import unicodedata
from typing import Any

from click.testing import Result
from tiny_models import SIZE  # noqa: F401 - imported before any run so that python:tiny_models is there
from typer.testing import CliRunner

from certimed.cli.app import app

CLASSIFIER = ("--model", "python:tiny_models:classifier", "--allow-code")
SEGMENTER = ("--model", "python:tiny_models:segmenter", "--allow-code")


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, result: Result) -> None:
        self.out, self.err, self.code = result.stdout, result.stderr, result.exit_code
        self.error = result.exception

    @property
    def text(self) -> str:
        """Everything, in one line."""
        return " ".join((self.out + self.err).split())


def call(*words: Any, code: int | None = 0, **environment: str) -> Said:
    """Run a command; any other exit code than ``code`` (None: any), or a traceback, fails the test."""
    result = CliRunner().invoke(app, [str(word) for word in words], env=environment)
    said = Said(result)
    if not isinstance(result.exception, SystemExit | None):
        raise AssertionError(f"{words} raised {result.exception!r}") from result.exception
    assert code is None or said.code == code, f"{words} ended with {said.code}: {said.out}{said.err}"
    assert "Traceback" not in said.text
    return said


def refused(*words: Any) -> str:
    """The one sentence with which a command refuses."""
    said = call(*words, code=2)
    lines = [line for line in said.err.splitlines() if line]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: "), said.err
    assert said.out == ""
    return lines[0].removeprefix("error: ")


def classes(images: Any, out: Any, *more: Any, code: int | None = 0) -> Said:
    """``certify classes`` by the tiny classifier."""
    few = () if {"--n", "--budget", "--protocol"} & set(more) else ("--n", 50)
    return call("certify", "classes", *CLASSIFIER, "--data", images, *few, "--out", out, *more, code=code)


def masks(scans: Any, out: Any, *more: Any, code: int | None = 0) -> Said:
    """``certify masks`` by the tiny segmenter."""
    return call("certify", "masks", *SEGMENTER, "--data", scans, "--out", out, *more, code=code)


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it: no control character but line ends, nothing that turns the order of text."""
    return all(char == "\n" or unicodedata.category(char)[0] != "C" for char in text) and "\u2028" not in text
