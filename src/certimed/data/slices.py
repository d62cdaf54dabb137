"""Slices of volumes as images of their own, for networks of planes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from certimed.data.dataset import Dataset, Item
from certimed.data.files import file_kind
from certimed.data.images import ReadOptions
from certimed.data.reading import reading
from certimed.errors import ImageError, InputError

_SPELLINGS = re.compile(r"(?P<all>all)|every:(?P<every>[1-9]\d*)|(?P<first>\d+):(?P<last>\d+)", re.ASCII)


def parse_slices(text: str) -> Callable[[int], range]:
    """Which slices of so many: ``"all"``, ``"every:K"`` (0, K, 2K, ...) or ``"A:B"`` (from A to before B, from 0).

    Raises:
        InputError: none of these.
    """
    found = _SPELLINGS.fullmatch(text)
    if found is None or (found["first"] and int(found["first"]) >= int(found["last"])):
        raise InputError(f"slices={text!r} is not usable: give all, every:K (such as every:4) or A:B (such as 40:60)")
    if found["first"]:
        first, last = int(found["first"]), int(found["last"])
        return lambda count: range(first, min(last, count))
    step = int(found["every"] or 1)
    return lambda count: range(0, count, step)


def cut_slices(volumes: Dataset, spelling: str) -> Dataset:
    """Each volume's slices instead of the volume; the group of a slice is its volume, where no other is known.

    The slices of NIfTI lie across ``options.axis``; those of a DICOM series are its files along its normal, those of a
    multi-frame DICOM file its frames. Anything else is one slice. Ids are ``VOLUME#NNNN``. A volume that cannot be read
    stays one image, whose record says why.

    Raises:
        InputError: a spelling that is none, or one that leaves no slice.
    """
    chosen = parse_slices(spelling)
    items: list[Item] = []
    for item in volumes.items:
        assert isinstance(item.image, Path)
        try:
            with reading(item.id):
                parts = _parts(item, volumes.options)
        except ImageError:
            items.append(item)
            continue
        items += [
            replace(parts[index], id=f"{item.id}#{index:04d}", group=item.group or item.id)
            for index in chosen(len(parts))
        ]
    if not items:
        raise InputError(f"slices={spelling!r} leaves no slice of the {len(volumes)} volumes of {volumes.source}")
    return replace(volumes, items=tuple(items))


def _parts(item: Item, options: ReadOptions) -> list[Item]:
    """The item's slices, by the reader of its format."""
    path = item.image
    assert isinstance(path, Path)
    if path.is_dir():
        from certimed.data.series import sorted_files

        return [replace(item, image=file) for file in sorted_files(path, options)]
    kind = file_kind(path)
    if kind == "nifti":
        from certimed.data.nifti import nifti_slices

        return [replace(item, slice=index) for index in range(nifti_slices(path, options))]
    if kind == "dicom":
        from certimed.data.dicom import frame_count

        return [replace(item, frame=index) for index in range(frame_count(path))]
    return [item]
