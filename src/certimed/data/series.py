"""DICOM as volumes: a series of files, or the frames of one, in the order and at the place their headers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.data.dicom import grey_values, has_pixels, plane_affine
from certimed.data.files import is_image_file
from certimed.data.geometry import DICOM_FRAMES, DICOM_SERIES
from certimed.data.images import ReadOptions
from certimed.data.intensity import UnreadableError
from certimed.data.records import Reading, step
from certimed.data.volumes import Volume, check_voxels
from certimed.errors import require

_SAME = {
    "Rows": "sizes",
    "Columns": "sizes",
    "PixelSpacing": "pixel spacings",
    "ImageOrientationPatient": "orientations",
    "FrameOfReferenceUID": "frames of reference",
    "PhotometricInterpretation": "photometric interpretations",
}
_NEAR = 1e-4
_REGULAR = 0.01  # of the spacing
_TILT = 1e-3


@dataclass(frozen=True, eq=False)
class _Slice:
    """One file of a series: its header without pixels, and where it lies along the normal, in mm."""

    path: Path
    header: Any
    position: NDArray[np.float64]
    place: float


def read_series(folder: Path, options: ReadOptions) -> Reading:
    """Read the DICOM series of a folder as one volume; files in any order, under any names.

    Axes are those of NIfTI: the column, the row and the slice, slices sorted along the normal of their planes. Stored
    values go through the modality rescale (to Hounsfield units for CT); then ``options.window``, else the percentiles
    ``options.percentiles`` of the whole volume, become 0 and 1. Windows of the headers are not used: they may differ
    from slice to slice. Padding becomes 0.

    Raises:
        UnreadableError: several series and none chosen (``options.series``), a localiser among the slices, sizes,
            spacings or orientations that differ, a slice that is missing, comes twice or is cut off, a tilted gantry,
            no pixel spacing, colour.
        MissingExtraError: pydicom or highdicom is not installed.
    """
    slices = _sorted(folder, options)
    first, count = slices[0], len(slices)
    if count == 1:
        raise UnreadableError("it is one slice and no volume; certify it as a plane, without --volume")
    shape = (int(first.header.Columns), int(first.header.Rows), count)
    check_voxels(shape, options)
    values: NDArray[np.float32] = np.empty(shape, np.float32)
    padding: NDArray[np.bool_] = np.zeros(shape, bool)
    decoders: dict[str, str] = {}
    rescales: set[tuple[float, float]] = set()
    for k, one in enumerate(slices):
        try:
            found = grey_values(require("pydicom", "medical").dcmread(one.path, force=True), options)
        except UnreadableError as error:
            raise UnreadableError(f"its slice {one.path.name} cannot be used: {error}") from None
        # Decoders raise nearly anything on a file that is cut off.
        except (ValueError, EOFError, AttributeError, OSError) as error:
            raise UnreadableError(f"its slice {one.path.name} is broken or cut off ({error})") from None
        values[:, :, k], padding[:, :, k] = found.values.T, found.padding.T
        decoders |= found.decoders
        rescales.add(found.rescale)
    affine = plane_affine(first.header, 0)
    affine[:3, 2] = np.array([-1, -1, 1]) * (slices[-1].position - first.position) / (count - 1)
    steps = [step("rescaled", slope=slope, intercept=cut) for slope, cut in rescales - {(1.0, 0.0)}]
    if len(steps) > 1:
        steps = [step("rescaled_each")]
    files = tuple(one.path.as_posix() for one in slices)
    if padding.all():
        raise UnreadableError("every voxel of it is padding")
    hidden = padding if padding.any() else None
    return Volume(values, affine, DICOM_SERIES, files, tuple(steps), decoders, hidden).whole(options)


def sorted_files(folder: Path, options: ReadOptions) -> list[Path]:
    """The files of a folder's series in the order of their slices; raises as :func:`read_series`."""
    return [one.path for one in _sorted(folder, options)]


def read_frames(path: Path, options: ReadOptions) -> Reading:
    """Read an enhanced multi-frame file as one volume, its frames sorted along their normal; see :func:`read_series`.

    Raises:
        UnreadableError: one frame, frames that are no volume (a time course, gaps, mixed orientations), colour.
        MissingExtraError: highdicom is not installed.
    """
    highdicom = require("highdicom", "medical")
    image = highdicom.imread(path)
    if int(image.get("NumberOfFrames") or 1) < 2:
        raise UnreadableError("it is one slice and no volume; give the folder of its series, or leave out --volume")
    if image.SamplesPerPixel > 1:
        raise UnreadableError("it is a colour image, and volumes of grey values are read")
    check_voxels((image.Columns, image.Rows, image.NumberOfFrames), options)
    try:
        found = image.get_volume(dtype=np.float32, apply_voi_transform=False, apply_presentation_lut=False)
    except (RuntimeError, ValueError) as error:
        raise UnreadableError(
            f"its {image.NumberOfFrames} frames are no volume of evenly spaced slices ({' '.join(str(error).split())})"
        ) from None
    values, affine = _as_nifti(found)
    versions = {name: require(name, "medical").__version__ for name in ("pydicom", "highdicom")}
    return Volume(values, affine, DICOM_FRAMES, (path.as_posix(),), (), versions).whole(options)


def read_segmentation(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The segment numbers of a DICOM segmentation ``(i, j, k)`` (0: no segment), and their affine to RAS+.

    Raises:
        UnreadableError: another DICOM object, fractional or overlapping segments, segments of no volume.
    """
    highdicom = require("highdicom", "medical")
    header = require("pydicom", "medical").dcmread(path, stop_before_pixels=True)
    if str(header.get("SOPClassUID")) not in highdicom.seg.SOP_CLASS_UIDS:
        raise UnreadableError("it is a DICOM image and no segmentation; save the mask as DICOM SEG, NIfTI or PNG")
    segments = highdicom.seg.segread(path)
    if str(segments.segmentation_type.value) == "FRACTIONAL":
        raise UnreadableError("its segments are fractional, so they are no classes; save binary ones")
    try:
        return _as_nifti(segments.get_volume(combine_segments=True, dtype=np.uint16))
    except (RuntimeError, ValueError) as error:
        raise UnreadableError(f"its segments are no mask ({' '.join(str(error).split())[:200]})") from None


def _as_nifti(volume: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A volume of highdicom (slice, row, column; LPS) with axes and matrix as NIfTI has them."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]
    values = volume.array.transpose(2, 1, 0)
    if np.linalg.det(affine[:3, :3]) < 0:  # highdicom stacks slices against the normal of their planes
        affine[:, 3] += affine[:, 2] * (values.shape[2] - 1)
        affine[:, 2], values = -affine[:, 2], values[:, :, ::-1]
    return values, affine


def _sorted(folder: Path, options: ReadOptions) -> list[_Slice]:
    """Slices along the normal, once their headers say a volume."""
    headers = _chosen(_headers(folder), options)
    if frames := [path for path, header in headers if int(header.get("NumberOfFrames") or 1) > 1]:
        raise UnreadableError(f"its file {frames[0].name} holds several frames; open that file by itself")
    for path, header in headers:
        if "LOCALIZER" in [str(one).upper() for one in header.get("ImageType") or []]:
            raise UnreadableError(f"a localiser lies among its slices ({path.name}); take it out of the folder")
        for element in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
            if header.get(element) is None:
                raise UnreadableError(f"its slice {path.name} has no {element}, so its place in the patient is unknown")
    _require_same(headers)
    normal = np.cross(*np.array(headers[0][1].ImageOrientationPatient, np.float64).reshape(2, 3))
    plane_affine(headers[0][1], 0)  # refuses directions and spacings that are none
    found = []
    for path, header in headers:
        position = np.array(header.ImagePositionPatient, np.float64)
        found.append(_Slice(path, header, position, float(position @ normal)))
    found.sort(key=lambda one: one.place)
    if len(found) > 1:
        _require_regular(found, normal)
    return found


def _headers(folder: Path) -> list[tuple[Path, Any]]:
    """Headers without pixels of the folder's images, by file name."""
    pydicom = require("pydicom", "medical")
    names = {path.name.lower() for path in folder.iterdir()}
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file() or not is_image_file(path, names):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        # pydicom raises nearly anything on hostile bytes.
        except Exception as error:
            raise UnreadableError(f"its file {path.name} is broken or cut off ({type(error).__name__})") from None
        if not has_pixels(header):
            raise UnreadableError(f"its file {path.name} is no DICOM image, or is cut off")
        found.append((path, header))
    if not found:
        raise UnreadableError("it holds no DICOM image")
    return found


def _chosen(headers: list[tuple[Path, Any]], options: ReadOptions) -> list[tuple[Path, Any]]:
    """The files of one series."""
    series: dict[str, list[tuple[Path, Any]]] = {}
    for path, header in headers:
        series.setdefault(str(header.get("SeriesInstanceUID")), []).append((path, header))
    numbers = {uid: str(one[0][1].get("SeriesNumber") or "without a number") for uid, one in series.items()}
    told = ", ".join(f"{numbers[uid]} ({len(one)} images)" for uid, one in series.items())
    if options.series is not None:
        fitting = [uid for uid in series if options.series in (uid, numbers[uid])]
        if len(fitting) != 1:
            raise UnreadableError(f"series {options.series} fits {len(fitting)} of its series: {told}")
        return series[fitting[0]]
    if len(series) > 1:
        raise UnreadableError(
            f"it holds {len(series)} series, numbers {told}; choose one by its number or UID with --series, or give "
            "each a folder"
        )
    return headers


def _require_same(headers: Sequence[tuple[Path, Any]]) -> None:
    name, first = headers[0]
    for path, header in headers[1:]:
        for element, words in _SAME.items():
            mine, its = header.get(element), first.get(element)
            numbers = element in ("PixelSpacing", "ImageOrientationPatient")
            equal = np.allclose(mine, its, rtol=0, atol=_NEAR) if numbers else mine == its
            if not equal:
                raise UnreadableError(f"its slices have different {words} (such as {name.name} and {path.name})")


def _require_regular(slices: Sequence[_Slice], normal: NDArray[np.float64]) -> None:
    """Refuse slices that come twice, are not evenly spaced, or are not stacked along their normal."""
    places = np.array([one.place for one in slices])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    least = int(gaps.argmin())
    if gaps[least] <= _REGULAR * usual or usual <= 0:
        raise UnreadableError(
            f"two of its slices lie at one place ({slices[least].path.name} and {slices[least + 1].path.name}), as a "
            "copy, a second echo or time point does; leave one of them out"
        )
    shift = slices[-1].position - slices[0].position
    if abs(float(shift @ normal)) < (1 - _TILT) * float(np.linalg.norm(shift)):
        raise UnreadableError(
            "its slices are not stacked along their normal (a tilted gantry, or a moving table); resample it to "
            "perpendicular axes first"
        )
    odd = int(np.abs(gaps - usual).argmax())
    if abs(gaps[odd] - usual) > _REGULAR * usual:
        raise UnreadableError(
            f"its slices are not evenly spaced: {usual:g} mm apart, but {gaps[odd]:g} mm between "
            f"{slices[odd].path.name} and {slices[odd + 1].path.name}; a slice is missing"
        )
    steps = (places - places[0])[:, None] / (places[-1] - places[0])
    off = np.linalg.norm(np.array([one.position for one in slices]) - slices[0].position - steps * shift, axis=1)
    if off.max() > _REGULAR * usual:
        raise UnreadableError(
            f"its slice {slices[int(off.argmax())].path.name} is shifted sideways against the others; resample it to "
            "perpendicular axes first"
        )
    if require("highdicom", "medical").spatial.get_series_volume_positions([one.header for one in slices])[0] is None:
        raise UnreadableError("its slices are no volume of evenly spaced planes")
