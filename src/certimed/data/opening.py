"""`open_dataset`: one path in, a data set out, whatever the layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from certimed.data.classes import ClassList
from certimed.data.dataset import Dataset, FileStore, Item
from certimed.data.folders import open_folder
from certimed.data.images import DEFAULT_READ, ReadOptions
from certimed.errors import InputError


def open_dataset(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    labels: str | Path | None = None,
    split: str | None = None,
    options: ReadOptions = DEFAULT_READ,
    masks: str | Path | None = None,
) -> Dataset:
    """Open images for classification or segmentation without reading their pixels.

    Layouts, tried in this order:

    * ``file.npz``: arrays ``images`` and optionally ``labels``, ``masks``, ``class_names``, ``files``, ``split`` and
      ``group``/``patient``/``sequence``; or MedMNIST's ``test_images``, ``test_labels`` with ``split="test"``.
    * a single image file: one item.
    * a folder with a table (``labels=``, or ``labels.csv`` in it): the images the table names.
    * a folder with ``images/`` and ``masks/`` (or ``masks=``): segmentation; a mask has its image's relative name,
      any ending, optionally with ``_mask``, ``_segmentation``, ``_seg``, ``_label`` or ``_gt`` appended.
    * a folder of class subfolders: labels are the subfolders' names; classes in alphabetical order.
    * a folder of images: no labels.

    In folders, files with the ending of an image are items; others are counted in ``Dataset.ignored``; hidden files
    and ``Thumbs.db`` are neither. Ids are paths relative to the opened folder (to its ``images`` folder for
    segmentation), in Unicode NFC, sorted, so they do not depend on the machine.

    Args:
        path: file or folder.
        classes: class names in the order wanted, each ``"name"`` or ``"name in the data=words for the prompt"``.
            Names are compared without regard to case, spaces, underscores and hyphens; two entries with the same
            words merge two classes.
        labels: CSV with an image and a label column, or, for an npz, the name of its array of labels.
        split: subfolder of that name, rows of a table's ``split`` column, or of an npz's ``split`` array.
        options: how files become pixels.
        masks: folder of masks, or, for an npz, the name of its array of masks.

    Raises:
        InputError: the path, layout, table or class names cannot be used. Broken images are not errors here: they
            raise ImageError when loaded.
        MissingExtraError: at load, DICOM or NIfTI without the ``medical`` extra.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    if path.is_dir():
        return open_folder(
            path,
            classes=classes,
            labels=None if labels is None else Path(labels),
            split=split,
            options=options,
            masks=None if masks is None else Path(masks),
        )
    if path.suffix.lower() == ".npz":
        from certimed.data.npz import open_npz

        return open_npz(
            path,
            classes=classes,
            labels=None if labels is None else str(labels),
            split=split,
            options=options,
            masks=None if masks is None else str(masks),
        )
    for name, value in (("labels", labels), ("split", split), ("masks", masks)):
        if value is not None:
            raise InputError(f"{name}={str(value)!r} is of no use for the single image {path}; open its folder")
    names = None if classes is None else ClassList.parse(classes).names
    return Dataset((Item(path.name, path),), names, path.as_posix(), 0, options, FileStore())
