"""Frozen records of what was proved, with units, scope and provenance, and their JSON form."""

from certimed.certificates.certificate import TOO_FEW_SAMPLES, UNSTABLE, Certificate
from certimed.certificates.circumstances import Circumstances, Samples, Share
from certimed.certificates.claims import Claim, ClassClaim, MaskClaim
from certimed.certificates.intervals import IntervalClaim, MeasuredInterval
from certimed.certificates.kinds import (
    LAYERS,
    AnyCertificate,
    ClassCertificate,
    IntervalCertificate,
    MaskCertificate,
    certificate_from_dict,
    certificate_of,
    load_certificate,
)
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance, collect_provenance
from certimed.certificates.rounding import shown
from certimed.certificates.scope import (
    CHOSEN_AT_X,
    END_TO_END,
    FROZEN_AT_X,
    MODEL_INPUT,
    NATIVE,
    SCOPES,
    SETTINGS,
    SPACES,
)
from certimed.certificates.settings import ADDED, MULTIPLIED, VariedSetting, VariedSettings
from certimed.certificates.units import RadiusUnits, radius_units

__all__ = [
    "ADDED",
    "CHOSEN_AT_X",
    "END_TO_END",
    "FROZEN_AT_X",
    "LAYERS",
    "MODEL_INPUT",
    "MULTIPLIED",
    "NATIVE",
    "SCOPES",
    "SETTINGS",
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
    "VariedSetting",
    "VariedSettings",
    "certificate_from_dict",
    "certificate_of",
    "collect_provenance",
    "load_certificate",
    "radius_units",
    "shown",
]
