"""Frozen records of what was proved, with units, scope and provenance, and their JSON form."""

from certimed.certificates.certificate import (
    LAYERS,
    TOO_FEW_SAMPLES,
    UNSTABLE,
    AnyCertificate,
    Certificate,
    Circumstances,
    ClassCertificate,
    IntervalCertificate,
    MaskCertificate,
    Samples,
    Share,
    certificate_from_dict,
    certificate_of,
    load_certificate,
)
from certimed.certificates.claims import Claim, ClassClaim, MaskClaim
from certimed.certificates.intervals import IntervalClaim, MeasuredInterval
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance, collect_provenance
from certimed.certificates.rounding import shown
from certimed.certificates.scope import CHOSEN_AT_X, END_TO_END, FROZEN_AT_X, MODEL_INPUT, NATIVE, SCOPES, SPACES
from certimed.certificates.units import RadiusUnits, radius_units

__all__ = [
    "CHOSEN_AT_X",
    "END_TO_END",
    "FROZEN_AT_X",
    "LAYERS",
    "MODEL_INPUT",
    "NATIVE",
    "SCOPES",
    "SPACES",
    "TOO_FEW_SAMPLES",
    "UNSTABLE",
    "AnyCertificate",
    "Certificate",
    "Circumstances",
    "Claim",
    "ClassCertificate",
    "ClassClaim",
    "IntervalCertificate",
    "IntervalClaim",
    "MaskCertificate",
    "MaskClaim",
    "MeasuredInterval",
    "NativeRadius",
    "Provenance",
    "RadiusUnits",
    "Samples",
    "Share",
    "certificate_from_dict",
    "certificate_of",
    "collect_provenance",
    "load_certificate",
    "radius_units",
    "shown",
]
