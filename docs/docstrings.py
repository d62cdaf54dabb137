"""Docstrings as Markdown: they are written for a terminal, with roles (``:class:`X```), doctests and ``::`` blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|mod|data|meth|attr):`~?([^`]*)`")
DOCTEST = re.compile(r"(?m)^>>> (?:.+\n?)+")


def as_markdown(text: str) -> str:
    """The same text with roles as code, doctests fenced, and ``::`` as a colon."""
    text = ROLE.sub(r"`\1`", text)
    text = DOCTEST.sub(lambda block: f"\n```pycon\n{block[0].rstrip()}\n```\n", text)
    return re.sub(r"(?m)::$", ":", text)


class Markdown(griffe.Extension):
    """Griffe calls this for each object it finds."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
