"""Data sets in one ``.npz`` file, never through pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from certimed.data.classes import ClassList, names_in_data
from certimed.data.dataset import Dataset, Item
from certimed.data.files import stand_in
from certimed.data.images import MedicalImage, ReadOptions
from certimed.data.intensity import UnreadableError, check_expansion, check_size, to_float
from certimed.data.masks import class_ids
from certimed.data.reading import reading
from certimed.data.records import Step
from certimed.errors import InputError
from certimed.integrity import BROKEN_ARCHIVE

_GROUPS = ("group", "patient", "sequence")
_MAX_BYTES = 8 << 30


@dataclass(frozen=True)
class Header:
    """Shape and type of one array of the file, known without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class NpzStore:
    """Items that are rows of arrays in one file; an array is read whole when its first row is asked for."""

    path: Path
    images: str
    masks: str | None
    mask_classes: int | None

    @cached_property
    def _pixels(self) -> NDArray[Any]:
        return read_array(self.path, self.images)

    @cached_property
    def _masks(self) -> NDArray[Any]:
        return read_array(self.path, self.masks or "")

    def load(self, item: Item, options: ReadOptions) -> MedicalImage:
        """Row ``item.image`` as an image, with its mask if there are masks; raises ImageError."""
        row = int(item.image)  # type: ignore[arg-type]
        source = f"{self.path.as_posix()}[{row}]"
        with reading(item.id):
            pixels, steps = _to_pixels(self._pixels[row], options)
            mask, how = (None, None) if self.masks is None else class_ids(self._masks[row], self.mask_classes)
            versions = {"numpy": np.__version__}
            return MedicalImage(item.id, pixels, item.label, tuple(steps), source, mask, item.group, how, versions)

    def contents(self, item: Item) -> Iterable[bytes]:
        """Type, shape and bytes of the row, image then mask."""
        with reading(item.id):
            for array in (self._pixels, self._masks) if self.masks else (self._pixels,):
                row = np.ascontiguousarray(array[int(item.image)])  # type: ignore[arg-type]
                yield f"{row.dtype.newbyteorder('<').str}{row.shape}".encode()
                yield row.astype(row.dtype.newbyteorder("<")).tobytes()


def open_npz(
    path: Path,
    *,
    classes: Sequence[str] | None,
    labels: str | None,
    split: str | None,
    options: ReadOptions,
    masks: str | None,
) -> Dataset:
    """Open an npz file; see :func:`certimed.data.open_dataset`. ``labels`` and ``masks`` are names of arrays.

    ``labels="labels_x"`` takes its names from ``class_names_x``, ``masks`` likewise.

    Raises:
        InputError: not an npz, no images, arrays that do not fit each other, pickled arrays, more than 8 GiB.
    """
    headers = read_headers(path)
    prefix = f"{split}_" if split is not None and f"{split}_images" in headers else ""
    images = f"{prefix}images"
    if images not in headers:
        raise InputError(f"{path} has no array images (it has {', '.join(sorted(headers))}); {_hint(headers)}")
    count = _check_images(path, images, headers[images])
    labels = labels or (f"{prefix}labels" if f"{prefix}labels" in headers else None)
    masks = masks or (f"{prefix}masks" if f"{prefix}masks" in headers else None)
    for name in filter(None, (labels, masks)):
        if name not in headers or headers[name].shape[:1] != (count,):
            shape = headers[name].shape if name in headers else "missing"
            raise InputError(f"the array {name} of {path} is {shape} where {count} rows are needed")
    chosen = ClassList.parse(classes) if classes is not None else None
    names: tuple[str, ...] | None = None
    rows: list[int | None] = [None] * count
    mask_names = _names(path, headers, masks, "masks")
    if labels is not None:
        names, rows = _labels(path, labels, _names(path, headers, labels, "labels"), chosen)
    elif masks is not None:
        names = mask_names = _mask_names(path, mask_names, chosen)
    elif chosen is not None:
        names = chosen.names
    kept = range(count) if split is None or prefix else _split_rows(path, headers, split, count)
    ids = _ids(path, headers, prefix, count)
    group_key = next((name for name in _GROUPS if name in headers and headers[name].shape == (count,)), None)
    groups = [str(group) for group in read_array(path, group_key)] if group_key else [None] * count
    items = tuple(Item(ids[row], row, rows[row], groups[row]) for row in kept)
    store = NpzStore(path, images, masks, len(mask_names) if masks is not None and mask_names else None)
    return Dataset(items, names, path.as_posix(), 0, options, store, has_masks=masks is not None)


def read_headers(path: Path) -> dict[str, Header]:
    """Shapes and types of all arrays in the file, without reading the arrays.

    Raises:
        InputError: not a zip of npy arrays.
    """
    try:
        stamp = path.stat()
        return dict(_headers(path, stamp.st_mtime_ns, stamp.st_size))
    except BROKEN_ARCHIVE as error:
        words = None
        with suppress(OSError), path.open("rb") as stream:
            words = stand_in(stream.read(200))
        raise InputError(f"{path} cannot be read as an npz file: {words or ' '.join(str(error).split())}") from None


@lru_cache(maxsize=16)
def _headers(path: Path, _changed: int, _size: int) -> dict[str, Header]:
    """Kept, because finding a header can mean unpacking the first megabyte of each array."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as stream:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(stream)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if size > info.file_size and not dtype.hasobject:
                raise ValueError(f"the array {info.filename} is shorter than its header says")
            headers[info.filename[: -len(".npy")]] = Header(shape, dtype)
    return headers


def read_array(path: Path, name: str) -> NDArray[Any]:
    """One array of the file.

    Raises:
        InputError: pickled, more than 8 GiB, or broken.
    """
    header = read_headers(path).get(name)
    if header is None:
        raise InputError(f"{path} has no array {name}")
    if header.dtype.hasobject:
        raise InputError(
            f"the array {name} of {path} holds pickled Python objects, which are refused: unpickling runs code"
        )
    size = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
    if size > _MAX_BYTES:
        raise InputError(f"the array {name} of {path} needs {size / 2**30:.1f} GiB, more than 8; split the file")
    try:
        check_expansion(path.stat().st_size, size)
    except UnreadableError as error:
        raise InputError(f"the array {name} of {path} is refused: {error}") from None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except BROKEN_ARCHIVE as error:
        raise InputError(f"the array {name} of {path} is broken: {' '.join(str(error).split())}") from None


def _to_pixels(values: NDArray[Any], options: ReadOptions) -> tuple[NDArray[np.float32], list[Step]]:
    if values.ndim == 2:
        values = values[None]
    elif values.shape[-1] in (1, 3):
        values = values.transpose(2, 0, 1)
    check_size(values.shape[1], values.shape[2], options)
    # Arrays carry no header, so the window is all that can place floats in colour too.
    colour = len(values) > 1 and values.dtype.kind == "u"
    pixels, steps = to_float(values, options, colour=colour)
    return np.ascontiguousarray(pixels), steps


def _check_images(path: Path, name: str, header: Header) -> int:
    shape = header.shape
    colour = len(shape) == 4 and (shape[-1] in (1, 3) or shape[1] in (1, 3))
    if header.dtype.kind not in "buif" or not (len(shape) == 3 or colour) or 0 in shape:
        raise InputError(
            f"the array {name} of {path} is {header.dtype} of shape {shape}; numbers of shape (N, H, W), (N, H, W, 3) "
            "or (N, 3, H, W) are needed"
        )
    return shape[0]


def _labels(
    path: Path, key: str, names: list[str] | None, chosen: ClassList | None
) -> tuple[tuple[str, ...] | None, list[int | None]]:
    values = read_array(path, key)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iubU":
        raise InputError(
            f"the array {key} of {path} is {values.dtype} of shape {values.shape}; one class index or name an image is "
            "needed"
        )
    if values.dtype.kind == "U":
        known = chosen or names_in_data(names or sorted(set(values.tolist())))
        return known.names, [known.require(str(name), f"row {row} of {path}") for row, name in enumerate(values)]
    top = len(names) if names else len(chosen.names) if chosen else None
    numbers = [int(value) for value in values]
    for row, label in enumerate(numbers):
        if label < 0 or (top is not None and label >= top):
            raise InputError(
                f"row {row} of the array {key} of {path} is {label}; classes count from 0 to {top}, excluded"
            )
    if names is None or chosen is None:
        return tuple(names) if names else chosen.names if chosen else None, list(numbers)
    used = {label: chosen.require(names[label], f"class {label} of {path}") for label in set(numbers)}
    return chosen.names, [used[label] for label in numbers]


def _mask_names(path: Path, names: list[str] | None, chosen: ClassList | None) -> Any:
    if chosen is None:
        return tuple(names) if names else None
    if names and [chosen.index(name) for name in names] != list(range(len(names))):
        raise InputError(
            f"the mask classes of {path} are {', '.join(names)} and keep that order; give classes in the same order, "
            "as 'name=other words' to rename"
        )
    return chosen.names


def _names(path: Path, headers: dict[str, Header], key: str | None, plain: str) -> list[str] | None:
    if key is None:
        return None
    bare = {"labels", "masks"}
    stem = next((key[: -len(end)] for end in bare if key.endswith("_" + end)), "")
    name = "class_names" if key in bare or stem else f"class_names_{key.removeprefix(plain + '_')}"
    if name not in headers or headers[name].dtype.kind != "U":
        return None
    return [str(value) for value in read_array(path, name)]


def _split_rows(path: Path, headers: dict[str, Header], split: str, count: int) -> list[int]:
    if "split" not in headers or headers["split"].shape != (count,):
        raise InputError(f"split={split!r} was asked for and {path} has no array split; {_hint(headers)}")
    values = [str(value) for value in read_array(path, "split")]
    rows = [row for row, value in enumerate(values) if value.casefold() == split.casefold()]
    if not rows:
        raise InputError(f"split={split!r} was asked for and {path} has {', '.join(sorted(set(values)))}")
    return rows


def _ids(path: Path, headers: dict[str, Header], prefix: str, count: int) -> list[str]:
    """The names in ``files`` when they are there and unique, else row numbers."""
    if not prefix and "files" in headers and headers["files"].shape == (count,) and headers["files"].dtype.kind == "U":
        files = [str(name).replace("\\", "/") for name in read_array(path, "files")]
        if len(set(files)) == count:
            return files
    return [f"{prefix}{row:06d}" for row in range(count)]


def _hint(headers: dict[str, Header]) -> str:
    splits = sorted(name[: -len("_images")] for name in headers if name.endswith("_images"))
    return f"choose one with split=: {', '.join(splits)}" if splits else "an array (N, H, W) or (N, H, W, 3) is needed"
