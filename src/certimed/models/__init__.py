"""What all model rooms share: where models come from, how weights get into networks, and what identifies a model."""

from certimed.models.fitting import Fit, fit, load_pretrained
from certimed.models.identity import (
    adapter_identity,
    behaviour_digest,
    combined,
    identity_of,
    is_complete,
    model_versions,
)
from certimed.models.weights import Weights, find_weights, read_weights

__all__ = [
    "Fit",
    "Weights",
    "adapter_identity",
    "behaviour_digest",
    "combined",
    "find_weights",
    "fit",
    "identity_of",
    "is_complete",
    "load_pretrained",
    "model_versions",
    "read_weights",
]
