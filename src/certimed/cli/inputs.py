"""Turning what a person typed into checked values; every refusal says what to type instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import typer

from certimed.certificates import MODEL_INPUT, NATIVE
from certimed.cli.console import EXIT_SOME_FAILED
from certimed.data import ReadOptions
from certimed.engine.throughput import AUTO
from certimed.errors import InputError

T = TypeVar("T")


def needed(option: str, value: T | None, example: str) -> T:
    """The value of an option that has no default."""
    if value is None:
        raise InputError(f"{option} is missing; add it, e.g. {option} {example}")
    return value


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """A value from a fixed list."""
    if value not in allowed:
        raise InputError(f"{option} {value} is unknown; use one of {', '.join(allowed)}")
    return value


def space(text: str) -> str:
    """``--space input`` or ``--space native``, in the words of certificates."""
    return {"input": MODEL_INPUT, "native": NATIVE}[one_of("--space", text, ("input", "native"))]


def batch_size(text: str | None) -> int | str | None:
    """``--batch-size N`` or ``--batch-size auto``."""
    if text is None or text == AUTO:
        return text
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"--batch-size {text} is no number of images; use 1 or more, or {AUTO}")
    return int(text)


def read_options(*, window: str | None, frame: int, axis: str, slice_: int | None) -> ReadOptions:
    """How image files are read."""
    chosen = None if window is None else centre_width(window)
    return ReadOptions(window=chosen, frame=frame, axis=axis, slice=slice_)


def centre_width(text: str) -> tuple[float, float]:
    """``CENTER,WIDTH``."""
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--window {text} is not CENTER,WIDTH; write e.g. --window 40,400") from error
    return center, width


def class_entries(text: str | None) -> list[str] | None:
    """Entries of ``--classes``: a text file with one a line, or names separated by commas."""
    if text is None:
        return None
    path = Path(text)
    if "," not in text and path.is_file():
        try:
            entries = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--classes {path} cannot be read as text: {error}") from error
    else:
        entries = text.split(",")
    entries = [entry.strip() for entry in entries if entry.strip()]
    if len(entries) < 2:
        raise InputError(
            f"--classes {text} names {len(entries)} class; give two or more, e.g. --classes 'covid,normal'"
        )
    return entries


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text} is no list of numbers; write e.g. {option} 0.1,0.25,0.5") from error
    return values


def new_file(option: str, path: Path) -> Path:
    """A path that can be written and does not exist yet."""
    if path.exists():
        raise InputError(f"{option} {path} exists; choose another name, nothing was overwritten")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first")
    return path


def size(option: str, text: str | None) -> tuple[int, int] | None:
    """``HEIGHTxWIDTH``, or None."""
    found = sides(option, text)
    if found is None:
        return None
    if len(found) != 2:
        raise InputError(f"{option} {text} is not HEIGHTxWIDTH; write e.g. {option} 512x512")
    return found[0], found[1]


def sides(option: str, text: str | None) -> tuple[int, ...] | None:
    """``HEIGHTxWIDTH``, or three sides of volumes; None stays None."""
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (2, 3):
        raise InputError(f"{option} {text} is not HEIGHTxWIDTH; write e.g. {option} 512x512")
    if min(found) < 1:
        raise InputError(f"{option} {text} has an empty side; write e.g. {option} 512x512")
    return found


def exit_for_failures(failed: int) -> None:
    """Exit with code 3 if any image failed."""
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
