"""Learning an adapter from a data set: shots are drawn by a stated rule, and test images are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from certimed.adapters.adaptation import Adaptation
from certimed.adapters.tuning import AdapterPlan, Examples, adapt
from certimed.data import Dataset, class_balanced, few_shot_indices
from certimed.errors import InputError
from certimed.operators import apply
from certimed.prompts import TuningProgress, load_images, refuse_tested
from certimed.segmenters import SegmentationModel
from certimed.segmenters.native import mask_geometry, resized_truth


@dataclass(frozen=True)
class Draw:
    """Which images of a data set are learnt from.

    Attributes:
        shots: labelled images of each class; of masks, images; a recipe without labels takes all images there are.
        held_out: as many more, held back to watch the accuracy.
        size: ``(height, width)`` that images of segmentation networks are resized to.
    """

    shots: int = 16
    held_out: int = 0
    size: tuple[int, int] | None = None


def tune_adapter(
    model: Any,
    dataset: Dataset,
    class_names: Sequence[str],
    plan: AdapterPlan,
    draw: Draw | None = None,
    *,
    test: Dataset | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
    **more: Any,
) -> Adaptation:
    """Learn an adapter on images of a data set; the model stays frozen.

    Args:
        model: a vision-language model, a classifier or a segmentation network.
        dataset: images to learn from; of each class ``draw.shots`` are drawn with
            :func:`certimed.data.few_shot_indices`, of masks with :func:`certimed.data.class_balanced`.
        class_names: in the order of the scores.
        plan: how.
        draw: how many images.
        test: images that must not be learnt from.
        progress: told at every evaluation.
        more: ``templates``, ``denoiser`` and ``checkpoint`` of :func:`certimed.adapters.adapt`.

    Raises:
        InputError: as :func:`adapt`; an image of both data sets, missing labels or masks, images of several sizes.
        ImageError: an image that is learnt from cannot be read.
    """
    how, labelled = draw or Draw(), plan.steps.labelled
    segments = isinstance(model, SegmentationModel)
    if not labelled:
        drawn = list(range(len(dataset)))
    elif segments:
        drawn = _first(dataset, how.shots, plan.seed)
    else:
        drawn = few_shot_indices(dataset, how.shots, plan.seed)
    refuse_tested(dataset.subset(drawn), test)
    kept = None
    if how.held_out and labelled:
        rest = dataset.subset(sorted(set(range(len(dataset))) - set(drawn)))
        chosen = (_first if segments else few_shot_indices)(rest, how.held_out, plan.seed)
        kept = load_examples(model, rest, chosen, how.size)
    examples = load_examples(model, dataset, drawn, how.size, labelled=labelled)
    return adapt(model, examples, class_names, plan, held_out=kept, shots=how.shots, progress=progress, **more)


def load_examples(
    model: Any,
    dataset: Dataset,
    indices: Sequence[int],
    size: tuple[int, int] | None = None,
    *,
    labelled: bool = True,
) -> Examples:
    """Images in the certified space, prepared as a run prepares them, with their labels or masks.

    Raises:
        InputError: masks are missing, or images of several sizes.
        ImageError: an image cannot be read.
    """
    if not isinstance(model, SegmentationModel):
        return Examples(*load_images(model, dataset, indices))
    images, masks = [], []
    for index in indices:
        loaded = dataset.load(index)
        if loaded.mask is None and labelled:
            raise InputError(
                f"{dataset.items[index].id} has no mask, which this recipe learns from; add --masks FOLDER"
            )
        pixels = torch.from_numpy(loaded.pixels)
        geometry = mask_geometry(tuple(pixels.shape), 1 if model.in_channels == 1 else None, size)
        images.append(apply(geometry, pixels))
        space = tuple(images[-1].shape[1:])
        truth = torch.zeros(space, dtype=torch.int64)
        if loaded.mask is not None:
            truth = torch.from_numpy(loaded.mask if size is None else resized_truth(loaded.mask, size))
        masks.append(truth.long())
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise InputError(f"{dataset.source} has images of {len(shapes)} shapes; give one size, e.g. --size 128x128")
    return Examples(torch.stack(images), torch.stack(masks))


def _first(dataset: Dataset, count: int, seed: int) -> list[int]:
    places = {item: index for index, item in enumerate(dataset.ids)}
    found = [places[item] for item in class_balanced(dataset, count, seed).ids]
    if len(found) < count:
        raise InputError(f"{dataset.source} has {len(found)} images and {count} are asked for; ask for fewer")
    return found
