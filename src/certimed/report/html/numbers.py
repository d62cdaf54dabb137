"""Numbers and texts as the page shows them: bounds rounded outwards, foreign text made harmless."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

DIGITS = 3
"""Decimals of radii and scores on the page; its script rounds by the same rule."""


def down(value: float, digits: int = DIGITS) -> str:
    """A lower bound or a radius: rounded down, so that the text never claims more than the number.

    >>> down(0.1686), down(0.3)
    ('0.168', '0.300')
    """
    text = f"{value:.{digits}f}"
    return text if float(text) <= value else f"{float(text) - 10**-digits:.{digits}f}"


def up(value: float, digits: int = DIGITS) -> str:
    """An upper bound: rounded up.

    >>> up(0.1681), up(0.3)
    ('0.169', '0.300')
    """
    text = f"{value:.{digits}f}"
    return text if float(text) >= value else f"{float(text) + 10**-digits:.{digits}f}"


def percent(share: float | None, digits: int = 0) -> str:
    """An observed share; a dash where there is none. Only 0 and 1 themselves read 0 % and 100 %.

    >>> percent(0.9996), percent(1.0), percent(None)
    ('> 99 %', '100 %', '–')
    """
    if share is None or math.isnan(share):
        return "–"
    text = f"{100 * share:.{digits}f}"
    step = 10**-digits
    if share < 1 and float(text) >= 100:
        return f"> {100 - step:.{digits}f} %"
    if share > 0 and float(text) <= 0:
        return f"< {step:.{digits}f} %"
    return f"{text} %"


def score(value: float | None) -> str:
    """A Dice or IoU that is no bound, to nearest; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{DIGITS}f}"


def risk(alpha: float) -> str:
    """A failure probability in words: ``0.001`` -> ``"0.1 % (1 in 1,000)"``."""
    inverse = 1 / alpha
    whole = f" (1 in {round(inverse):,})" if abs(inverse - round(inverse)) < 1e-6 * inverse else ""
    return f"{100 * alpha:.6g} %{whole}"


def plain(value: Any, longest: int = 500) -> str:
    """Text of a manifest, an id or a reason: no control characters, no lone surrogates, bounded.

    Escaping for HTML is the template's work; this is about what escaping does not touch, direction marks included.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode()
    clean = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def embedded_json(data: Any) -> str:
    """JSON for a script element: no text in it can end the element or the line, whatever the strings hold."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
