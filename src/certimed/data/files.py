"""What a file is, by its first bytes and its name, before any reader is chosen; standard library only."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Collection
from pathlib import Path

from certimed.data.intensity import UnreadableError

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".bif")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr")
IMAGE_SUFFIXES = PILLOW_SUFFIXES + TIFF_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES
"""Files with these endings are images; everything else in a folder is ignored and counted."""

_HEAD = 1024
_PILLOW_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8")
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NIFTI_1 = (b"n+1\x00", b"ni1\x00")
_NIFTI_2 = (b"n+2\x00", b"ni2\x00")
# What stands where an image should, and what to do about it.
_STANDINS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"/annex/objects/", "it is a git-annex pointer, not the file itself; fetch it with: git annex get"),
    (b"<!doctype html", "it is a web page, not the file itself; download that"),
    (b"<html", "it is a web page, not the file itself; download that"),
)
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")
# SOP classes (or, with a dot at the end, families of them) that hold no image: directories, reports, documents,
# presentation states, waveforms, raw data, registrations, RT structures, plans and records.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = (
    "1.2.840.10008.1.3.10",
    *(_STORAGE + end for end in ("9.", "11.", "66", "66.1", "66.2", "66.3", "66.5", "66.6", "67", "88.", "104.")),
    *(f"{_STORAGE}481.{number}" for number in (3, 4, 5, 6, 7, 8, 9)),
)


def file_kind(path: Path) -> str:
    """``"pillow"``, ``"tiff"``, ``"dicom"`` or ``"nifti"``, by the first bytes.

    Raises:
        UnreadableError: not a regular file, empty, or none of the known formats.
    """
    if path.exists() and not path.is_file():
        raise UnreadableError("it is not a regular file")
    if path.is_symlink() and not path.exists():
        raise UnreadableError("there is no such file behind the link (of git-annex: fetch it with: git annex get)")
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise UnreadableError("it is empty (0 bytes)")
    if head.startswith(b"\x1f\x8b"):
        head = _gunzipped_head(path)
        if not is_nifti(head):
            raise UnreadableError("it is gzip-compressed and holds no NIfTI volume")
    if is_nifti(head):
        return "nifti"
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_TIFF_MAGIC):
        return "tiff"
    if head.startswith(_PILLOW_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "pillow"
    # Old DICOM writers left out the preamble; the first element is then of group 0002 or 0008, little endian.
    if path.suffix.lower() in DICOM_SUFFIXES and head[:4] in _BARE_DICOM:
        return "dicom"
    if words := stand_in(head):
        raise UnreadableError(words)
    if head.startswith(_JPEG_2000):
        raise UnreadableError(
            "it is a JPEG 2000 file, which is read inside TIFF and DICOM only; save it as TIFF or PNG"
        )
    if path.suffix.lower() == ".hdr" and head[:4] in {b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"}:
        raise UnreadableError("it is an Analyze 7.5 header, which does not say where left is; save it as NIfTI")
    raise UnreadableError("its content is none of PNG, JPEG, BMP, GIF, WebP, TIFF, DICOM or NIfTI")


_BARE_DICOM = (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")


def stand_in(head: bytes) -> str | None:
    """What stands where a file should be, by its first bytes, and what to do about it; None for anything else."""
    return next((words for mark, words in _STANDINS if mark in head[:200].lower()), None)


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes (348 or more) are a NIfTI-1 or NIfTI-2 header, of a single file or of a pair."""
    return head[344:348] in _NIFTI_1 or head[4:8] in _NIFTI_2


def is_image_file(path: Path, beside: Collection[str]) -> bool:
    """Whether a file in a folder is taken for an image, among the names ``beside`` it in lower case.

    By its ending; without one, or with a numeric one, by its first bytes, as DICOM files often carry a UID for a name.
    A DICOM directory, report or other object without an image is none; a ``.hdr`` is one beside its ``.img``.
    """
    name = path.name.lower()
    if name.endswith(".hdr"):
        return f"{name[:-4]}.img" in beside
    bare = is_dicom_name(name) and not name.endswith(DICOM_SUFFIXES)
    if name == "dicomdir" or not (bare or name.endswith(IMAGE_SUFFIXES)):
        return False
    if not (bare or name.endswith(DICOM_SUFFIXES)):
        return True
    try:
        head = b""
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(_HEAD)
    except OSError:
        return not bare
    return (head[128:132] == b"DICM" or not bare) and not _holds_no_image(head)


def is_dicom_name(name: str) -> bool:
    """Whether an image file of this name is DICOM: by its ending, or because it has none, or a numeric one."""
    bare = Path(name).suffix
    return name.lower().endswith(DICOM_SUFFIXES) or not bare or bare[1:].isdecimal()


def _holds_no_image(head: bytes) -> bool:
    """Whether the SOP class in a DICOM file's first bytes is one without an image."""
    at = head.find(b"\x02\x00\x02\x00UI", 132)
    if head[128:132] != b"DICM" or at < 0:
        return False
    uid = head[at + 8 : at + 8 + int.from_bytes(head[at + 6 : at + 8], "little")].rstrip(b"\0 ").decode("latin-1")
    return any(uid == known or (known.endswith(".") and uid.startswith(known)) for known in _NO_IMAGES)


def stored_files(path: Path) -> tuple[Path, ...]:
    """The files an image is stored in: itself, and the voxels of a NIfTI header; the files of a series' folder."""
    if path.is_dir():
        return tuple(sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")))
    partner = path.with_suffix(".img")
    return (path, partner) if path.suffix.lower() == ".hdr" and partner.is_file() else (path,)


def printable(path: Path) -> str:
    """The path with forward slashes; bytes of the name that are no UTF-8 are written as ``\\xNN``."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def stem(name: str) -> str:
    """A file name or relative path without its image ending (``.nii.gz`` counts as one ending)."""
    lower = name.lower()
    endings = sorted((ending for ending in IMAGE_SUFFIXES if lower.endswith(ending)), key=len)
    return name[: -len(endings[-1])] if endings else name


def _gunzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD)
    except (EOFError, OSError, zlib.error) as error:
        raise UnreadableError(f"its gzip stream is broken ({reason(error)})") from None


def reason(error: Exception) -> str:
    """A decoder's message on one line; its kind where it has none."""
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
