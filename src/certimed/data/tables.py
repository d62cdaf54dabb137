"""CSV tables of labels: one row an image."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from certimed.data.files import stand_in
from certimed.errors import InputError

_IMAGE = ("filename", "file", "file_name", "image", "image_path", "path", "filepath", "image_id")
_LABEL = ("label", "class", "class_name", "category", "target")
# Names that are used when asked for: they are as often something else.
_LIKE_IMAGE = ("id", "name", "image_name", "img", "fname", "isic_id", "image_index", "study", "slide", "dicom", "uid")
_LIKE_LABEL = (
    "diagnosis",
    "dx",
    "finding",
    "finding_labels",
    "ground_truth",
    "gt",
    "y",
    "grade",
    "labels",
    "class_id",
    "pathology",
)
_GROUP = ("group", "patient", "patient_id", "sequence")
_SPLIT = ("split", "set", "subset")


@dataclass(frozen=True)
class Columns:
    """Names of the image and the label column of a table; None: the first of the known names that it has."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Row:
    """One labelled image of a table: its line in the file (the header is line 1) and its cells."""

    line: int
    file: str
    label: str
    group: str | None


def read_table(path: Path, *, split: str | None, columns: Columns) -> list[Row]:
    """Read a CSV of labels (comma, semicolon or tab; UTF-8).

    It needs a header with one image column (``filename``, ``file``, ``image``, ``path``, ...) and one label column
    (``label``, ``class``, ``category``, ``target``, ...), or those that ``columns`` names; ``group``, ``patient`` or
    ``sequence`` and ``split`` are used when present.

    Raises:
        InputError: unreadable, no such columns, a row with an empty or impossible cell (its line is named), the same
            image twice, or no row of the wanted split.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the labels table {path} cannot be read as UTF-8 text: {error}") from None
    if words := stand_in(text[:200].encode()):
        raise InputError(f"the labels table {path} cannot be read: {words}")
    lines = text.splitlines()
    if not lines:
        raise InputError(f"the labels table {path} is empty")
    delimiter = max(",;\t", key=lines[0].count)
    reader = csv.DictReader(lines, delimiter=delimiter)
    header = {name.strip().casefold(): name for name in reader.fieldnames or [] if name}
    chosen: dict[str, str | None] = {
        "image": _column(header, columns.image, _IMAGE, _LIKE_IMAGE, path, "image"),
        "label": _column(header, columns.label, _LABEL, _LIKE_LABEL, path, "label"),
        "group": next((header[name] for name in _GROUP if name in header), None),
        "split": next((header[name] for name in _SPLIT if name in header), None),
    }
    if split is not None and chosen["split"] is None:
        raise InputError(f"split={split!r} was asked for and the labels table {path} has no column split")
    return _rows(reader, chosen, path, split)


def _rows(reader: csv.DictReader[str], columns: dict[str, str | None], path: Path, split: str | None) -> list[Row]:
    rows: list[Row] = []
    lines: dict[str, int] = {}
    splits: set[str] = set()
    try:
        for cells in reader:
            line = reader.line_num
            cell = {key: (cells.get(column) or "").strip() if column else "" for key, column in columns.items()}
            splits.add(cell["split"])
            if split is not None and cell["split"].casefold() != split.casefold():
                continue
            for key in ("image", "label"):
                if not cell[key]:
                    raise InputError(f"line {line} of the labels table {path} has no {key}")
            file = cell["image"].replace("\\", "/")
            parts = PurePosixPath(file)
            if parts.is_absolute() or ".." in parts.parts:
                raise InputError(f"line {line} of the labels table {path} names {file}, which lies outside the folder")
            file = parts.as_posix()
            if file in lines:
                raise InputError(f"line {line} of the labels table {path} repeats {file} of line {lines[file]}")
            lines[file] = line
            rows.append(Row(line, file, cell["label"], cell["group"] or None))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of the labels table {path} is broken: {error}") from None
    if not rows:
        found = f" (it has {', '.join(sorted(splits))})" if split is not None and splits else ""
        raise InputError(f"the labels table {path} has no row{f' of split {split!r}' if split else ''}{found}")
    return rows


def _column(
    header: dict[str, str], asked: str | None, known: tuple[str, ...], like: tuple[str, ...], path: Path, what: str
) -> str:
    for name in known if asked is None else (asked.strip().casefold(),):
        if name in header:
            return header[name]
    has = ", ".join(header.values()) or "empty"
    if asked is not None:
        raise InputError(f"the labels table {path} has no column {asked}: its header is {has}")
    spelled = {re.sub(r"[\s\-]+", "_", name): column for name, column in header.items()}
    guess = next((spelled[name] for name in like if name in spelled), None)
    raise InputError(
        f"the labels table {path} has no {what} column: its header is {has} and one of {', '.join(known)} is needed; "
        + (f"if it is {guess}, say so" if guess else "name another")
        + f" with {what}_column={guess or '...'!r} (--{what}-column {guess or 'NAME'})"
    )
