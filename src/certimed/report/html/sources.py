"""What a page is made of: runs under names of their own, checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import InputError, MissingExtraError
from certimed.integrity import line_holds, manifest_fault
from certimed.report.html.numbers import plain
from certimed.report.series import named
from certimed.runs import RunFolder, RunSpec


@dataclass(frozen=True)
class Run:
    """One run folder under a name that no other run of the page has.

    Attributes:
        index: position in the page.
        name: the folder's name, or more of its path where two are named alike.
        spec: the request.
        class_names: as text that may be shown.
        checked: what was checked about its truth, in one sentence.
        faults: false statements found, each as text; empty if none.
    """

    index: int
    name: str
    folder: RunFolder
    spec: RunSpec
    class_names: tuple[str, ...]
    checked: str
    faults: tuple[str, ...]

    def section(self, name: str) -> dict[str, Any]:
        """A part of the manifest, or nothing where it is missing or no object."""
        found = self.folder.manifest.get(name)
        return found if isinstance(found, dict) else {}


def open_runs(paths: Sequence[str | Path], *, verify: bool = True) -> list[Run]:
    """Open run folders and check them.

    Args:
        paths: run folders.
        verify: recompute every statement, where the ``verify`` extra is installed; else the seals only.

    Raises:
        InputError: no run folder, or the same one twice.
    """
    if not paths:
        raise InputError("a report needs at least one run folder; give e.g. runs/plip")
    runs = []
    for index, (name, folder) in enumerate(named(paths).items()):
        spec = RunSpec.from_dict(folder.manifest.get("request"))
        classes = tuple(plain(one, 200) for one in folder.classes)
        runs.append(Run(index, plain(name, 120), folder, spec, classes, *_check(folder, verify)))
    return runs


def _check(folder: RunFolder, verify: bool) -> tuple[str, tuple[str, ...]]:
    if verify:
        from certimed.verification import verify as recompute

        with suppress(MissingExtraError):
            verdict = recompute(folder.path, allow_incomplete=True)
            if verdict.ok:
                said = f"All {verdict.certificates:,} certificates were recomputed from their counts and are true."
                return said, ()
            return "False statements were found.", tuple(f"{plain(a)}: {plain(b)}" for a, b in verdict.faults)
    faults = [] if (fault := manifest_fault(folder.manifest)) is None else [f"run.json: {fault}"]
    seal = str(folder.manifest.get("settings_sha256", ""))
    faults += [f"line {number}: its seal is broken" for number, line in folder.lines() if not line_holds(line, seal)]
    if faults:
        return "Broken seals were found: the run was changed after it was written.", tuple(faults[:20])
    return "All seals hold; the statements themselves were not recomputed here.", ()
