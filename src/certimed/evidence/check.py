"""``check_pack``: a pack against its digests, its signature, its runs, and against what its runs say."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from certimed import __version__
from certimed.errors import CertimedError, InputError
from certimed.evidence.pack import FURTHER, RUNS, documents, read_subjects
from certimed.verification import PackVerdict, verify_pack
from certimed.verification.packs import MANIFEST, SIGNATURE


@dataclass(frozen=True)
class PackReview:
    """What :func:`check_pack` found.

    Attributes:
        verdict: by :func:`certimed.verification.verify_pack`, with the faults of the documents.
        compared: documents that were made again from the runs and are equal.
        other_version: the version that wrote the pack, where it is another one, so that no document was compared.
    """

    verdict: PackVerdict
    compared: int
    other_version: str | None


def check_pack(path: str | Path, *, key: str | Path | None = None, expect: str | None = None) -> PackReview:
    """Check an evidence pack, see :func:`certimed.verification.verify_pack`; then make its documents again.

    Statement, test report, requests and attack tables follow from the runs in the pack, so they are made again and
    compared byte by byte, where this version wrote them. The PDF and the interactive page are covered by their
    digests alone.

    Raises:
        InputError: there is no pack. MissingExtraError: an extra that is needed is not installed.
    """
    verdict = verify_pack(path, key=key, expect=expect)
    folder = Path(path)
    if not verdict.ok:
        return PackReview(verdict, 0, None)
    stated = json.loads((folder / "statement.json").read_text(encoding="utf-8"))
    if stated.get("certimed") != __version__:
        return PackReview(verdict, 0, str(stated.get("certimed")))
    try:
        subjects = read_subjects(folder)
        if {one.name for one in subjects} != set(verdict.verdicts):
            raise InputError("it holds other runs than the statement names")
        made = documents(subjects, verdict.verdicts)
    except CertimedError as error:
        return PackReview(replace(verdict, faults=(("runs", str(error)),)), 0, None)
    faults = [
        (name, "it is not what the runs in this pack say")
        for name, data in made.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data
    ]
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    usual = {*made, *FURTHER, MANIFEST, SIGNATURE}
    strange = sorted(name for name in present - usual if not name.startswith(f"{RUNS}/"))
    faults += [(name, "no pack of this version has such a file") for name in strange]
    return PackReview(replace(verdict, faults=tuple(faults)), len(made) - len(faults), None)
