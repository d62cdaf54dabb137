"""Every format that a run can be written in: one row each, and the one way to write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from certimed.certificates import IntervalCertificate, MaskCertificate
from certimed.errors import InputError
from certimed.exports import nifti, png, tables
from certimed.exports.dicom_pm import write_pm
from certimed.exports.dicom_seg import write_seg
from certimed.exports.dicom_sr import write_sr
from certimed.exports.each import of_each, one_by_one
from certimed.exports.options import Exported, ExportOptions
from certimed.runs import RunFolder

_WHERE = ("method", "items", "data", "masks", "labels", "split")
_DICOM = (*_WHERE, "codes", "anonymise")


@dataclass(frozen=True)
class Format:
    """A row of :data:`FORMATS`.

    Attributes:
        what: what it is, in a few words.
        write: the run, where to, what was asked for.
        options: names of :class:`ExportOptions` that it takes.
        ending: of its file; of formats that fill a folder none.
    """

    what: str
    write: Callable[[RunFolder, Path, ExportOptions], Exported]
    options: tuple[str, ...] = ()
    ending: str | None = None


def _table(write: Callable[[RunFolder, Path], int]) -> Callable[[RunFolder, Path, ExportOptions], Exported]:
    return lambda folder, out, options: Exported([out], write(folder, out))


def _cohen(folder: RunFolder, out: Path, options: ExportOptions) -> Exported:
    return Exported([out], tables.write_cohen(folder, out, options.method))


FORMATS: dict[str, Format] = {
    "csv": Format("a table", _table(tables.write_csv), ending=".csv"),
    "parquet": Format("a table", _table(tables.write_parquet), ending=".parquet"),
    "cohen": Format("the log of Cohen et al.", _cohen, ("method",), ".tsv"),
    "png": Format("layers of 2-D masks", of_each((MaskCertificate,), one_by_one(png.write_layers)), _WHERE),
    "nifti": Format(
        "layers of masks, where the source lies", of_each((MaskCertificate,), one_by_one(nifti.write_layers)), _WHERE
    ),
    "dicom-seg": Format("segments of certified pixels", of_each((MaskCertificate,), write_seg, together=True), _DICOM),
    "dicom-pm": Format("radius maps", of_each((MaskCertificate,), write_pm, together=True), _DICOM),
    "dicom-sr": Format("certified measurements", of_each((IntervalCertificate,), one_by_one(write_sr)), _DICOM),
}
"""Formats by name."""


def export(
    folder: RunFolder, out: str | Path, kind: str | None = None, options: ExportOptions | None = None
) -> Exported:
    """Write a run for other programs.

    Args:
        folder: the run.
        out: a file, or for formats of single images a folder.
        kind: a name of :data:`FORMATS`; default: by the ending of ``out``.
        options: what the format can be asked for.

    Returns:
        what was written.

    Raises:
        InputError: an unknown format, an option that is not the format's, a run without what the format holds, or a
            place that cannot be written.
        MissingExtraError: the libraries of the format are not installed.
    """
    target, asked = Path(out), options or ExportOptions()
    by_ending = {one.ending: name for name, one in FORMATS.items() if one.ending}
    name = by_ending.get(target.suffix.lower()) if kind is None else kind
    if name is None:
        raise InputError(f"{target} ends in none of {', '.join(by_ending)}; say which it is: {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise InputError(f"the format {name!r:.40} is unknown; use one of {', '.join(FORMATS)}")
    row, nothing = FORMATS[name], ExportOptions()
    for one in fields(asked):
        if getattr(asked, one.name) != getattr(nothing, one.name) and one.name not in row.options:
            those = ", ".join(known for known, other in FORMATS.items() if one.name in other.options)
            raise InputError(f"{one.name} is of the formats {those}, and not of {name}")
    if row.ending is None and target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, and {name} fills a folder; name one")
    return row.write(folder, target, asked)
