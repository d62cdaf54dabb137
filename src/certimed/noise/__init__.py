"""Noise is an object: a law says what is drawn and what it proves, a key addresses it, a stream draws it."""

from certimed.noise.keys import CHUNK, PHASES, NoiseKey, content_id
from certimed.noise.laws import (
    LAW_NAMES,
    Float32Gaussian,
    GridGaussian,
    NoiseLaw,
    Placement,
    law_from_dict,
    named_law,
)
from certimed.noise.streams import NoiseStream

__all__ = [
    "CHUNK",
    "LAW_NAMES",
    "PHASES",
    "Float32Gaussian",
    "GridGaussian",
    "NoiseKey",
    "NoiseLaw",
    "NoiseStream",
    "Placement",
    "content_id",
    "law_from_dict",
    "named_law",
]
