"""DICOM files that say what a test wants them to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    change: Callable[[Any], None] | None = None,
    **attributes: Any,
) -> Path:
    """A DICOM file of grey (H, W), (frames, H, W) or colour (H, W, 3) pixels; attributes override the header.

    ``change`` is called with the data set before it is written.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = attributes.get("SamplesPerPixel", 1) == 3
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.add_new("PixelData", "OW" if pixels.dtype.itemsize == 2 else "OB", pixels.tobytes())
    for name, value in attributes.items():
        setattr(dataset, name, value)
    if change is not None:
        change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    values: np.ndarray,
    affine: np.ndarray,
    *,
    edit: Callable[[int, Any], None] | None = None,
    series: str = "1.2.826.0.1.3680043.8.498.1",
    number: int = 2,
    intercept: float = -1024,
    order: Sequence[int] | None = None,
) -> Path:
    """A CT series, one file a slice, under names that do not follow the order of the slices.

    Args:
        folder: made where it is not there.
        values: integers ``(i, j, k)`` in Hounsfield units: column, row, slice.
        affine: ``(4, 4)``, index to millimetres in RAS+, perpendicular axes.
        edit: called with the number of the slice and its data set before that is written.
        series: UID of the series. number: its number.
        intercept: of the rescale.
        order: names of the files, by slice; default: reversed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    lines = [*(lps[:3, 0] / steps[0]), *(lps[:3, 1] / steps[1])]
    names = range(values.shape[2])[::-1] if order is None else order
    for k, name in enumerate(names):
        stored = (values[:, :, k].T - intercept).astype(np.uint16)
        own: dict[str, Any] = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "SOPInstanceUID": f"{series}.{k + 1}",
            "SeriesInstanceUID": series,
            "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.9",
            "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.8",
            "SeriesNumber": number,
            "InstanceNumber": k + 1,
            "Modality": "CT",
            "PatientName": "Doe^Jane",
            "PatientID": "0815",
            "RescaleSlope": 1,
            "RescaleIntercept": intercept,
            "PixelSpacing": [_decimal(steps[1]), _decimal(steps[0])],
            "SliceThickness": _decimal(steps[2]),
            "ImageOrientationPatient": [_decimal(one) for one in lines],
            "ImagePositionPatient": [_decimal(one) for one in (lps @ [0, 0, k, 1])[:3]],
        }
        write(folder / f"IM{name:04d}.dcm", stored, change=None if edit is None else lambda d, k=k: edit(k, d), **own)
    return folder


def _decimal(value: float) -> str:
    return f"{value:.10g}"[:16]
