"""What an export is asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ExportOptions:
    """What some formats can be asked for; :data:`certimed.exports.formats.FORMATS` says which takes which.

    Attributes:
        method: certificates of this method only.
        items: ids of the images to write; empty for all.
        data, masks, labels, split: where the images are now, as for :class:`certimed.runs.images.Images`.
        codes: a JSON file of coded terms, see :mod:`certimed.exports.dicom_codes`.
        anonymise: leave out what the source's header says of the patient and the study.
    """

    method: str | None = None
    items: tuple[str, ...] = ()
    data: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    split: str | None = None
    codes: Path | None = None
    anonymise: bool = False


@dataclass
class Exported:
    """What was written.

    Attributes:
        files: in the order written.
        rows: of a table; None for other formats.
        notes: what a person should know, e.g. images that were left out, each in a sentence.
    """

    files: list[Path] = field(default_factory=list)
    rows: int | None = None
    notes: list[str] = field(default_factory=list)
