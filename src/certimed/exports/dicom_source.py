"""DICOM objects about a DICOM image: its headers, the run's identifiers and dates, and pixels on its own frames."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import shown
from certimed.data.files import file_kind
from certimed.errors import ImageError, require
from certimed.exports.dicom_codes import Codes, read_codes, tidy
from certimed.exports.each import Subject
from certimed.metrics.volumes import all_at_once

_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
# What places an image and says which it is; nothing here is of the patient.
_PLACING = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImageType", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "PhotometricInterpretation",
    "SamplesPerPixel", "BitsAllocated", "BitsStored", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "Laterality", "PatientOrientation",
)  # fmt: skip
_PLACING_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_WHOLE = 0.5


@dataclass(frozen=True)
class Source:
    """The DICOM image that a certificate is about.

    Attributes:
        subject: the certificate and its image.
        headers: one a file, without pixels; of a series in the order of its files.
        alphas: failure probabilities of all slices in one object; empty for one certificate.
    """

    subject: Subject
    headers: tuple[Any, ...]
    alphas: tuple[float, ...] = ()

    @classmethod
    def of(cls, subject: Subject) -> Source:
        """Open the headers; ImageError where the image is not there, or no DICOM image of a study."""
        item = subject.certificate.item
        if not subject.files:
            raise ImageError(
                f"{item} was left out: its image is not where the run read it; name its folder with --data"
            )
        if any(file_kind(path) != "dicom" for path in subject.files):
            raise ImageError(f"{item} was left out: it is no DICOM image; write --as nifti or png")
        keep = _anonymous if subject.options.anonymise else _whole
        headers = tuple(keep(_header(path)) for path in subject.files)
        for header in headers:
            missing = [
                name for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID") if not header.get(name)
            ]
            if missing:
                raise ImageError(f"{item} was left out: its header has no {missing[0]}, so nothing can refer to it")
        return cls(subject, headers)

    @cached_property
    def codes(self) -> Codes:
        """The user's coded terms."""
        return read_codes(self.subject.options.codes, self.subject.folder.classes)

    def uid(self, *what: str) -> str:
        """A UID made of the run's digest and all that decides an object: the same export gives the same UIDs."""
        parts = [self.subject.digest, self.subject.name, self.subject.certificate.label, self.codes.digest]
        parts += [str(self.subject.options.anonymise), *what]
        digest = hashlib.sha256(json.dumps(parts).encode()).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"

    @property
    def algorithm(self) -> dict[str, str]:
        """Name, version and parameters of what answered: version is the model's identity, a SHA-256."""
        certificate, manifest = self.subject.certificate, self.subject.folder.manifest
        model = manifest.get("model") or {}
        parameters = {
            "certimed": certificate.provenance.versions.get("certimed", "unknown"),
            "method": certificate.method,
            "noise": certificate.law.name,
            "sigma": f"{certificate.sigma!r}",
            "radius": shown(certificate.radius, "lower", digits=6),
            "alpha": shown(certificate.alpha, "upper", digits=6),
            "samples": f"{certificate.n}",
            "space": certificate.space,
            "scope": certificate.scope,
            "run": self.subject.digest,
        }
        if self.alphas:
            parameters["slices"] = f"{len(self.alphas)}"
            parameters["alpha_of_all_slices"] = shown(all_at_once(self.alphas), "upper", digits=6)
        return {
            "name": tidy(Path(str(model.get("name") or "model")).name),
            "version": tidy(str(model.get("identity") or certificate.provenance.model or "unknown")),
            **{key: tidy(value, 200) for key, value in parameters.items()},
        }

    def common(self, what: str, number: int) -> dict[str, Any]:
        """What every object of highdicom asks for."""
        return {
            "series_instance_uid": self.uid(what, "series"),
            "series_number": number,
            "sop_instance_uid": self.uid(what, "instance"),
            "instance_number": 1,
            "manufacturer": "certimed",
        }

    @property
    def device(self) -> dict[str, Any]:
        """The equipment that objects with pixels name."""
        algorithm = self.algorithm
        return {
            "manufacturer_model_name": algorithm["name"],
            "software_versions": algorithm["certimed"],
            "device_serial_number": algorithm["version"],
        }

    def save(self, made: Any, path: Path, what: str) -> Path:
        """Write an object; UIDs and times that highdicom draws anew become the run's own."""
        created = str(self.subject.folder.manifest.get("created") or "")
        try:
            when = datetime.fromisoformat(created).astimezone(timezone.utc)
        except ValueError:
            when = datetime(1970, 1, 1, tzinfo=timezone.utc)
        for date, time in (("InstanceCreationDate", "InstanceCreationTime"), ("ContentDate", "ContentTime")):
            if date in made:
                setattr(made, date, when.strftime("%Y%m%d"))
                setattr(made, time, when.strftime("%H%M%S"))
        for one in made.get("ContributingEquipmentSequence", ()):
            if "ContributionDateTime" in one:
                one.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")
        made.TimezoneOffsetFromUTC = "+0000"
        made.SeriesDescription = tidy(f"certimed {what}, {self.subject.certificate.label}")
        for one in (*made.get("DimensionOrganizationSequence", ()), *made.get("DimensionIndexSequence", ())):
            one.DimensionOrganizationUID = self.uid(what, "dimensions")
        # Required by the standard, and empty where the source does not say.
        if "FloatPixelData" in made:
            made.Laterality = self.headers[0].get("Laterality") or ""
        if "Rows" in made and "FrameOfReferenceUID" not in made:
            made.PatientOrientation = self.headers[0].get("PatientOrientation") or ""
        if self.subject.options.anonymise:
            made.PatientIdentityRemoved = "YES"
            made.DeidentificationMethod = "certimed: patient and study texts left out, UIDs kept"
        made.save_as(path, enforce_file_format=True)
        return path

    def frames(self) -> Frames:
        """The source's frames that the certificate speaks of, and how to put a layer on them.

        Raises:
            ImageError: the map from the image to what was certified is not known, or the source has several frames
                without a position.
        """
        item, subject = self.subject.certificate.item, self.subject
        if subject.to_image is None:
            raise ImageError(f"{item} was left out: how its pixels became the model's input is not recorded")
        grids = [grid for header in self.headers for grid in _grids(header)]
        geometry = None if subject.image is None else subject.image.geometry
        inverse = np.asarray(np.linalg.inv(subject.to_image), np.float64)
        known = [grid for grid in grids if grid is not None]
        if geometry is not None and len(known) == len(grids):
            placed = [inverse @ np.linalg.inv(geometry.matrix) @ grid for grid in known]
        elif len(grids) == 1:
            placed = [inverse]
        else:
            raise ImageError(f"{item} was left out: its {len(grids)} frames have no position in the patient")
        size = int(self.headers[0].Rows), int(self.headers[0].Columns)
        shape = tuple((*subject.certificate.about.answered[1:], 1, 1)[:3])
        indices = [_indices(change, size, shape) for change in placed]
        kept = [number for number, (_, inside) in enumerate(indices) if inside.any()]
        if not kept:
            raise ImageError(f"{item} was left out: what was certified lies outside of its source's frames")
        return Frames(tuple(kept), tuple(indices[number] for number in kept), len(grids), size)


@dataclass(frozen=True)
class Frames:
    """Where each pixel of the source's frames finds its value.

    Attributes:
        kept: numbers of the frames that hold something certified.
        indices: for each of them, flat index of the nearest certified pixel, and whether there is one.
        total: frames of the source.
        size: rows and columns.
    """

    kept: tuple[int, ...]
    indices: tuple[tuple[NDArray[np.int64], NDArray[np.bool_]], ...]
    total: int
    size: tuple[int, int]

    def layer(self, values: NDArray[Any], outside: Any = 0) -> NDArray[Any]:
        """``(frames, rows, columns)``: each source pixel has the value of the certified pixel it lies in."""
        flat = values.reshape(-1)
        found = np.full((len(self.kept), *self.size), outside, values.dtype)
        for place, (index, inside) in enumerate(self.indices):
            found[place][inside] = flat[index[inside]]
        return found


def build(item: str, make: Callable[[], Any]) -> Any:
    """What highdicom makes; what it refuses is the source's header, which is said of the image."""
    try:
        return make()
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        said = " ".join(str(error).split())[:200]
        raise ImageError(f"{item} was left out: highdicom does not take over its header ({said})") from error


def placed(subjects: Sequence[Subject], notes: list[str]) -> list[tuple[Source, Frames]]:
    """Sources of certificates that go into one object, and their frames; slices that cannot are left out, with a note.

    Raises:
        ImageError: none of them can.
    """
    found, faults = [], []
    for subject in subjects:
        try:
            source = Source.of(subject)
            found.append((source, source.frames()))
        except ImageError as error:
            faults.append(error)
    if not found:
        raise faults[0]
    notes += map(str, faults)
    alphas = tuple(source.subject.certificate.alpha for source, _ in found) if len(subjects) > 1 else ()
    return [(replace(source, alphas=alphas), frames) for source, frames in found]


def sources(parts: Sequence[tuple[Source, Frames]]) -> dict[str, Any]:
    """``source_images`` of highdicom for the frames of all parts in their order, and the planes of those frames where
    they are not all of one file.
    """
    hd = require("highdicom", "medical")
    (header, *more), total = parts[0][0].headers, parts[0][1].total
    if more or total == 1:
        return {"source_images": [source.headers[number] for source, frames in parts for number in frames.kept]}
    kept = [number for _, frames in parts for number in frames.kept]
    if kept == list(range(total)):
        return {"source_images": [header]}
    groups = [header.PerFrameFunctionalGroupsSequence[number] for number in kept]
    positions = [
        hd.PlanePositionSequence("PATIENT", one.PlanePositionSequence[0].ImagePositionPatient) for one in groups
    ]
    return {"source_images": [header], "plane_positions": positions}


def _header(path: Path) -> Any:
    return require("pydicom", "medical").dcmread(path, stop_before_pixels=True, force=True)


def _whole(header: Any) -> Any:
    """The header with all its texts in one character set, and the empty elements that writers may leave away."""
    for name in _EMPTY:
        if name not in header:
            setattr(header, name, "")
    header.decode()
    header.SpecificCharacterSet = "ISO_IR 192"
    return header


def _anonymous(header: Any) -> Any:
    """A header of what places the image only: everything else is left out, whatever it is called."""
    pydicom = require("pydicom", "medical")
    bare = pydicom.Dataset()
    bare.file_meta = header.file_meta
    for name in _PLACING:
        if name in header:
            bare[name] = header[name]
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        groups = []
        for group in header.get(name) or []:
            kept = pydicom.Dataset()
            for part in _PLACING_GROUPS:
                if part in group:
                    kept[part] = group[part]
            groups.append(kept)
        if groups:
            setattr(bare, name, groups)
    return _whole(bare)


def _grids(header: Any) -> list[NDArray[np.float64] | None]:
    """For each frame ``(4, 4)`` from (row, column, 0) to millimetres in RAS+; None where the header does not say."""
    groups: list[Any] = list(
        header.get("PerFrameFunctionalGroupsSequence") or [None] * int(header.get("NumberOfFrames") or 1)
    )
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]

    def find(group: Any, part: str, name: str) -> Any:
        if header.get(name) is not None:
            return header.get(name)
        for one in (group, shared):
            if one is not None and one.get(part):
                return one.get(part)[0].get(name)
        return None

    grids: list[NDArray[np.float64] | None] = []
    for group in groups:
        position = find(group, "PlanePositionSequence", "ImagePositionPatient")
        orientation = find(group, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = find(group, "PixelMeasuresSequence", "PixelSpacing")
        if position is None or orientation is None or spacing is None:
            grids.append(None)
            continue
        along_row, along_column = np.array(orientation[:3], float), np.array(orientation[3:], float)
        grid = np.eye(4)
        grid[:3, 0] = along_column * float(spacing[0])
        grid[:3, 1] = along_row * float(spacing[1])
        grid[:3, 2] = np.cross(along_row, along_column)
        grid[:3, 3] = np.array(position, float)
        grids.append(np.asarray(_LPS @ grid, np.float64))
    return grids


def _indices(
    change: NDArray[np.float64], size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Flat index of the nearest pixel of a grid of ``shape`` for each pixel of a frame, and whether there is one."""
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])[None]
    inside = np.ones(size, bool)
    flat = np.zeros(size, np.int64)
    for axis, side in enumerate(shape):
        exact = change[axis, 0] * rows + change[axis, 1] * columns + change[axis, 3]
        # Half a pixel belongs to the one above; what rounding of positions adds does not carry a pixel outside.
        place = np.floor(exact + _WHOLE + 1e-6).astype(np.int64)
        inside &= (place >= 0) & (place < side)
        flat = flat * side + np.clip(place, 0, side - 1)
    return flat, inside
