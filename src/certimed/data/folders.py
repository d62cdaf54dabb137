"""Folders of images: which files are items, which class each belongs to, which mask goes with it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from certimed.data.classes import ClassList, names_in_data, same_name
from certimed.data.dataset import Dataset, FileStore, Item
from certimed.data.files import IMAGE_SUFFIXES, is_dicom_name, is_image_file, printable, stem
from certimed.data.images import ReadOptions
from certimed.data.tables import Columns, read_table
from certimed.errors import InputError

TABLE = "labels.csv"
"""A table of this name in the opened folder is used without being asked for."""

_HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_MASK_ENDINGS = ("", "_mask", "-mask", "_masks", "_segmentation", "_seg", "_label", "_gt")


@dataclass(frozen=True)
class Listing:
    """Files below a folder: images by relative posix path, sorted by it, and how many others there are."""

    root: Path
    images: dict[str, Path]
    others: int


def list_images(root: Path, *, skip: Path | None = None, series: bool = False) -> Listing:
    """All image files below ``root`` (but not below ``skip``), in an order that does not depend on the file system.

    With ``series`` the DICOM files of a folder are one image, named by the folder.

    Hidden files and folders are skipped; links to files are followed, links to folders are not (they can loop).
    What an image is, :func:`certimed.data.files.is_image_file` says.
    """
    images: dict[str, Path] = {}
    others = 0
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not _hidden(name) and Path(folder, name) != skip)
        beside = {name.lower() for name in files}
        for name in files:
            if _hidden(name):
                continue
            path = Path(folder, name)
            if is_image_file(path, beside):
                whole = path.parent if series and is_dicom_name(name) else path
                images[_id(whole, root)] = whole
            elif not (name.lower().endswith(".img") and f"{name[:-4].lower()}.hdr" in beside):  # part of its header
                others += 1
    return Listing(root, dict(sorted(images.items())), others)


def open_folder(
    root: Path,
    *,
    classes: Sequence[str] | None,
    labels: Path | None,
    split: str | None,
    options: ReadOptions,
    masks: Path | None,
    columns: Columns,
    series: bool = False,
) -> Dataset:
    """Open a folder; see :func:`certimed.data.open_dataset` for the layouts."""
    chosen = ClassList.parse(classes) if classes is not None else None
    if labels is None and (root / TABLE).is_file():
        labels = root / TABLE
    base = root if labels is not None or split is None else _split_folder(root, split)
    if masks is None and (base / "images").is_dir() and (base / "masks").is_dir():
        base, masks = base / "images", base / "masks"
    listing = list_images(base, skip=masks, series=series)
    if not listing.images:
        raise InputError(f"{base} holds no image ({', '.join(IMAGE_SUFFIXES)}); {listing.others} other files in it")
    if labels is not None:
        found = _from_table(listing, labels, chosen, split, options, columns)
        return found if masks is None else _with_masks(found, masks, base, chosen)
    if masks is not None:
        plain = _dataset(listing, base, [Item(name, path) for name, path in listing.images.items()], None, options)
        return _with_masks(plain, masks, base, chosen)
    prefix = "" if split is None else f"{base.relative_to(root).as_posix()}/"
    found = _from_subfolders(listing, chosen, options)
    return replace(
        found, items=tuple(replace(item, id=prefix + item.id) for item in found.items), source=root.as_posix()
    )


def _from_subfolders(listing: Listing, chosen: ClassList | None, options: ReadOptions) -> Dataset:
    """Class subfolders, or images without labels when there are no subfolders."""
    tops = {name.partition("/")[0] for name in listing.images if "/" in name}
    if not tops:
        items = [Item(name, path) for name, path in listing.images.items()]
        return _dataset(listing, listing.root, items, chosen.names if chosen else None, options)
    loose = [name for name in listing.images if "/" not in name]
    if loose:
        raise InputError(
            f"{listing.root} holds images beside its subfolders (such as {loose[0]}): put every image into a class "
            "subfolder, or none, or give a table with labels="
        )
    if chosen is None:
        if {name.casefold() for name in tops} <= _SPLITS:
            raise InputError(
                f"{listing.root} is divided into {', '.join(sorted(tops))}: choose one with split=, e.g. "
                f"split={sorted(tops)[0]!r}"
            )
        chosen = names_in_data(sorted(tops, key=lambda top: (same_name(top), top)))
    items = []
    for name, path in listing.images.items():
        top = name.partition("/")[0]
        items.append(Item(name, path, chosen.require(top, f"{listing.root / top}")))
    return _dataset(listing, listing.root, items, chosen.names, options)


def _from_table(
    listing: Listing,
    table: Path,
    chosen: ClassList | None,
    split: str | None,
    options: ReadOptions,
    columns: Columns,
) -> Dataset:
    root = listing.root
    rows = read_table(table, split=split, columns=columns)
    stems: dict[str, list[str]] = {}
    for name in listing.images:
        stems.setdefault(stem(name), []).append(name)
    texts = {row.label for row in rows}
    numeric = all(text.isdecimal() for text in texts)
    if chosen is None and not numeric:
        chosen = names_in_data(sorted(texts, key=lambda text: (same_name(text), text)))
    items = []
    for row in rows:
        name = unicodedata.normalize("NFC", row.file)
        if name not in listing.images and len(stems.get(name, [])) == 1:
            name = stems[name][0]
        label = _label(row.label, numeric, chosen, f"line {row.line} of the labels table {table}")
        items.append(Item(name, listing.images.get(name, root / row.file), label, row.group))
    used = {item.id for item in items} & set(listing.images)
    if not used:
        raise InputError(f"none of the {len(rows)} images of the labels table {table} is in {root}")
    items.sort(key=lambda item: item.id)
    ignored = listing.others + len(listing.images) - len(used) - (table.parent == root)
    names = chosen.names if chosen else None
    return Dataset(tuple(items), names, root.as_posix(), ignored, options, FileStore())


def _label(text: str, numeric: bool, chosen: ClassList | None, where: str) -> int:
    if chosen is None:
        return int(text)
    if numeric and chosen.index(text) is None:
        if int(text) >= len(chosen.names):
            raise InputError(f"{where} has label {text} and there are {len(chosen.names)} classes (counted from 0)")
        return int(text)
    return chosen.require(text, where)


def _with_masks(images: Dataset, folder: Path, root: Path, chosen: ClassList | None) -> Dataset:
    """Join each image with the mask of the same relative name, whatever their endings."""
    if not folder.is_dir():
        raise InputError(f"masks={str(folder)!r} is not a folder")
    listing = list_images(folder)
    by_stem: dict[str, list[Path]] = {}
    for name, path in listing.images.items():
        by_stem.setdefault(stem(name), []).append(path)
    items, used = [], 0
    for item in images.items:
        found = next((by_stem[key] for end in _MASK_ENDINGS if (key := stem(item.id) + end) in by_stem), [])
        if len(found) > 1:
            raise InputError(f"{item.id} has two masks, {found[0].name} and {found[1].name}, in {folder}; keep one")
        used += len(found)
        items.append(replace(item, mask=found[0] if found else None))
    if not used:
        raise InputError(f"no mask in {folder} has the name of an image in {root}")
    labelled = images.is_labelled
    names = images.class_names if labelled else (chosen.names if chosen else None)
    ignored = images.ignored + listing.others + len(listing.images) - used
    store = FileStore(has_masks=True, mask_classes=None if labelled or names is None else len(names))
    return replace(images, items=tuple(items), class_names=names, ignored=ignored, store=store, has_masks=True)


def _split_folder(root: Path, split: str) -> Path:
    folders = {path.name: path for path in root.iterdir() if path.is_dir() and not _hidden(path.name)}
    if split not in folders:
        raise InputError(f"split={split!r} was asked for and {root} has {', '.join(sorted(folders)) or 'no subfolder'}")
    return folders[split]


def _dataset(
    listing: Listing, source: Path, items: list[Item], names: tuple[str, ...] | None, options: ReadOptions
) -> Dataset:
    return Dataset(tuple(items), names, source.as_posix(), listing.others, options, FileStore())


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _HIDDEN


def _id(path: Path, root: Path) -> str:
    """Relative, forward slashes, one Unicode form on every system, and always encodable as UTF-8."""
    place = path.relative_to(root) if path != root else Path(path.resolve().name)
    return unicodedata.normalize("NFC", printable(place))
