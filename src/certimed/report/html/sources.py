"""What a page is made of: runs with names of their own, and their images where those can still be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from certimed.data import Dataset, MedicalImage
from certimed.errors import CertimedError, ImageError, InputError, MissingExtraError
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


@dataclass
class Pictures:
    """The images of a run, found again by their ids.

    Attributes:
        note: why there are no pictures, or what is not sure about them; None where all is well.
    """

    note: str | None = None
    _dataset: Dataset | None = None
    _places: dict[str, int] = field(default_factory=dict)

    def load(self, item: str) -> MedicalImage | None:
        """One image, or None where it cannot be read."""
        if self._dataset is None or item not in self._places:
            return None
        with suppress(ImageError, MissingExtraError):
            return self._dataset.load(self._places[item])
        return None


def find_pictures(run: Run, items: Iterable[str], **where: str | Path | None) -> Pictures:
    """Open the images of a run: from where it read them, or from where they are now.

    Only files that the data set's own reader lists are ever opened; a run's ids choose among them and are no paths.

    Args:
        run: the run.
        items: ids of its images.
        where: fields of :class:`certimed.runs.DataSpec` that have changed: ``path``, ``labels``, ``masks``, ``split``.
            With a ``path`` the others are no longer the recorded ones.
    """
    wanted, spec = set(items), run.spec.data
    if moved := where.get("path"):
        rest = {name: where.get(name) for name in ("labels", "masks", "split")}
        given = {name: None if value is None else str(value) for name, value in rest.items()}
        tried = [replace(spec, path=str(moved), **given)]  # type: ignore[arg-type]
    else:
        source = run.section("data").get("source")
        tried = [spec, *([replace(spec, path=source)] if isinstance(source, str) else [])]
    reason = ""
    for one in tried:
        try:
            dataset = one.open()
        except (CertimedError, OSError, ValueError) as error:
            reason = reason or plain(error)
            continue
        places = {item: index for index, item in enumerate(dataset.ids) if item in wanted}
        if places:
            missing = len(wanted) - len(places)
            note = f"{missing} of {len(wanted)} images were not found in the data." if missing else None
            return Pictures(note, dataset, places)
        reason = reason or "no image there has a name of this run"
    if not moved:
        return Pictures("The images are no longer where the run read them; name their folder with --data.")
    return Pictures(f"No pictures are shown: {reason}.")


@dataclass(frozen=True)
class Images:
    """Where the images of a run are read from: the recorded place, unless another is named.

    Attributes:
        run: the run folder.
        data, masks, labels, split: where they are now.
    """

    run: Path
    data: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    split: str | None = None

    def load(self, items: Sequence[str]) -> list[MedicalImage]:
        """The images of these ids; InputError where one cannot be found or read."""
        (run,) = open_runs([self.run], verify=False)
        pictures = find_pictures(
            run, items, path=self.data, labels=self.labels, masks=self.masks, split=self.split
        )  # fmt: skip
        loaded = []
        for item in items:
            image = pictures.load(item)
            if image is None:
                note = pictures.note or "it cannot be read"
                raise InputError(f"the image {item!r:.80} of {self.run} cannot be shown: {note}")
            loaded.append(image)
        return loaded
