"""Certified measurements as a DICOM structured report (TID 1500)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from certimed.certificates import IntervalCertificate, MeasuredInterval
from certimed.errors import require
from certimed.exports.dicom_codes import Codes, Term, concept, private, tidy, unit
from certimed.exports.dicom_source import Source, build
from certimed.exports.each import Subject
from certimed.exports.narrowing import decimal_string

SERIES_NUMBER = 9103
MEDIAN: Term = ("373099004", "SCT", "Median")
LOWER, UPPER = private("Certified lower value of the median"), private("Certified upper value of the median")
RADIUS, ALPHA = private("Certified L2 radius, values in [0, 1]"), private("Failure probability of the certificate")
NOT_PROVED = private("not proved")
_ENDS = {"lower": LOWER, "upper": UPPER}


def write_sr(subject: Subject, base: Path) -> list[Path]:
    """``BASE.sr.dcm``: one measurement group a radius, with radius, failure probability, and of every measurement the
    median and its certified lower and upper value.

    Lower values and radii are rounded down to a decimal string, upper values and probabilities up. An end that is not
    proved is a qualitative evaluation, not a number.

    Raises:
        ImageError: the image has no DICOM source.
    """
    hd = require("highdicom", "medical")
    source = Source.of(subject)
    certificate: IntervalCertificate = subject.certificate
    algorithm = dict(source.algorithm)
    observer = hd.sr.ObserverContext(
        observer_type=concept(("121007", "DCM", "Device")),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=source.uid("device"),
            name="certimed",
            manufacturer_name="certimed",
            model_name=algorithm["name"],
            serial_number=algorithm["version"],
        ),
    )
    groups = [_group(source, index) for index in range(len(certificate.radii))]
    made = build(
        certificate.item,
        lambda: hd.sr.ComprehensiveSR(
            evidence=list(source.headers),
            content=hd.sr.MeasurementReport(
                observation_context=hd.sr.ObservationContext(observer_device_context=observer),
                procedure_reported=concept(("363679005", "SCT", "Imaging procedure")),
                imaging_measurements=groups,
                title=concept(("126000", "DCM", "Imaging Measurement Report")),
            )[0],
            is_complete=True,
            **source.common("report", SERIES_NUMBER),
        ),
    )
    made.ManufacturerModelName = algorithm["name"]
    made.SoftwareVersions = algorithm["certimed"]
    made.DeviceSerialNumber = algorithm["version"]
    return [source.save(made, base.with_name(f"{base.name}.sr.dcm"), "measurements")]


def _group(source: Source, index: int) -> Any:
    hd = require("highdicom", "medical")
    certificate: IntervalCertificate = source.subject.certificate
    radius = certificate.radii[index]
    algorithm = dict(source.algorithm)
    one = concept(("1", "UCUM", "no units"))
    numbers = [
        hd.sr.Measurement(name=concept(RADIUS), value=decimal_string(radius, "lower"), unit=one),
        hd.sr.Measurement(name=concept(ALPHA), value=decimal_string(certificate.alpha, "upper"), unit=one),
    ]
    words: list[Any] = []
    for measured in certificate.claim.intervals:
        known, unknown = _values(measured, index, source.codes)
        numbers += known
        words += unknown
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=source.uid("group", str(index)), identifier=f"radius {decimal_string(radius, 'lower')!r}"
        ),
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=algorithm.pop("name"),
            version=algorithm.pop("version"),
            parameters=[f"{key}={value}" for key, value in algorithm.items()],
        ),
        measurements=numbers,
        qualitative_evaluations=words or None,
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(header) for header in source.headers],
    )


def _values(measured: MeasuredInterval, index: int, codes: Codes) -> tuple[list[Any], list[Any]]:
    """Median, lower and upper value of one measurement as numbers, and what is not proved as words."""
    hd = require("highdicom", "medical")
    terms = codes.measurements.get(measured.name, {})
    site = terms.get("site")
    about = {
        "name": concept(terms.get("name", private(measured.name))),
        "unit": concept(unit(measured.unit)),
        "finding_sites": None if site is None else [hd.sr.FindingSite(concept(site))],
    }
    known, unknown = [], []
    if measured.median is not None:
        known.append(
            hd.sr.Measurement(value=decimal_string(measured.median, "nearest"), derivation=concept(MEDIAN), **about)
        )
    for side, end in (("lower", measured.lower[index]), ("upper", measured.upper[index])):
        if math.isfinite(end):
            value = decimal_string(end, "lower" if side == "lower" else "upper")
            known.append(hd.sr.Measurement(value=value, derivation=concept(_ENDS[side]), **about))
        else:
            what = private(tidy(f"{side} value of {measured.name}"))
            unknown.append(hd.sr.QualitativeEvaluation(concept(what), concept(NOT_PROVED)))
    return known, unknown
