"""A folder of hostile image files, each with what must come of it: shape of the pixels, or a part of the refusal."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Outcome = tuple[int, int, int] | str
"""``(C, H, W)`` when the file must be read, or words the refusal must contain."""


def make_hostile_folder(folder: Path) -> dict[str, Outcome]:
    """Write the files and return the outcome wanted of each, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {**_pillow_files(folder), **_other_files(folder), **_dicom_files(folder), **_nifti_files(folder)}


def _encode(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def _pillow_files(folder: Path) -> dict[str, Outcome]:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    png, jpeg, tiff = (_encode(noise, kind) for kind in ("PNG", "JPEG", "TIFF"))
    frames = [Image.new("RGB", (6, 5), (value, 0, 0)) for value in (10, 200)]
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    files: dict[str, tuple[bytes, Outcome]] = {
        "truncated.png": (png[: len(png) // 2], "cannot be read"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated_progressive.jpg": (_encode(noise, "JPEG", progressive=True)[:600], "cannot be read"),
        "truncated.tif": (tiff[: len(tiff) // 2], "cannot be read"),
        "truncated_lzw.tif": (_encode(noise, "TIFF", compression="tiff_lzw")[:900], "cannot be read"),
        "truncated.bmp": (_encode(noise, "BMP")[:500], "cannot be read"),
        "truncated.gif": (_encode(noise[..., 0], "GIF")[:300], "cannot be read"),
        "only_signature.png": (png[:8], "header is broken or cut off"),
        "bad_checksum.png": (bytes(flipped), "cannot be read"),
        "png_called.jpg": (png, (3, 40, 30)),
        "jpeg_called.png": (jpeg, (3, 40, 30)),
        "one_pixel.png": (_encode(noise[:1, :1], "PNG"), (3, 1, 1)),
        "bomb_header.png": (_png_header(40_000, 40_000), "more pixels than"),
        "bomb_header.bmp": (_bmp_header(40_000, 40_000), "more pixels than"),
        "bomb_real.png": (_png_header(12_000, 12_000, zlib.compress(bytes(12_001 * 12_000))), "12000 x 12000 pixels"),
        "zero_wide.png": (_png_header(0, 5), "cannot be read"),
        "cmyk.jpg": (_encode(Image.new("CMYK", (7, 3), (0, 90, 10, 0)), "JPEG"), (3, 3, 7)),
        "palette.png": (_encode(Image.fromarray(noise).convert("P"), "PNG"), (3, 40, 30)),
        "animated.gif": (_encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), (3, 5, 6)),
        "animated.png": (_encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), (3, 5, 6)),
        "deep.png": (_encode(noise[..., 0].astype(np.uint16) * 257, "PNG"), (1, 40, 30)),
        "alpha.png": (_encode(np.dstack([noise, noise[..., 0]]), "PNG"), (3, 40, 30)),
        "not_finite.tif": (_encode(np.array([[0.5, np.nan]], np.float32), "TIFF"), "not finite"),
        "signed_32_bit.tif": (_encode(np.array([[-5, 70_000]], np.int32), "TIFF"), "give a window"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: outcome for name, (_, outcome) in files.items()}


def _other_files(folder: Path) -> dict[str, Outcome]:
    (folder / "text.png").write_text("I am not a picture.\n" * 50)
    (folder / "empty.png").write_bytes(b"")
    (folder / "zeros.jpg").write_bytes(bytes(5000))
    (folder / "page.tif").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (folder / "text.dcm").write_text("Patient: nobody\n" * 30)
    (folder / "text.nii.gz").write_bytes(gzip.compress(b"no volume here" * 100))
    (folder / "empty.dcm").write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    return {
        "text.png": "none of PNG",
        "empty.png": "empty (0 bytes)",
        "zeros.jpg": "none of PNG",
        "page.tif": "none of PNG",
        "text.dcm": "none of PNG",
        "text.nii.gz": "no NIfTI volume",
        "empty.dcm": "empty (0 bytes)",
        "pipe.png": "not a regular file",
        "dangling.png": "no such file",
    }


def _dicom_files(folder: Path) -> dict[str, Outcome]:
    from dicom_files import write

    noise = np.random.default_rng(1).integers(0, 4096, (20, 30), dtype=np.uint16)
    good = write(folder / "good.dcm", noise, bits=12).read_bytes()
    (folder / "truncated.dcm").write_bytes(good[:-300])
    (folder / "truncated_header.dcm").write_bytes(good[:200])
    write(folder / "bomb_header.dcm", noise, Rows=40_000, Columns=40_000)
    write(folder / "zero_rows.dcm", noise, Rows=0)
    import pydicom

    bare = pydicom.dcmread(folder / "good.dcm")
    del bare.PixelData
    bare.save_as(folder / "no_pixels.dcm")
    return {
        "good.dcm": (1, 20, 30),
        "truncated.dcm": "cannot be read",
        "truncated_header.dcm": "without pixel data",
        "bomb_header.dcm": "40000 x 40000 pixels",
        "zero_rows.dcm": "cannot be read",
        "no_pixels.dcm": "without pixel data",
    }


def _nifti_files(folder: Path) -> dict[str, Outcome]:
    import nibabel

    volume = np.random.default_rng(2).normal(100, 10, (6, 7, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "good.nii.gz")
    zipped = (folder / "good.nii.gz").read_bytes()
    (folder / "truncated.nii.gz").write_bytes(zipped[: len(zipped) // 2])
    plain = gzip.decompress(zipped)
    (folder / "truncated.nii").write_bytes(plain[: len(plain) // 2])
    (folder / "bomb_header.nii").write_bytes(plain[:42] + struct.pack("<3h", 30_000, 30_000, 30_000) + plain[48:])
    (folder / "zero_size.nii").write_bytes(plain[:42] + struct.pack("<3h", 0, 7, 8) + plain[48:])
    volume[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "not_finite.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), folder / "constant.nii.gz")
    return {
        "good.nii.gz": (1, 7, 6),
        "truncated.nii.gz": "cannot be read",
        "truncated.nii": "cannot be read",
        "bomb_header.nii": "voxels that are read at once",
        "zero_size.nii": "cannot be read",
        "not_finite.nii.gz": "not finite",
        "constant.nii.gz": "percentiles",
    }


def _png_header(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)
