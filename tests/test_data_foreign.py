"""Files of others: the test images bundled with pydicom, nibabel, scikit-image and, where a folder is named, more.

Every file is read or refused with a sentence; what is read equals a reader that shares no step with ours: pydicom's own
windowing, nibabel's reorientation, imagecodecs beside Pillow and Pillow beside tifffile. Differences are stated here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from certimed.data import Intensity, MedicalImage, read_image
from certimed.errors import ImageError

pytestmark = pytest.mark.slow

LOSSY_JPEG = 6 / 255  # two decoders of the same lossy stream, after colour conversion
EXACT = 1e-6


def folder(package: str, *parts: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent.joinpath(*parts) if spec is not None and spec.origin is not None else None


SETS: dict[str, tuple[Path | None, int]] = {
    "pydicom": (folder("pydicom", "data", "test_files"), 80),
    "pydicom-data": (folder("data_store", "data"), 60),
    "nibabel": (folder("nibabel", "tests", "data"), 7),
    "scikit-image": (folder("skimage", "data"), 25),
    # Any folder of images, such as Pillow's Tests/images or tifffile's test files; nothing need be readable in it.
    "CERTIMED_FOREIGN_IMAGES": (Path(os.environ.get("CERTIMED_FOREIGN_IMAGES", "/nonexistent")), 0),
}


@pytest.mark.parametrize("name", SETS)
def test_every_file_is_read_as_others_read_it_or_refused_in_a_sentence(name: str) -> None:
    root, wanted = SETS[name]
    if root is None or not root.is_dir():
        pytest.skip(f"the files of {name} are not there")
    read, compared, wrong = 0, 0, []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}):
        try:
            image = read_image(path)
        except ImageError as error:
            message = str(error)
            assert message.startswith(path.name) and "\n" not in message and len(message) < 600, message
            continue
        read += 1
        assert Intensity.from_json(json.loads(json.dumps(image.intensity_record.to_json()))).steps
        assert image.decoders and all(isinstance(version, str) for version in image.decoders.values())
        expected = independent(path, image)
        if expected is None:
            continue
        compared += 1
        values, tolerance = expected
        difference = np.inf if values.shape != image.pixels.shape else float(np.abs(values - image.pixels).max())
        if difference > tolerance:
            wrong.append(f"{path.name}: {difference:.2g} ({image.intensity})")
    assert not wrong, "\n".join(wrong)
    assert read >= wanted
    assert compared >= 0.8 * wanted


def independent(path: Path, image: MedicalImage) -> tuple[np.ndarray, float] | None:
    """The same pixels by another way, and the difference allowed; None where no other reader opens the file."""
    reader = {"pydicom": dicom, "nibabel": nifti, "Pillow": picture, "tifffile": tiff}[next(iter(image.decoders))]
    return reader(path, image)


def dicom(path: Path, image: MedicalImage) -> tuple[np.ndarray, float] | None:
    import pydicom
    from pydicom import pixels

    header = pydicom.dcmread(path, force=True)
    if not getattr(header.file_meta, "TransferSyntaxUID", None):
        header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    syntax = header.file_meta.TransferSyntaxUID
    lossy = syntax in {pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit}
    stored = None
    if syntax.is_compressed and syntax != pydicom.uid.DeflatedExplicitVRLittleEndian:
        others = [name for name in pixels.get_decoder(syntax).available_plugins if name not in {"pylibjpeg", "pydicom"}]
        if others:
            try:
                stored = pixels.pixel_array(header, index=0, decoding_plugin=others[0])
            except (RuntimeError, NotImplementedError, OSError):
                stored = None  # Pillow knows no 12-bit JPEG and not every JPEG 2000
    if stored is None:
        stored = pixels.pixel_array(header, index=0)
    if stored.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored = pixels.apply_color_lut(stored, header)
        top = 2 ** (8 * stored.itemsize) - 1
        if header.PhotometricInterpretation != "PALETTE COLOR":
            top = 2**header.BitsStored - 1
        return stored[..., :3].transpose(2, 0, 1) / top, LOSSY_JPEG if lossy else EXACT
    placed = image.intensity_record
    if "RescaleSlope" not in header and (step := placed.find("rescaled")) is not None:
        # pydicom's function does not look into functional groups
        header.RescaleSlope, header.RescaleIntercept = step.values["slope"], step.values["intercept"]
    values = pixels.apply_modality_lut(stored, header).astype(np.float64)
    if (step := placed.find("header_window")) is not None:
        centre, width = step.values["centre"], step.values["width"]
        probe = pydicom.Dataset()  # pydicom's own window, from a header that holds nothing else
        probe.PhotometricInterpretation, probe.BitsStored, probe.PixelRepresentation = "MONOCHROME2", 16, 0
        probe.RescaleSlope, probe.RescaleIntercept = 1, 0
        probe.WindowCenter, probe.WindowWidth, probe.VOILUTFunction = centre, width, step.values["function"]
        unit = pixels.apply_windowing(values, probe) / 65535
    elif placed.find("full_range") is not None:
        bits, signed = int(header.BitsStored), int(header.PixelRepresentation)
        if placed.find("modality_table") is not None:
            bits, signed = int(header.ModalityLUTSequence[0].LUTDescriptor[2]), 0
        low = -(2 ** (bits - 1)) if signed else 0
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        unit = (values - (low * slope + intercept)) / ((2**bits - 1) * slope)
    else:
        return None  # a VOI table: pydicom's own function is what read it
    unit = 1 - unit if header.PhotometricInterpretation == "MONOCHROME1" else unit
    padding = header.get("PixelPaddingValue")
    if placed.find("padding") is not None:
        unit = np.where(stored == padding, 0, unit)
    return np.clip(unit, 0, 1)[None], LOSSY_JPEG if lossy else 1e-5


def nifti(path: Path, image: MedicalImage) -> tuple[np.ndarray, float] | None:
    import nibabel

    volume = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    volume = volume.reshape((*volume.shape[:3], -1))[..., 0]
    step = image.intensity_record.find("slice")
    assert step is not None
    axis = ("sagittal", "coronal", "axial").index(step.values["axis"])
    plane = np.rot90(np.take(volume, volume.shape[axis] // 2, axis))
    low, high = np.percentile(volume, (0.5, 99.5))
    return np.clip((plane - low) / (high - low), 0, 1)[None], 1e-5


def picture(path: Path, image: MedicalImage) -> tuple[np.ndarray, float] | None:
    import imagecodecs

    if any(image.intensity_record.find(kind) for kind in ("turned", "transparency_dropped", "converted", "frame")):
        return None  # the other readers neither turn, nor convert inks, and blend what is transparent
    data = path.read_bytes()
    decoders: dict[bytes, Callable[[bytes], Any]] = {
        b"\x89P": imagecodecs.png_decode,
        b"\xff\xd8": imagecodecs.jpeg8_decode,
        b"GI": imagecodecs.gif_decode,
        b"RI": imagecodecs.webp_decode,
        b"BM": imagecodecs.bmp_decode,
    }
    try:
        values = decoders[data[:2]](data)
    except Exception:
        return None  # the other reader is stricter
    values = values[0] if values.ndim == 4 else values
    channels = image.pixels.shape[0]
    values = values[None] if values.ndim == 2 else values[..., :channels].transpose(2, 0, 1)
    top = 1 if values.dtype == bool else np.iinfo(values.dtype).max
    if image.intensity_record.find("bits") is not None:
        top = int(values.max()) or 1
    values = np.repeat(values, channels, axis=0) if len(values) == 1 else values
    return values / top, LOSSY_JPEG if data[:2] == b"\xff\xd8" else EXACT


def tiff(path: Path, image: MedicalImage) -> tuple[np.ndarray, float] | None:
    record = image.intensity_record
    if record.find("alpha_divided") or (record.find("converted") and "JPEG" in str(record)):
        return None  # Pillow divides in 8 bits, and decoders of JPEG differ where colour is stored coarsely
    try:
        with Image.open(path) as opened:
            plain = opened.mode in {"1", "L", "RGB"} or opened.mode.startswith("I;16")
            values = np.asarray(opened if plain else opened.convert("RGB"))
    except OSError:
        return None
    values = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    placed = record.find("divided")
    top = 1 if placed is None else placed.values["top"]
    eight_of_sixteen = values.dtype == np.uint8 and top > 255  # all that Pillow keeps of colour
    top = 255 if values.dtype == np.uint8 else top  # it also spreads 2 and 4 bits over 8
    return values / top, 1 / 255 if eight_of_sixteen or record.find("converted") else EXACT
