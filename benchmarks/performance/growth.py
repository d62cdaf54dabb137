"""Section ``growth``: how a certificate's cost grows with n, image size, classes and prompts, both loops in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.home import Places
from benchmarks.models import SMALL
from benchmarks.performance.classification import (
    PUBLISHED,
    SIGMA,
    demo_world,
    inputs,
    published_loop,
    random_image,
    temporary_clip,
    zero_shot,
)
from benchmarks.performance.settings import Scale
from benchmarks.reference.cohen_promptsmooth import PromptedModel
from benchmarks.timing import alternate, seconds
from certimed.budgets import Grid
from certimed.classification import SmoothedClassifier
from certimed.prompts import FixedText, PromptComparison
from certimed.vlm import ZeroShotClassifier

FIXED, DEFAULT = "certimed, fixed n", "certimed, default budget"
CONTEXT = "an image of"

Sides = dict[str, Callable[[], object]]


def growth(scale: Scale, places: Places) -> dict[str, Any]:
    """Seconds of one certificate at every point of every curve."""
    return {
        "samples": {str(n): _by_samples(n, scale, places) for n in scale.growth_n},
        "image side": {str(side): _by_size(side, scale) for side in scale.sizes},
        "classes": {str(classes): _by_classes(classes, scale) for classes in scale.classes},
        "prompts": {str(prompts): _by_prompts(prompts, scale) for prompts in scale.prompts},
        "model": {"samples": "demo", "others": "3 layers of 128, patches of 16, random weights"},
        "n": scale.growth_samples,
    }


def _times(sides: Sides, scale: Scale) -> dict[str, Any]:
    return {name: seconds(runs) for name, runs in alternate(sides, scale.repeats).items()}


def _by_samples(n: int, scale: Scale, places: Places) -> dict[str, Any]:
    """The demo model; the default budget needs less the further it may go."""
    world = demo_world(places, 1)
    item, image, _ = inputs(world)[0]
    published = PromptedModel(world.vlm, list(world.names), world.context)
    smoothed = SmoothedClassifier(zero_shot(world), len(world.names), SIGMA, noise="float32")
    sides: Sides = {
        PUBLISHED: lambda: published_loop(published, len(world.names), image, SIGMA, n0=100, n=n, item=item),
        FIXED: lambda: smoothed.certify(image, n0=100, n=n, item_id=item),
        DEFAULT: lambda: smoothed.certify(image, n0=100, budget=Grid(n=n), item_id=item),
    }
    return _times(sides, scale)


def _by_size(side: int, scale: Scale) -> dict[str, Any]:
    with temporary_clip(replace(SMALL, image=side)) as vlm:
        names, image = ["first", "second"], random_image(vlm.input_shape)
        published = PromptedModel(vlm, names, CONTEXT)
        smoothed = SmoothedClassifier(ZeroShotClassifier(vlm, names, f"{CONTEXT} {{}}."), 2, SIGMA, noise="float32")
        n = scale.growth_samples
        sides: Sides = {
            PUBLISHED: lambda: published_loop(published, 2, image, SIGMA, n0=n // 2, n=n),
            FIXED: lambda: smoothed.certify(image, n0=n // 2, n=n, item_id="a"),
        }
        return _times(sides, scale)


def _by_classes(classes: int, scale: Scale) -> dict[str, Any]:
    """Encoding the class names is part of our side's time, though a run does it once for all its images."""
    with temporary_clip(SMALL) as vlm:
        names, image = [f"class {index}" for index in range(classes)], random_image(vlm.input_shape)
        published = PromptedModel(vlm, names, CONTEXT)
        n = scale.growth_samples

        def ours() -> object:
            model = ZeroShotClassifier(vlm, names, f"{CONTEXT} {{}}.")
            return SmoothedClassifier(model, classes, SIGMA, noise="float32").certify(
                image, n0=n // 2, n=n, item_id="a"
            )

        sides: Sides = {
            PUBLISHED: lambda: published_loop(published, classes, image, SIGMA, n0=n // 2, n=n),
            FIXED: ours,
        }
        return _times(sides, scale)


def _by_prompts(prompts: int, scale: Scale) -> dict[str, Any]:
    """Several prompts on one image: the published loop runs once for each, ours shares the embeddings."""
    with temporary_clip(SMALL) as vlm:
        names, image = ["first", "second"], random_image(vlm.input_shape)
        contexts = [f"{CONTEXT} the {'very ' * index}"[:60].strip() for index in range(prompts)]
        published = [PromptedModel(vlm, names, context) for context in contexts]
        methods = [
            FixedText(f"prompt {index}", ZeroShotClassifier(vlm, names, f"{context} {{}}."))
            for index, context in enumerate(contexts)
        ]
        comparison = PromptComparison(vlm, methods, SIGMA)
        n = scale.growth_samples
        sides: Sides = {
            PUBLISHED: lambda: [published_loop(one, 2, image, SIGMA, n0=n // 2, n=n) for one in published],
            FIXED: lambda: comparison.run(image, n0=n // 2, n=n, item_id="a"),
        }
        return _times(sides, scale)
