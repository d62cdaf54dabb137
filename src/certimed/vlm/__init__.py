"""Vision-language models: the contract, the adapters that fulfil it, and the classifiers made of them."""

from certimed.vlm.heads import PromptedClassifier, ZeroShotClassifier, cosine_logits
from certimed.vlm.loading import load
from certimed.vlm.native import NativeModel
from certimed.vlm.preprocessing import Preprocess
from certimed.vlm.protocol import Tokens, VisionLanguageModel

__all__ = [
    "NativeModel",
    "Preprocess",
    "PromptedClassifier",
    "Tokens",
    "VisionLanguageModel",
    "ZeroShotClassifier",
    "cosine_logits",
    "load",
]
