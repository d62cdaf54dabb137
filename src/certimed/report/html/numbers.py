"""Numbers and texts as the page shows them: bounds rounded outwards, foreign text made harmless."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from certimed.certificates import shown
from certimed.report.tables import DASH, per_cent

DIGITS = 3
"""Decimals of radii and scores on the page; its script rounds by the same rule."""


def down(value: float, digits: int = DIGITS) -> str:
    """A lower bound or a radius, rounded down.

    >>> down(0.1686), down(0.3)
    ('0.168', '0.300')
    """
    return shown(value, "lower", places=digits)


def up(value: float, digits: int = DIGITS) -> str:
    """An upper bound, rounded up.

    >>> up(0.1681), up(0.3)
    ('0.169', '0.300')
    """
    return shown(value, "upper", places=digits)


def percent(share: float | None, digits: int = 0, side: Any = "nearest") -> str:
    """A share with its sign, see :func:`certimed.report.tables.per_cent`.

    >>> percent(0.9996), percent(1.0), percent(None)
    ('> 99 %', '100 %', '-')
    """
    text = per_cent(share, digits, side)
    return text if text == DASH else f"{text} %"


def risk(alpha: float) -> str:
    """A failure probability, rounded up: ``0.001`` -> ``"0.1 % (1 in 1,000)"``."""
    inverse = 1 / alpha
    whole = f" (1 in {round(inverse):,})" if abs(inverse - round(inverse)) < 1e-6 * inverse else ""
    return f"{shown(alpha, 'upper', digits=6, scale=100)} %{whole}"


def plain(value: Any, longest: int = 500) -> str:
    """Text of a manifest, an id or a reason: no control characters, no lone surrogates, bounded.

    Escaping for HTML is the template's work; this is about what escaping does not touch, direction marks included.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode()
    clean = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def plain_lines(text: str) -> str:
    """Text of several lines, each as :func:`plain` makes it."""
    return "\n".join(plain(line, 2000) for line in text.splitlines())


def embedded_json(data: Any) -> str:
    """JSON for a script element: no text in it can end the element or the line, whatever the strings hold."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
