"""Weights learnt under noise on the image side of a frozen model: LoRA, visual prompt tokens, affine parts."""

from certimed.adapters.adaptation import CLASSES, MASKS, Adaptation
from certimed.adapters.adaptation import SCHEMA as ADAPTER_SCHEMA
from certimed.adapters.methods import ADAPTED, TEST_TIME, TestTimeLora, adapted_method, stream_name
from certimed.adapters.parts import KINDS, LAYERNORM, LORA, VISUAL_PROMPT, Installed, Parts
from certimed.adapters.places import TARGETS, Places, places
from certimed.adapters.recipes import RECIPES, AdapterRecipe
from certimed.adapters.shots import Draw, load_examples, tune_adapter
from certimed.adapters.tuning import AdapterPlan, Examples, adapt

__all__ = [
    "ADAPTED",
    "ADAPTER_SCHEMA",
    "CLASSES",
    "KINDS",
    "LAYERNORM",
    "LORA",
    "MASKS",
    "RECIPES",
    "TARGETS",
    "TEST_TIME",
    "VISUAL_PROMPT",
    "Adaptation",
    "AdapterPlan",
    "AdapterRecipe",
    "Draw",
    "Examples",
    "Installed",
    "Parts",
    "Places",
    "TestTimeLora",
    "adapt",
    "adapted_method",
    "load_examples",
    "places",
    "stream_name",
    "tune_adapter",
]
