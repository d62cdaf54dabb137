"""Sections of a document that are made by a program stand between two markers; the rest is written by hand."""

from __future__ import annotations

from pathlib import Path

from certimed.errors import InputError


def replace_section(path: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name: begin -->`` and ``<!-- name: end -->``, or at the end where there are none.

    Raises:
        InputError: one marker without the other.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text}\n{end}"
    before = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    if (begin in before) != (end in before):
        raise InputError(f"{path} has only one of the markers {begin} and {end}; restore the other")
    if begin in before:
        head, _, rest = before.partition(begin)
        after = head + section + rest.partition(end)[2]
    else:
        after = f"{before.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(after, encoding="utf-8")
