"""`open_dataset`: one path in, a data set out, whatever the layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from certimed.data.classes import ClassList
from certimed.data.dataset import Dataset, FileStore, Item
from certimed.data.files import stem
from certimed.data.folders import open_folder
from certimed.data.images import DEFAULT_READ, ReadOptions
from certimed.data.reading import reading
from certimed.data.slices import cut_slices
from certimed.data.slides import parse_patches, places_of
from certimed.data.tables import Columns
from certimed.errors import InputError


def open_dataset(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    labels: str | Path | None = None,
    split: str | None = None,
    options: ReadOptions = DEFAULT_READ,
    masks: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    patches: str | None = None,
    slices: str | None = None,
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

    In folders, files with the ending of an image are items; others, and DICOM objects without an image (directories,
    reports, structures), are counted in ``Dataset.ignored``; hidden files and ``Thumbs.db`` are neither. Ids are paths
    relative to the opened folder (to its ``images`` folder for segmentation), in Unicode NFC, sorted, so they do not
    depend on the machine.

    Args:
        path: file or folder.
        classes: class names in the order wanted, each ``"name"`` or ``"name in the data=words for the prompt"``.
            Names are compared without regard to case, spaces, underscores and hyphens; two entries with the same
            words merge two classes.
        labels: CSV with an image and a label column, or, for an npz, the name of its array of labels.
        split: subfolder of that name, rows of a table's ``split`` column, or of an npz's ``split`` array.
        options: how files become pixels.
        masks: folder of masks, or, for an npz, the name of its array of masks.
        image_column, label_column: names of these columns of the table, where they are none of the known ones.
        patches: cut every file, a whole-slide image, into patches at ``options.level``: ``"grid:SIZE"`` for the whole
            squares of SIZE pixels that fit, row by row, or a CSV with columns ``x``, ``y`` (upper left corner in
            pixels of level 0), ``size`` or ``width`` and ``height`` (pixels of the level read) and ``slide``. The id
            of a patch is its slide's, its level and its place; its group is its slide.
        slices: cut every volume into slices: ``"all"``, ``"every:K"`` or ``"A:B"``, see
            :func:`certimed.data.slices.cut_slices`. With it, and with ``options.volume``, the DICOM files of one folder
            are one series, whose id is the folder's path.

    Raises:
        InputError: the path, layout, table or class names cannot be used. Broken images are not errors here: they
            raise ImageError when loaded.
        MissingExtraError: at load (with patches at once), TIFF, DICOM or NIfTI without the ``medical`` extra.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    columns = Columns(image_column, label_column)
    if options.orientation is not None and not options.volume:
        raise InputError(f"orientation={options.orientation!r} is of volumes read whole; read them so (--volume)")
    if slices is not None and (options.volume or patches is not None):
        raise InputError(f"slices={slices!r} are of planes, and the data is read whole or in patches; choose one")
    if path.is_dir():
        opened = open_folder(
            path,
            classes=classes,
            labels=None if labels is None else Path(labels),
            split=split,
            options=options,
            masks=None if masks is None else Path(masks),
            columns=columns,
            series=options.volume or slices is not None,
        )
        if opened.is_labelled and not opened.has_masks and opened.class_names and len(opened.class_names) < 2:
            raise InputError(
                f"{path} has images of one class only ({opened.class_names[0]}), and a classifier chooses between two "
                "or more; name all its classes with classes= (--classes a,b), or open the folder of the images itself "
                "where its name is no class"
            )
        return _cut(opened, patches, slices)
    if path.suffix.lower() == ".npz":
        useless = {"image_column": image_column, "label_column": label_column, "patches": patches, "slices": slices}
        for name, value in useless.items():
            if value is not None:
                raise InputError(f"{name}={value!r} is of no use for the npz {path}")
        from certimed.data.npz import open_npz

        return open_npz(
            path,
            classes=classes,
            labels=None if labels is None else str(labels),
            split=split,
            options=options,
            masks=None if masks is None else str(masks),
        )
    unused: dict[str, str | Path | None] = {
        "labels": labels,
        "split": split,
        "masks": masks,
        "image_column": image_column,
        "label_column": label_column,
    }
    for name, given in unused.items():
        if given is not None:
            raise InputError(f"{name}={str(given)!r} is of no use for the single image {path}; open its folder")
    names = None if classes is None else ClassList.parse(classes).names
    opened = Dataset((Item(path.name, path),), names, path.as_posix(), 0, options, FileStore())
    return _cut(opened, patches, slices)


def _cut(opened: Dataset, patches: str | None, slices: str | None) -> Dataset:
    if slices is not None:
        return cut_slices(opened, slices)
    return opened if patches is None else _patches(opened, patches)


def _patches(slides: Dataset, patches: str) -> Dataset:
    """Every item's patches instead of the item; a slide that cannot be cut stops, as it would lose many items."""
    if slides.has_masks:
        raise InputError(f"patches={patches!r} cannot be cut from images with masks; cut both beforehand")
    places = parse_patches(patches)
    items, used = [], set()
    for item in slides.items:
        assert isinstance(item.image, Path)
        names = {item.id, stem(item.id), item.image.name, stem(item.image.name)}
        used |= names
        with reading(item.id):
            regions = places_of(names, item.image, places, slides.options.level)
        items += [
            replace(item, id=f"{item.id}#l{slides.options.level}{region}", group=item.group or item.id, region=region)
            for region in regions
        ]
    unknown = [] if isinstance(places, int) else [place for place in places if place.slide and place.slide not in used]
    if unknown or not items:
        found = f"line {unknown[0].line} names {unknown[0].slide}" if unknown else "no row is of a slide"
        raise InputError(f"the table of patches {patches} fits no slide of {slides.source}: {found}")
    return replace(slides, items=tuple(items))
