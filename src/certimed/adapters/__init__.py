"""Weights learnt under noise on the image side of a frozen model: LoRA, visual prompt tokens, affine parts."""

from certimed.adapters.adaptation import CLASSES, MASKS, Adaptation
from certimed.adapters.parts import KINDS, LAYERNORM, LORA, VISUAL_PROMPT, Installed, Parts
from certimed.adapters.places import TARGETS, Places, places
from certimed.adapters.recipes import RECIPES, AdapterRecipe
from certimed.adapters.tuning import AdapterPlan, Examples, adapt

__all__ = [
    "CLASSES",
    "KINDS",
    "LAYERNORM",
    "LORA",
    "MASKS",
    "RECIPES",
    "TARGETS",
    "VISUAL_PROMPT",
    "Adaptation",
    "AdapterPlan",
    "AdapterRecipe",
    "Examples",
    "Installed",
    "Parts",
    "Places",
    "adapt",
    "places",
]
