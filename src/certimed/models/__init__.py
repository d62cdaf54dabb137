"""What all model rooms share: where models come from, how weights get into networks, and what identifies a model."""

from certimed.models.identity import behaviour_digest, combined, identity_of, is_complete, model_versions
from certimed.models.weights import Fit, Weights, find_weights, fit, load_pretrained, read_weights

__all__ = [
    "Fit",
    "Weights",
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
