"""The one loop from noisy copies to certificates, and what runs in it."""

from certimed.engine.acceleration import ENGINES, FLOAT32, PRECISIONS, Acceleration, arithmetic
from certimed.engine.contract import OneAnswer
from certimed.engine.copies import Model, Progress, as_image, check_samples, check_sigma, model_device, noisy_batches
from certimed.engine.embeddings import EmbeddingCache, embed_copies
from certimed.engine.engine import Engine, Origin, Result
from certimed.engine.methods import Head, Method, Scores, Subject
from certimed.engine.streams import DENOISED, PLAIN, ModelStream, Stream

__all__ = [
    "DENOISED",
    "ENGINES",
    "FLOAT32",
    "PLAIN",
    "PRECISIONS",
    "Acceleration",
    "EmbeddingCache",
    "Engine",
    "Head",
    "Method",
    "Model",
    "ModelStream",
    "OneAnswer",
    "Origin",
    "Progress",
    "Result",
    "Scores",
    "Stream",
    "Subject",
    "arithmetic",
    "as_image",
    "check_samples",
    "check_sigma",
    "embed_copies",
    "model_device",
    "noisy_batches",
]
