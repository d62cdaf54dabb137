"""What a report is made of: runs with names of their own, and their images where those can still be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.data import Dataset, MedicalImage, ReadOptions, open_dataset
from certimed.errors import CertimedError, ImageError, InputError, MissingExtraError
from certimed.integrity import line_holds, manifest_fault
from certimed.report.html.numbers import plain
from certimed.runs import RunFolder

CLASSIFY, SEGMENT = "classify", "segment"
_LAYOUT = ("--split", "--labels", "--masks")


@dataclass(frozen=True)
class Run:
    """One run folder under a name that no other run of the report has.

    Attributes:
        index: position in the report.
        name: the folder's name, or more of its path where two are named alike.
        task: ``"classify"`` or ``"segment"``.
        class_names: as text that may be shown.
        checked: what was checked about its truth, in one sentence.
        faults: false statements found, each as text; empty if none.
    """

    index: int
    name: str
    folder: RunFolder
    task: str
    class_names: tuple[str, ...]
    checked: str
    faults: tuple[str, ...]

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of ``run.json``."""
        return self.folder.manifest

    def section(self, name: str) -> dict[str, Any]:
        """A part of the manifest, or nothing where it is missing or no object."""
        found = self.manifest.get(name)
        return found if isinstance(found, dict) else {}

    def class_name(self, index: int) -> str:
        """Name of a class; its number where the manifest names none."""
        return self.class_names[index] if 0 <= index < len(self.class_names) else f"class {index}"


def open_runs(paths: Sequence[Path], *, verify: bool = True) -> list[Run]:
    """Open run folders and check them.

    Args:
        paths: run folders.
        verify: recompute every statement, where the ``verify`` extra is installed; else the seals only.

    Raises:
        InputError: no run folder, the same one twice, or a task no report knows.
    """
    if not paths:
        raise InputError("a report needs at least one run folder; give e.g. runs/plip")
    places = [path.resolve() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"the run {place.name} was given twice; name each run once")
    runs = []
    for index, (path, name) in enumerate(zip(paths, _names(places))):
        folder = RunFolder.open(path)
        task = folder.manifest.get("task")
        if task not in (CLASSIFY, SEGMENT):
            raise InputError(f"{path} is a run of task {plain(task, 40)!r}; a report shows classify and segment")
        classes = folder.manifest.get("classes")
        names = tuple(plain(name, 200) for name in classes) if isinstance(classes, list) else ()
        checked, faults = _check(folder, verify)
        runs.append(Run(index, name, folder, task, names, checked, faults))
    return runs


def _names(places: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart."""
    for depth in range(1, 1 + max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            break
    return [plain(name, 120) for name in names]


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


def find_pictures(
    run: Run, items: Iterable[str], data: Path | None, *, labels: Path | None = None, masks: Path | None = None,
    split: str | None = None,
) -> Pictures:  # fmt: skip
    """Open the images of a run: from ``data``, or from where the run had them.

    Only files that the data set's own reader lists are ever opened; a run's ids choose among them and are no paths.
    """
    wanted = set(items)
    reason = ""
    for options in _candidates(run, data, labels, masks, split):
        try:
            dataset = open_dataset(**options, options=_reading(run))
        except (CertimedError, OSError) as error:
            reason = reason or plain(error)
            continue
        places = {item: index for index, item in enumerate(dataset.ids) if item in wanted}
        if places:
            missing = len(wanted) - len(places)
            note = f"{missing} of {len(wanted)} images were not found in the data." if missing else None
            return Pictures(note, dataset, places)
        reason = reason or "no image there has a name of this run"
    if data is None:
        return Pictures("The images are no longer where the run read them; name their folder with --data.")
    return Pictures(f"No pictures are shown: {reason}.")


def _candidates(
    run: Run, data: Path | None, labels: Path | None, masks: Path | None, split: str | None
) -> list[dict[str, Any]]:
    """Arguments of open_dataset worth trying, in this order."""
    if data is not None:
        return [{"path": data, "labels": labels, "masks": masks, "split": split}]
    source = run.section("data").get("source")
    if not isinstance(source, str) or "\0" in source or not Path(source).exists():
        return []
    recorded = _recorded_layout(run.manifest.get("arguments"))
    tried: list[dict[str, Any]] = [{"path": Path(source), **recorded}]
    if run.task == SEGMENT and Path(source).name == "images":
        # A folder of images/ and masks/ is recorded by its images.
        tried.insert(0, {"path": Path(source).parent, **recorded})
    return tried


def _recorded_layout(arguments: Any) -> dict[str, str]:
    """``--split``, ``--labels`` and ``--masks`` of the command that made the run."""
    words = [word for word in arguments if isinstance(word, str)] if isinstance(arguments, list) else []
    found = {}
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in _LAYOUT and (equals or place + 1 < len(words)):
            found[name[2:]] = value if equals else words[place + 1]
    return found


def _reading(run: Run) -> ReadOptions:
    recorded = run.section("data").get("reading")
    with suppress(TypeError, ValueError):
        values: dict[str, Any] = dict(recorded) if isinstance(recorded, dict) else {}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return ReadOptions(**values)
    return ReadOptions()
