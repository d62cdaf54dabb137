"""A mask certificate as a DICOM segmentation: a segment for each class's certified pixels, and one for abstention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import MaskCertificate
from certimed.errors import require
from certimed.exports.dicom_codes import ANATOMY, SPATIAL, concept, private, tidy
from certimed.exports.dicom_source import Source, build, placed, sources
from certimed.exports.each import Subject

SERIES_NUMBER = 9101
ABSTAINED = "abstained: no class is proved"


def write_seg(subjects: Sequence[Subject], base: Path, notes: list[str]) -> list[Path]:
    """``BASE.seg.dcm``, on the frames of the source; slices of one volume in one object.

    Segment ``c + 1`` holds the pixels whose class ``c`` is certified, the last one those that abstained; a pixel in no
    segment lies outside of what was certified. Each source pixel belongs to the segment of the certified pixel it lies
    in.

    Raises:
        ImageError: the image has no DICOM source, or one that a segmentation cannot refer to.
    """
    hd = require("highdicom", "medical")
    parts = placed(subjects, notes)
    source, certificate = parts[0][0], subjects[0].certificate
    labels = np.concatenate([frames.layer(segment_numbers(one.subject.certificate)) for one, frames in parts])
    made = build(
        source.subject.name,
        lambda: hd.seg.Segmentation(
            **sources(parts),
            pixel_array=labels,
            segmentation_type="BINARY",
            segment_descriptions=_segments(source),
            content_label="CERTIFIED",
            content_description=tidy(f"certified segments, {certificate.label}"),
            **source.common("segmentation", SERIES_NUMBER),
            **source.device,
        ),
    )
    return [source.save(made, base.with_name(f"{base.name}.seg.dcm"), "segmentation")]


def segment_numbers(certificate: MaskCertificate) -> NDArray[np.unsignedinteger[Any]]:
    """For each certified pixel the number of its segment, from 1; abstention is the last."""
    kind = np.uint8 if certificate.num_classes < np.iinfo(np.uint8).max else np.uint16
    numbers: NDArray[np.unsignedinteger[Any]] = certificate.mask.astype(kind) + kind(1)
    numbers[~certificate.certified] = certificate.num_classes + 1
    return numbers


def _segments(source: Source) -> list[Any]:
    hd = require("highdicom", "medical")
    certificate, codes = source.subject.certificate, source.codes
    algorithm = dict(source.algorithm)
    identification = hd.AlgorithmIdentificationSequence(
        name=algorithm.pop("name"),
        version=algorithm.pop("version"),
        family=concept(("123109", "DCM", "Artificial Intelligence")),
        source="certimed",
        parameters=algorithm,
    )
    classes = source.subject.folder.classes
    named = [(name, codes.classes.get(name, {}), ANATOMY) for name in classes[: certificate.num_classes]]
    named += [(f"class {index}", {}, ANATOMY) for index in range(len(named), certificate.num_classes)]
    segments = []
    for place, (name, terms, category) in enumerate([*named, (ABSTAINED, codes.abstained, SPATIAL)], 1):
        segments.append(
            hd.seg.SegmentDescription(
                segment_number=place,
                segment_label=tidy(name),
                segmented_property_category=concept(terms.get("category", category)),
                segmented_property_type=concept(terms.get("type", private(name))),
                algorithm_type="AUTOMATIC",
                algorithm_identification=identification,
                tracking_uid=source.uid("segment", str(place)),
                tracking_id=tidy(name),
            )
        )
    return segments
