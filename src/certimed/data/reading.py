"""One image file in, pixels and the sentence on intensities out, whatever the format; failures are ImageErrors."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from certimed.data.files import file_kind, printable, reason
from certimed.data.images import DEFAULT_READ, MedicalImage, ReadOptions
from certimed.data.intensity import UnreadableError
from certimed.data.pillow import read_pillow
from certimed.data.records import Reading
from certimed.data.slides import Region
from certimed.errors import ImageError, InputError, MissingExtraError

_LONGEST = 500  # characters of a reason
_PILLOW_PIXELS = (1 << 30) // 12  # what Pillow warns of; it refuses twice as many
_QUIET = threading.RLock()


def read_image(path: str | Path, options: ReadOptions = DEFAULT_READ, *, name: str | None = None) -> MedicalImage:
    """Read one PNG, JPEG, BMP, GIF, WebP, TIFF, DICOM or NIfTI file; the content decides, not the ending.

    Args:
        path: the file.
        options: choices the file leaves open.
        name: id of the image and its name in messages; the file's own name by default.

    Raises:
        ImageError: the file cannot be used; one sentence with the name and the reason.
        MissingExtraError: TIFF, DICOM or NIfTI without the ``medical`` extra.
    """
    path = Path(path)
    name = name or printable(Path(path.name))
    read = read_pixels(path, options, name)
    return image_of(read, name, printable(path))


def image_of(read: Reading, name: str, source: str, **about: Any) -> MedicalImage:
    """What a reader returned, as an image.

    Args:
        read: of the file.
        name, source: of the image.
        about: label, mask, group and mask_reading where they are known; steps instead of those read.
    """
    told = {"label": None, "steps": read.steps, **about}
    return MedicalImage(
        name,
        read.pixels,
        source=source,
        decoders=read.decoders,
        spacing=read.spacing,
        geometry=read.geometry,
        raw=read.raw,
        raw_unit=read.raw_unit,
        **told,
    )


def read_pixels(path: Path, options: ReadOptions, name: str) -> Reading:
    """Pixels, steps and decoders of one file; raises as :func:`read_image`."""
    with reading(name):
        if path.is_dir():
            from certimed.data.series import read_series

            return read_series(path, options)
        if path.suffix.lower() == ".img" and (header := path.with_suffix(".hdr")).is_file():
            path = header
        kind = file_kind(path)
        if options.level and kind != "tiff":
            raise UnreadableError(f"level {options.level} was asked for and it is no pyramid")
        if kind == "dicom":
            from certimed.data.series import read_frames

            if options.volume:
                return read_frames(path, options)
            from certimed.data.dicom import read_dicom as read
        elif kind == "nifti":
            from certimed.data.nifti import read_nifti as read
        elif kind == "tiff":
            from certimed.data.tiff import read_tiff as read
        else:
            read = read_pillow
        if options.volume and kind != "nifti":
            raise UnreadableError("it is one picture and no volume; certify it without --volume")
        return read(path, options)


def read_patch_pixels(path: Path, region: Region, options: ReadOptions, name: str) -> Reading:
    """Pixels, steps and decoders of one patch of a slide; raises as :func:`read_image`."""
    from certimed.data.slides import read_patch

    with reading(name):
        return read_patch(path, region, options)


@contextmanager
def _strict_pillow() -> Iterator[None]:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, _PILLOW_PIXELS
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Run a reader with warnings and logging off; whatever goes wrong becomes one ImageError sentence.

    Decoders raise nearly every exception there is on hostile bytes, hence the broad net. The lock is there because
    the switches are global to the process: two threads leaving in the wrong order would leave them off for good.
    Pillow's own switches are set too: libraries that are imported beside us (WeasyPrint) let it read cut-off files,
    whose missing pixels would be certified as grey or black.
    """
    with _QUIET, _strict_pillow(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        except (ImageError, MissingExtraError):
            raise
        except (InputError, UnreadableError) as error:
            # Words of the file's may be in it, and theirs may have line ends.
            raise ImageError(f"{name} cannot be read: {' '.join(str(error).split())[:_LONGEST]}") from None
        except Image.DecompressionBombError:
            limit = 2 * _PILLOW_PIXELS
            raise ImageError(f"{name} cannot be read: its header says more pixels than {limit}") from None
        except UnidentifiedImageError:
            raise ImageError(
                f"{name} cannot be read: its image header is broken or cut off, or of a variant that is not supported"
            ) from None
        except MemoryError:
            raise ImageError(f"{name} cannot be read: it asks for more memory than there is") from None
        except FileNotFoundError:
            raise ImageError(f"{name} cannot be read: there is no such file") from None
        except Exception as error:
            raise ImageError(
                f"{name} cannot be read: it is broken or of a kind not supported ({reason(error)})"
            ) from error
        finally:
            logging.disable(level)
