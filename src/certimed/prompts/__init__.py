"""Prompts learnt under noise: the learnable context, few-shot, zero-shot, pool, and sound end-to-end variants."""

from certimed.prompts.few_shot import RECIPES, Recipe, TuningProgress, few_shot
from certimed.prompts.learner import ContextStart, Position, PromptLearner
from certimed.prompts.prompt import Prompt
from certimed.prompts.shots import content_ids, draw_shots, refuse_overlap
from certimed.prompts.zero_shot import EntropyTuner, Tuned, entropy_of_mean, pool, zero_shot

__all__ = [
    "RECIPES",
    "ContextStart",
    "EntropyTuner",
    "Position",
    "Prompt",
    "PromptLearner",
    "Recipe",
    "Tuned",
    "TuningProgress",
    "content_ids",
    "draw_shots",
    "entropy_of_mean",
    "few_shot",
    "pool",
    "refuse_overlap",
    "zero_shot",
]
