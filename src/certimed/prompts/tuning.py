"""Learning a prompt from a data set: shots are drawn by a stated rule, and test images are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certimed.data import Dataset, few_shot_indices
from certimed.errors import InputError
from certimed.prompts.few_shot import TuningProgress, few_shot
from certimed.prompts.learner import Position
from certimed.prompts.prompt import Prompt
from certimed.prompts.shots import refuse_tested
from certimed.prompts.zero_shot import pool
from certimed.vlm.protocol import VisionLanguageModel

TUNED = ("few-shot", "pool")
"""Methods whose prompt is learnt before any test image is seen."""


@dataclass(frozen=True)
class TuningPlan:
    """How a prompt is learnt; see :func:`certimed.prompts.few_shot` and :func:`certimed.prompts.pool`.

    Attributes:
        sigmas: noise levels mixed in one prompt; a pool leaves out 0.
        shots, epochs, recipe, per_class, early_stop: of few-shot.
        context: words to start from, or a number of random tokens.
        position: where the class name stands.
        held_out: images of each class held back to watch the accuracy.
        seed: of shots, order and noise.
        batch_size: noisy copies a forward pass.
        copies: noisy copies of each image of a pool.
    """

    sigmas: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
    shots: int = 16
    epochs: int = 50
    recipe: str = "default"
    context: str | int = 5
    per_class: bool = False
    position: Position = "end"
    held_out: int = 0
    early_stop: int | None = None
    seed: int = 0
    batch_size: int | None = None
    copies: int = 100


def tune_prompt(
    vlm: VisionLanguageModel,
    dataset: Dataset,
    class_names: Sequence[str],
    plan: TuningPlan,
    *,
    method: str = "few-shot",
    test: Dataset | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
) -> Prompt:
    """Learn a prompt on images of a data set; the model stays frozen.

    Args:
        vlm: the model.
        dataset: images to learn from; a pool uses all of them and no label, few-shot draws ``plan.shots`` of each class
            with :func:`certimed.data.few_shot_indices`.
        class_names: in order.
        plan: how.
        method: ``"few-shot"`` or ``"pool"``.
        test: images that must not be learnt from.
        progress: told after every batch, step or epoch.

    Raises:
        InputError: an unknown method, an image of both data sets, few-shot without labels, a pool without noise.
        ImageError: an image that is learnt from cannot be read.
    """
    if method not in TUNED:
        raise InputError(f"method {method} is unknown; use one of {', '.join(TUNED)}")
    if method == "few-shot" and not dataset.is_labelled:
        raise InputError(f"{dataset.source} has images without labels, which few-shot tuning needs; use method pool")
    drawn = few_shot_indices(dataset, plan.shots, plan.seed) if method == "few-shot" else list(range(len(dataset)))
    refuse_tested(dataset.subset(drawn), test)
    images, labels = load_images(vlm, dataset, drawn)
    if method == "pool":
        return _pool(vlm, images, class_names, plan, progress)
    kept = None
    if plan.held_out:
        rest = dataset.subset(sorted(set(range(len(dataset))) - set(drawn)))
        kept = load_images(vlm, rest, few_shot_indices(rest, plan.held_out, plan.seed))
    return few_shot(
        vlm,
        images,
        labels,
        class_names,
        shots=plan.shots,
        epochs=plan.epochs,
        sigmas=plan.sigmas,
        recipe=plan.recipe,
        context=plan.context,
        per_class=plan.per_class,
        position=plan.position,
        seed=plan.seed,
        held_out=kept,
        early_stop=plan.early_stop,
        batch_size=plan.batch_size,
        progress=progress,
    )


def _pool(
    vlm: VisionLanguageModel,
    images: Tensor,
    class_names: Sequence[str],
    plan: TuningPlan,
    progress: Callable[[TuningProgress], None] | None,
) -> Prompt:
    sigmas = tuple(sigma for sigma in plan.sigmas if sigma > 0)
    if not sigmas:
        raise InputError("sigmas has no level above 0, and a pool is tuned on noisy copies; add one, e.g. 0.25")
    report = None if progress is None else lambda done, total: progress(TuningProgress("embedding", done, total))
    return pool(
        vlm,
        images,
        class_names,
        sigmas=sigmas,
        context=plan.context,
        copies=plan.copies,
        seed=plan.seed,
        position=plan.position,
        batch_size=plan.batch_size,
        progress=report,
    )


def load_images(vlm: Any, dataset: Dataset, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images in the certified space ``(N, C, H, W)`` and their labels (-1 where unlabelled).

    Args:
        vlm: whatever prepares images: a vision-language model or a classifier.
        dataset: where they are.
        indices: which.

    Raises:
        ImageError: one of them cannot be read; tuning data has to be whole.
    """
    loaded = [dataset.load(index) for index in indices]
    images = torch.stack([vlm.preprocess(torch.from_numpy(image.pixels).to(vlm.device)) for image in loaded])
    return images, torch.tensor([-1 if image.label is None else image.label for image in loaded])
