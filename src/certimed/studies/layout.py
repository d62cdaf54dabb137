"""Finding the parts of a published data set on disk, and saying what was expected where they are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from certimed.data import DEFAULT_READ, Dataset, ReadOptions
from certimed.data.classes import same_name
from certimed.errors import InputError
from certimed.runs import DataSpec
from certimed.studies.prompt_presets import ClassificationPreset

_TABLE = "labels.csv"
_SHOWN = 12


@dataclass(frozen=True)
class Parts:
    """The two parts of a data set.

    Attributes:
        test: what is certified.
        train: what may be tuned on; None where there is none.
        source: the test part as a run names it.
    """

    test: Dataset
    train: Dataset | None
    source: DataSpec


def open_parts(preset: ClassificationPreset, root: Path, options: ReadOptions = DEFAULT_READ) -> Parts:
    """Open a published data set in one of its expected layouts, see ``docs/reproduce.md``.

    Tried in this order: the data set's own table, ``labels.csv`` with a column ``split``, subfolders of the parts.

    Raises:
        InputError: no layout fits, or a part lacks a class; the sentence says what was expected and what was found.
    """
    if not root.is_dir():
        raise InputError(f"the data folder {root} is no folder; {expected_layout(preset)}")
    entries = class_entries(preset)
    for table, splits in _tables(preset, root):
        train, test = (
            DataSpec(str(root), tuple(entries), str(table), split=split, reading=options) for split in splits
        )
        return Parts(_complete(test.open(), preset, f"the rows {splits[1]} of {table}"), train.open(), test)
    found = {
        part: next((root / name for name in names if (root / name).is_dir()), None)
        for part, names in (("train", preset.parts.train), ("test", preset.parts.test))
    }
    folder = found["test"]
    if folder is None:
        raise InputError(
            f"the data folder {root} has no test images: {expected_layout(preset)}; found {_content(root)}"
        )
    source = DataSpec(str(folder), tuple(entries), reading=options)
    tested = _complete(_open_folder(source, preset), preset, str(folder))
    trained = found["train"]
    rest = None if trained is None else _open_folder(replace(source, path=str(trained)), preset)
    return Parts(tested, rest, source)


def class_entries(preset: ClassificationPreset) -> list[str]:
    """Entries for :func:`certimed.data.open_dataset`: every accepted folder name of every class."""
    seen: set[str] = set()
    entries = []
    for item in preset.classes:
        for folder in item.folders:
            if same_name(folder) not in seen:
                seen.add(same_name(folder))
                entries.append(f"{folder}={item.words}")
    return entries


def expected_layout(preset: ClassificationPreset) -> str:
    """The layout in words."""
    names = ", ".join(item.folders[0] for item in preset.classes)
    table = f"{preset.parts.table} or " if preset.parts.table else ""
    return (
        f"expected for {preset.name}: a folder {' or '.join(preset.parts.test)} (and for tuning "
        f"{' or '.join(preset.parts.train)}) with one subfolder for each class ({names}), or {table}{_TABLE} with "
        "columns image, label and split"
    )


def _tables(preset: ClassificationPreset, root: Path) -> list[tuple[Path, tuple[str, str]]]:
    own = [(root / preset.parts.table, preset.parts.table_splits)] if preset.parts.table else []
    return [(table, splits) for table, splits in [*own, (root / _TABLE, ("train", "test"))] if table.is_file()]


def _open_folder(source: DataSpec, preset: ClassificationPreset) -> Dataset:
    try:
        dataset = source.open()
    except InputError as error:
        raise InputError(
            f"{source.path} does not hold {preset.name} as expected ({error}); {expected_layout(preset)}"
        ) from error
    if not dataset.is_labelled:
        raise InputError(f"{source.path} holds images without class subfolders; {expected_layout(preset)}")
    return dataset


def _complete(dataset: Dataset, preset: ClassificationPreset, where: str) -> Dataset:
    """Every class must have a test image: certified accuracy over fewer classes is another figure."""
    present = {item.label for item in dataset.items}
    missing = [item.folders[0] for index, item in enumerate(preset.classes) if index not in present]
    if missing:
        raise InputError(
            f"{where} has no image of {', '.join(missing)}; expected all {len(preset.classes)} classes of "
            f"{preset.name}, found {len(present)}: {expected_layout(preset)}"
        )
    return dataset


def _content(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        return "an empty folder"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
