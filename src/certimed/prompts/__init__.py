"""Prompts learnt under noise: the learnable context, few-shot, zero-shot, pool, and sound end-to-end variants."""

from certimed.prompts.comparison import Agreement, PromptComparison
from certimed.prompts.few_shot import RECIPES, Recipe, TuningProgress, few_shot
from certimed.prompts.learner import ContextStart, Position, PromptLearner
from certimed.prompts.learnt import Learnt
from certimed.prompts.linear_text import LinearText
from certimed.prompts.methods import METHOD_NAMES, FixedText, PerImageText, PerSample, Split, prompt_methods
from certimed.prompts.prompt import Prompt
from certimed.prompts.shots import content_ids, refuse_overlap, refuse_tested
from certimed.prompts.sound import PerSampleClassifier, ViewSigmas, split_sigmas
from certimed.prompts.tuning import TUNED, TuningPlan, load_images, tune_prompt
from certimed.prompts.zero_shot import EntropyTuner, Tuned, entropy_of_mean, pool, zero_shot

__all__ = [
    "METHOD_NAMES",
    "RECIPES",
    "TUNED",
    "Agreement",
    "ContextStart",
    "EntropyTuner",
    "FixedText",
    "Learnt",
    "LinearText",
    "PerImageText",
    "PerSample",
    "PerSampleClassifier",
    "Position",
    "Prompt",
    "PromptComparison",
    "PromptLearner",
    "Recipe",
    "Split",
    "Tuned",
    "TuningPlan",
    "TuningProgress",
    "ViewSigmas",
    "content_ids",
    "entropy_of_mean",
    "few_shot",
    "load_images",
    "pool",
    "prompt_methods",
    "refuse_overlap",
    "refuse_tested",
    "split_sigmas",
    "tune_prompt",
    "zero_shot",
]
