"""A data set: a list of items known at once, pixels read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from certimed.data.files import printable, stored_files
from certimed.data.images import MedicalImage, ReadOptions
from certimed.data.masks import read_mask
from certimed.data.reading import image_of, read_patch_pixels, read_pixels
from certimed.data.records import Step
from certimed.data.slides import Region
from certimed.errors import ImageError, InputError


@dataclass(frozen=True)
class Item:
    """One entry of a data set before it is read.

    Attributes:
        id: unique in the data set, relative, with forward slashes.
        label: class index or None.
        group: patient, sequence or None.
        image: the image's file, its row in an npz, or the folder of a DICOM series.
        mask: the mask's file; None when there is none or when the npz holds it.
        region: the rectangle of a slide that is the image; None for the whole file.
        slice, frame: which slice of a volume, or frame of a file, is the image, whatever the options say.
    """

    id: str
    image: Path | int
    label: int | None = None
    group: str | None = None
    mask: Path | None = None
    region: Region | None = None
    slice: int | None = None
    frame: int | None = None


class Store(Protocol):
    """Where items' pixels come from."""

    def load(self, item: Item, options: ReadOptions) -> MedicalImage:
        """Read one item; raises ImageError."""

    def contents(self, item: Item) -> Iterable[bytes]:
        """The item's stored bytes, image then mask, in pieces; raises OSError or ImageError."""


@dataclass(frozen=True)
class FileStore:
    """Items that are files of their own.

    Attributes:
        has_masks: whether every image is meant to have a mask; one without is then a failed image.
        mask_classes: number of mask classes, or None when it is not known.
    """

    has_masks: bool = False
    mask_classes: int | None = None

    def load(self, item: Item, options: ReadOptions) -> MedicalImage:
        """Read one image file and its mask; raises ImageError."""
        path = _file(item)
        if item.slice is not None:
            options = replace(options, slice=item.slice)
        if item.frame is not None:
            options = replace(options, frame=item.frame)
        if item.region is not None:
            read = read_patch_pixels(path, item.region, options, item.id)
        else:
            read = read_pixels(path, options, item.id)
        mask, how = None, None
        if self.has_masks:
            if item.mask is None:
                raise ImageError(f"{item.id} cannot be used: no mask of the same name was found")
            mask, how = read_mask(
                item.mask, options, name=item.id, num_classes=self.mask_classes, geometry=read.geometry
            )
        # What was asked for slice by slice is no choice that a person should look at.
        steps = tuple(Step(f"each_{one.kind}", one.values) if _cut(item, one.kind) else one for one in read.steps)
        about = {"label": item.label, "steps": steps, "mask": mask, "group": item.group, "mask_reading": how}
        return image_of(read, item.id, printable(path), **about)

    def contents(self, item: Item) -> Iterable[bytes]:
        """The bytes of the image's files, then of the mask file, a megabyte at a time; of what is cut its digest."""
        cut = item.region or item.slice or item.frame
        if item.region is not None or _cut(item, "slice") or _cut(item, "frame"):
            for path in (*stored_files(_file(item)), *([item.mask] if item.mask else [])):
                stamp = path.stat()
                yield f"{cut}{_file_digest(path, stamp.st_mtime_ns, stamp.st_size)}".encode()
            return
        for path in (*stored_files(_file(item)), *([item.mask] if item.mask else [])):
            if path.exists() and not path.is_file():
                raise ImageError(f"{item.id} cannot be read: it is not a regular file")
            yield str(path.stat().st_size).encode()
            yield from _pieces(path)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by index, read when asked for. Made by :func:`open_dataset`.

    Attributes:
        items: what is known without reading pixels.
        class_names: names by class index, or None where no names are known. With masks and no labels these are the
            mask classes.
        source: the path that was opened.
        ignored: files in the folder that are no items (other endings, DICOM directories and reports, masks without
            image); hidden files are not counted.
        options: how files are read.
        store: where pixels come from.
        has_masks: whether images come with masks.
    """

    items: tuple[Item, ...]
    class_names: tuple[str, ...] | None
    source: str
    ignored: int
    options: ReadOptions
    store: Store
    has_masks: bool = False

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise InputError(f"{self.source} holds two images named {item.id}; names must be unique, rename one")
            seen.add(item.id)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> tuple[str, ...]:
        """Unique, stable names: noise and results are keyed by them."""
        return tuple(item.id for item in self.items)

    @property
    def labels(self) -> tuple[int | None, ...]:
        """Class index of every item, None where unlabelled."""
        return tuple(item.label for item in self.items)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """Patient, sequence or other unit of every item, None where unknown."""
        return tuple(item.group for item in self.items)

    @property
    def is_labelled(self) -> bool:
        """Whether every item has a label (and there is at least one)."""
        return bool(self.items) and all(item.label is not None for item in self.items)

    def load(self, index: int) -> MedicalImage:
        """Read item ``index``.

        Raises:
            ImageError: that image cannot be used; the others are not affected.
        """
        return self.store.load(self.items[index], self.options)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The items at these indices, in this order, with ids unchanged."""
        chosen: Sequence[int] = list(indices)
        for index in chosen:
            if not 0 <= index < len(self):
                raise InputError(f"index {index} is outside the data set of {len(self)} images")
        return replace(self, items=tuple(self.items[index] for index in chosen))

    def __repr__(self) -> str:
        names = "no class names" if self.class_names is None else f"classes {', '.join(self.class_names)}"
        extra = ", with masks" if self.has_masks else ""
        return f"Dataset({self.source!r}, {len(self)} images, {names}{extra}, {self.ignored} files ignored)"


def _cut(item: Item, kind: str) -> bool:
    return (kind == "slice" and item.slice is not None) or (kind == "frame" and item.frame is not None)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            yield piece


@lru_cache(maxsize=1024)
def _file_digest(path: Path, _changed: int, _size: int) -> str:
    """Kept, because a slide of gigabytes has thousands of patches."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _file(item: Item) -> Path:
    if not isinstance(item.image, Path):
        raise TypeError(f"item {item.id} is a row of an npz, not a file")
    return item.image
