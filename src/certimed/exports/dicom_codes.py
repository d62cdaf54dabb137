"""Coded terms of DICOM objects: what a file of the user's says, else private codes of scheme 99CERTIMED."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.errors import InputError, require
from certimed.integrity import strict_json

SCHEME = "99CERTIMED"
ANATOMY = ("123037004", "SCT", "Anatomical Structure")
SPATIAL = ("309825002", "SCT", "Spatial and Relational Concept")
_TERMS = {"classes": ("category", "type"), "abstained": ("category", "type"), "measurements": ("name", "site")}

Term = tuple[str, str, str]


@dataclass(frozen=True)
class Codes:
    """Terms by what they are of; see :func:`read_codes`."""

    classes: Mapping[str, Mapping[str, Term]] = field(default_factory=dict)
    abstained: Mapping[str, Term] = field(default_factory=dict)
    measurements: Mapping[str, Mapping[str, Term]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hex SHA-256; objects with other terms are other objects."""
        parts = [self.classes, self.abstained, self.measurements]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_codes(path: Path | None, classes: Sequence[str]) -> Codes:
    """Read a file of coded terms.

    The file is a JSON object with any of ``classes`` (by the class's name: ``category`` and ``type``), ``abstained``
    (the same two) and ``measurements`` (by the measurement's name: ``name`` and ``site``), each term written as
    ``[code, scheme, meaning]``.

    Raises:
        InputError: it cannot be read, or names a class or a term that does not exist.
    """
    if path is None:
        return Codes()
    try:
        data = strict_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the codes {path} cannot be read: {error}") from error
    if not isinstance(data, dict) or not set(data) <= set(_TERMS):
        raise InputError(f"{path} must be a JSON object with any of {', '.join(_TERMS)}")
    unknown = sorted(set(data.get("classes", {})) - set(classes))
    if unknown:
        raise InputError(f"{path} has codes of the class {unknown[0]!r:.60}, and the run has {', '.join(classes)}")
    return Codes(
        {name: _terms(path, one, "classes") for name, one in dict(data.get("classes", {})).items()},
        _terms(path, data.get("abstained", {}), "abstained"),
        {name: _terms(path, one, "measurements") for name, one in dict(data.get("measurements", {})).items()},
    )


def _terms(path: Path, data: Any, what: str) -> dict[str, Term]:
    known = _TERMS[what]
    if not isinstance(data, dict) or not set(data) <= set(known):
        raise InputError(f"{path}: the codes of {what} are {' and '.join(known)}, each [code, scheme, meaning]")
    for name, term in data.items():
        if not (isinstance(term, list) and len(term) == 3 and all(isinstance(one, str) and one for one in term)):
            raise InputError(f"{path}: {name} must be [code, scheme, meaning], three texts, and is {term!r:.80}")
    return {name: (code, scheme, tidy(meaning)) for name, (code, scheme, meaning) in data.items()}


def concept(term: Term) -> Any:
    """A highdicom CodedConcept."""
    return require("highdicom", "medical").sr.CodedConcept(*term)


def private(meaning: str) -> Term:
    """A code of certimed's own, the same for the same meaning everywhere."""
    return hashlib.sha256(meaning.encode(errors="backslashreplace")).hexdigest()[:12], SCHEME, tidy(meaning)


def tidy(text: str, longest: int = 64) -> str:
    """Text that DICOM's short strings hold: no control characters, no backslash (which separates values)."""
    clean = "".join(" " if char == "\\" or not char.isprintable() else char for char in text)
    return clean.encode(errors="backslashreplace").decode().replace("\\", " ").strip()[:longest] or "-"


def unit(text: str) -> Term:
    """The UCUM code of a measurement's unit; of what is no unit of UCUM an annotation of the number 1."""
    known = {
        "ml": "milliliter",
        "mm": "millimeter",
        "cm2": "square centimeter",
        "": "no units",
        "of [0, 1]": "no units",
    }
    if text in known:
        return text if known[text] != "no units" else "1", "UCUM", known[text]
    named = "".join(char for char in text if char.isascii() and char.isalnum())[:14]
    return f"{{{named}}}", "UCUM", tidy(text)
