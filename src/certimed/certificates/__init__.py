"""Frozen records of what was proved, with units, scope and provenance, and their JSON form."""

from certimed.certificates.classification import TOO_FEW_SAMPLES, UNSTABLE, ClassCertificate
from certimed.certificates.mask import MaskCertificate
from certimed.certificates.native import NativeRadius
from certimed.certificates.provenance import Provenance, collect_provenance
from certimed.certificates.scope import END_TO_END, MODEL_INPUT, NATIVE, PROMPT_FROZEN, SCOPES, SPACES
from certimed.certificates.units import RadiusUnits, radius_units

__all__ = [
    "END_TO_END",
    "MODEL_INPUT",
    "NATIVE",
    "PROMPT_FROZEN",
    "SCOPES",
    "SPACES",
    "TOO_FEW_SAMPLES",
    "UNSTABLE",
    "ClassCertificate",
    "MaskCertificate",
    "NativeRadius",
    "Provenance",
    "RadiusUnits",
    "collect_provenance",
    "radius_units",
]
