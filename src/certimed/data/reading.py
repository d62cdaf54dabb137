"""One image file in, pixels and the sentence on intensities out, whatever the format; failures are ImageErrors."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from certimed.data.images import DEFAULT_READ, MedicalImage, ReadOptions
from certimed.data.intensity import UnreadableError
from certimed.data.pillow import read_pillow
from certimed.errors import ImageError, InputError, MissingExtraError

PILLOW_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
IMAGE_SUFFIXES = PILLOW_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES
"""Files with these endings are images; everything else in a folder is ignored and counted."""

_HEAD = 1024
_PILLOW_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"BM", b"GIF8")
_QUIET = threading.RLock()


def read_image(path: str | Path, options: ReadOptions = DEFAULT_READ, *, name: str | None = None) -> MedicalImage:
    """Read one PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM or NIfTI file; the content decides, not the ending.

    Args:
        path: the file.
        options: choices the file leaves open.
        name: id of the image and its name in messages; the file's own name by default.

    Raises:
        ImageError: the file cannot be used; one sentence with the name and the reason.
        MissingExtraError: DICOM or NIfTI without the ``medical`` extra.
    """
    path = Path(path)
    name = name or printable(Path(path.name))
    pixels, intensity = read_pixels(path, options, name)
    return MedicalImage(name, pixels, None, intensity, printable(path))


def read_pixels(path: Path, options: ReadOptions, name: str) -> tuple[NDArray[np.float32], str]:
    """Float32 ``(C, H, W)`` in [0, 1] and the sentence on intensities; raises as :func:`read_image`."""
    with reading(name):
        kind = file_kind(path)
        if kind == "dicom":
            from certimed.data.dicom import read_dicom

            return read_dicom(path, options)
        if kind == "nifti":
            from certimed.data.nifti import read_nifti

            return read_nifti(path, options)
        return read_pillow(path, options)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Run a reader with warnings and logging off; whatever goes wrong becomes one ImageError sentence.

    Decoders raise nearly every exception there is on hostile bytes, hence the broad net. The lock is there because
    both switches are global to the process: two threads leaving in the wrong order would leave them off for good.
    """
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        except (ImageError, MissingExtraError):
            raise
        except InputError as error:
            raise ImageError(f"{name} cannot be read: {error}") from None
        except UnreadableError as error:
            raise ImageError(f"{name} cannot be read: {error}") from None
        except Image.DecompressionBombError:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise ImageError(f"{name} cannot be read: its header says more pixels than {limit}") from None
        except UnidentifiedImageError:
            raise ImageError(f"{name} cannot be read: its image header is broken or cut off") from None
        except MemoryError:
            raise ImageError(f"{name} cannot be read: it asks for more memory than there is") from None
        except FileNotFoundError:
            raise ImageError(f"{name} cannot be read: there is no such file") from None
        except Exception as error:
            raise ImageError(f"{name} cannot be read: {_reason(error)}") from error
        finally:
            logging.disable(level)


def file_kind(path: Path) -> str:
    """``"pillow"``, ``"dicom"`` or ``"nifti"``, by the first bytes.

    Raises:
        UnreadableError: not a regular file, empty, or none of the known formats.
    """
    if path.exists() and not path.is_file():
        raise UnreadableError("it is not a regular file")
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
    if head.startswith(_PILLOW_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "pillow"
    # Old DICOM writers left out the preamble; the first element is then of group 0002 or 0008, little endian.
    if path.suffix.lower() in DICOM_SUFFIXES and head[:4] in _BARE_DICOM:
        return "dicom"
    raise UnreadableError("its content is none of PNG, JPEG, TIFF, BMP, GIF, WebP, DICOM or NIfTI")


_BARE_DICOM = (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes (348 or more) are a single-file NIfTI-1 or NIfTI-2 header."""
    return head[344:348] == b"n+1\x00" or head[4:8] == b"n+2\x00"


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image in a folder."""
    return name.lower().endswith(IMAGE_SUFFIXES)


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
        raise UnreadableError(f"its gzip stream is broken ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """A decoder's message on one line; its kind where it has none."""
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
