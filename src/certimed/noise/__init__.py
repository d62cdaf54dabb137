"""Noise is an object: a law says what is drawn and what it proves, a key addresses it, a stream draws it."""

from certimed.noise.keys import CHUNK, PHASES, SECOND_VIEWS, VIEW_COPIES, NoiseKey, content_id
from certimed.noise.laws import (
    DEFAULT_LAW,
    LAW_NAMES,
    Float32Gaussian,
    GridGaussian,
    NoiseLaw,
    Placement,
    as_law,
    law_from_dict,
    named_law,
    sample_variation,
)
from certimed.noise.streams import NoiseStream

__all__ = [
    "CHUNK",
    "DEFAULT_LAW",
    "LAW_NAMES",
    "PHASES",
    "SECOND_VIEWS",
    "VIEW_COPIES",
    "Float32Gaussian",
    "GridGaussian",
    "NoiseKey",
    "NoiseLaw",
    "NoiseStream",
    "Placement",
    "as_law",
    "content_id",
    "law_from_dict",
    "named_law",
    "sample_variation",
]
