"""Formats of single images: every certificate of a run, with its image where that can still be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import IntervalCertificate, MaskCertificate
from certimed.data import MedicalImage
from certimed.data.files import stored_files
from certimed.errors import ImageError, InputError
from certimed.exports.options import Exported, ExportOptions
from certimed.metrics.volumes import volume_of
from certimed.operators.placing import index_map
from certimed.runs import CERTIFIED, RunFolder, RunSpec
from certimed.runs.images import Images, Pictures

_PLURAL = {MaskCertificate: "masks", IntervalCertificate: "measurements"}


@dataclass(frozen=True)
class Subject:
    """One certificate to be written, with what is known of its image.

    Attributes:
        folder: the run.
        digest: of the run, see :meth:`certimed.runs.RunFolder.digest`.
        name: what the file is about: the image, or the volume that the image is a slice of.
        certificate: what is written.
        image: as it was read, or None where it is not there any more.
        files: the files it was read from; empty with ``image``.
        options: what was asked for.
    """

    folder: RunFolder
    digest: str
    name: str
    certificate: Any
    image: MedicalImage | None
    files: tuple[Path, ...]
    options: ExportOptions

    @property
    def to_image(self) -> NDArray[np.float64] | None:
        """``(4, 4)``: takes the index of a certified pixel to the (fractional) index of a pixel of the image, by the
        map that the certificate records; None where shapes differ and no map is recorded.
        """
        shape, native = self.certificate.about.answered[1:], self.certificate.native
        if native is not None and (self.image is None or native.shape[1:] == self.image.pixels.shape[1:]):
            return index_map(native.geometry)
        same = self.image is None or self.image.pixels.shape[1:] == tuple(shape)
        return np.eye(4) if same else None

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """``(4, 4)``: takes the index of a certified pixel to millimetres in RAS+; None where nothing says where the
        image lies.
        """
        geometry, to_image = None if self.image is None else self.image.geometry, self.to_image
        return None if geometry is None or to_image is None else geometry.matrix @ to_image


Writer = Callable[[Sequence[Subject], Path, list[str]], Sequence[Path]]
"""Writes certificates that belong together into files whose names begin with a path, says which, and adds notes."""


def one_by_one(write: Callable[[Subject, Path], Sequence[Path]]) -> Writer:
    """A writer of single certificates."""
    return lambda subjects, base, notes: [path for subject in subjects for path in write(subject, base)]


def of_each(
    kinds: tuple[type[Any], ...], write: Writer, *, together: bool = False
) -> Callable[[RunFolder, Path, ExportOptions], Exported]:
    """A format of whole runs from one of single images.

    Args:
        kinds: of certificates that the format holds.
        write: certificates of one image; an ImageError it raises leaves that image out, with a note.
        together: whether the slices of one volume are written together, as one image.
    """

    def run(folder: RunFolder, out: Path, options: ExportOptions) -> Exported:
        digest, done = folder.digest(), Exported()
        images = Images(folder.path, options.data, options.masks, options.labels, options.split)
        pictures = images.find(folder, folder.status())
        if pictures.note:
            done.notes.append(pictures.note)
        names: dict[str, str] = {}
        for name, certificates in _chosen(folder, kinds, options, together):
            loaded = [(one, pictures.load(one.item)) for one in certificates]
            subjects = [
                Subject(folder, digest, name, one, image, _files(pictures, one.item, image), options)
                for one, image in loaded
            ]
            base = out / _folder_of(name, names) / _safe(certificates[0].label)
            try:
                base.parent.mkdir(parents=True, exist_ok=True)
                done.files += write(subjects, base, done.notes)
            except ImageError as error:
                done.notes.append(str(error))
            except OSError as error:
                raise InputError(f"{base.parent} cannot be written ({error.strerror})") from error
        if not done.files:
            raise InputError(" ".join(dict.fromkeys(done.notes)) or f"{folder.path} holds nothing to write")
        done.notes = list(dict.fromkeys(done.notes))
        return done

    return run


def _chosen(
    folder: RunFolder, kinds: tuple[type[Any], ...], options: ExportOptions, together: bool
) -> Iterator[tuple[str, list[Any]]]:
    """What is written together: the name of an image, or of a volume cut into slices, and certificates of one label."""
    status = folder.status()
    unknown = [item for item in options.items if item not in status]
    if unknown:
        raise InputError(f"{folder.path} has no image {unknown[0]!r:.80}")
    names = [entry["name"] for entry in folder.methods]
    if options.method is not None and options.method not in names:
        raise InputError(f"method {options.method} must be one of {', '.join(names)}")
    joined = together and RunSpec.from_dict(folder.manifest.get("request")).data.slices is not None
    wanted = {item for item, (_, state) in status.items() if state == CERTIFIED and item in (options.items or status)}
    missing = Counter(volume_of(item) if joined else item for item in wanted)
    waiting: dict[str, dict[str, list[Any]]] = {}
    found = False
    for record in folder.records():
        if record.item not in wanted:
            continue
        name = volume_of(record.item) if joined else record.item
        own = waiting.setdefault(name, {})
        for label, one in record.certificates.items():
            if isinstance(one, kinds) and options.method in (None, one.method):
                own.setdefault(label, []).append(one)
        missing[name] -= 1
        if not missing[name]:  # only volumes that are not whole yet are in memory
            for certificates in waiting.pop(name).values():
                found = True
                yield name, sorted(certificates, key=lambda one: one.item)
    if not found:
        said = " or ".join(_PLURAL[kind] for kind in kinds)
        raise InputError(f"{folder.path} has no certificates of {said} to write in this format")


def _files(pictures: Pictures, name: str, image: MedicalImage | None) -> tuple[Path, ...]:
    item = pictures.item(name)
    if image is None or item is None or not isinstance(item.image, Path):
        return ()
    if image.geometry is not None and image.geometry.files:
        return tuple(map(Path, image.geometry.files))
    return stored_files(item.image)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "image"


def _folder_of(item: str, names: dict[str, str]) -> str:
    """A folder's name of an image, safe on every system; two that would be named alike get a number."""
    if item not in names:
        base = name = _safe(item)[:100]
        number, taken = 2, {one.lower() for one in names.values()}
        while name.lower() in taken:
            name, number = f"{base}-{number}", number + 1
        names[item] = name
    return names[item]
