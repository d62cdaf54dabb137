"""What the page says in words: what was certified, against whom, and what is not proved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from certimed.budgets import Betting, parse_budget
from certimed.certificates import (
    CHOSEN_AT_X,
    END_TO_END,
    FROZEN_AT_X,
    MODEL_INPUT,
    NATIVE,
    SETTINGS,
    Certificate,
    ClassClaim,
    IntervalClaim,
    MaskClaim,
)
from certimed.report.html.numbers import risk

METHODS = {
    "plain": "the model answers on the noisy image itself; of prompted models, with the class names in a fixed caption",
    "few-shot": "a prompt learned beforehand from a few labelled images of each class, under noise",
    "zero-shot": "a prompt tuned on each test image itself, without its label",
    "both": "the few-shot prompt, tuned further on each test image",
    "pool": "a prompt tuned beforehand on unlabelled images that are not test images",
    "per-sample": "a prompt tuned anew on every noisy copy, inside the certified model",
    "split": "a prompt tuned on one noisy view and used on another, inside the certified model",
    "denoised": "the noise is removed by a denoiser before the model answers",
}
"""Kinds of methods that the project has words for."""

ANSWERS = {ClassClaim.kind: "labels", MaskClaim.kind: "masks", IntervalClaim.kind: "measurements"}
"""Kinds of certificates, in the word for what a model answers."""

SCOPES: dict[str, str] = {
    END_TO_END: "whole pipeline",
    FROZEN_AT_X: "prompt frozen at this image",
    CHOSEN_AT_X: "chosen at this image",
}
"""The scope of a certificate, short."""

LIMITS = (
    (
        "Stable is not correct.",
        "A certificate says that the answer does not change. Whether it is right is another question: the accuracy "
        "figures on this page need labels and hold for these images.",
    ),
    (
        "The statement is about the smoothed model,",
        "the one that answers by majority over many noisy copies of the image. Asked once, without noise, the model "
        "underneath may answer differently and may be fooled by a smaller change.",
    ),
    (
        "Only small changes of pixel values are covered.",
        "Nothing is said about a turned, moved or cropped image, another scanner, stain or protocol, other patients, "
        "or any change larger than the radius.",
    ),
    (
        "Where the model abstains, nothing is known:",
        "neither that the answer is fragile nor that it is robust.",
    ),
    (
        "Comparisons are descriptions.",
        "Each curve holds by itself. Choosing, image by image, the method or noise level that looks best after the "
        "fact is not covered.",
    ),
)

_CHOSEN_LIMIT = (
    "Some certificates were chosen at the image (scope: chosen at x, marked †).",
    "Which model or noise level counts was decided by looking at the very image, by hindsight. An attacked image might "
    "choose another one, and nothing is proved about that pipeline.",
)
_FROZEN_LIMIT = (
    "Some certificates hold for the frozen prompt only (scope: prompt frozen at x, marked *).",
    "There the prompt was tuned on the very image it is tested on. The certificate covers the classifier with that "
    "prompt held fixed; an attacked image would be tuned to another prompt, and nothing is proved about that pipeline.",
)
_NATIVE_LIMIT = (
    "The radius is measured in the model's input,",
    "after resizing and cropping. A change of the original file counts by what it becomes there.",
)
_SETTINGS_LIMIT = (
    "Where noise is on settings, the raw image is fixed:",
    "covered is a user or a program that sets them otherwise. A turned viewport is no turned patient.",
)

_SEVERAL_SPACES = (
    "Radii of different spaces or image sizes are not comparable:",
    "a larger image has more values, and the same length of change means less in each of them.",
)


def limits(certificates: Sequence[Certificate[Any]], *, comparable: bool) -> list[tuple[str, str]]:
    """What is not proved: (the point, its explanation)."""
    found = list(LIMITS) if comparable else [*LIMITS, _SEVERAL_SPACES]
    if any(one.space == SETTINGS for one in certificates):
        found.insert(3, _SETTINGS_LIMIT)
    if any(one.space == MODEL_INPUT for one in certificates):
        found.insert(3, _NATIVE_LIMIT)
    scopes = {one.scope for one in certificates}
    found[:0] = [
        point for scope, point in ((FROZEN_AT_X, _FROZEN_LIMIT), (CHOSEN_AT_X, _CHOSEN_LIMIT)) if scope in scopes
    ]
    found += [_arithmetic(levels) for levels in dict.fromkeys(one.law.levels for one in certificates)]
    risks = " or ".join(risk(alpha) for alpha in sorted({one.alpha for one in certificates}))
    why = "The chance is over the noise that was drawn, and is chosen beforehand."
    return [*found, (f"Each certificate fails with probability at most {risks}.", why)]


def _arithmetic(levels: int | None) -> tuple[str, str]:
    """What the statement assumes of arithmetic, by the grid of the noise law."""
    function = "Assumed: that the model is a function of its input (checked once in every run)"
    if levels is None:
        return ("Rounding is not covered.", f"{function}, and real arithmetic where float32 noise is drawn and added.")
    return (
        "Off the grid the radius is a little smaller.",
        f"The statement holds in floating point for every image on the grid of step 1/{levels}; for any other change "
        f"the length that is covered is less by the distance to the grid, as each certificate says. {function}.",
    )


def unstable(certificates: Iterable[Certificate[Any]]) -> str:
    """What "unstable under noise" means for the bounds and budgets in use."""
    found = []
    for one in certificates:
        budget = parse_budget(one.budget)
        if isinstance(budget, Betting):
            found.append("its answer wins no more often than the radius that was asked for needs")
        elif one.claim.kind == "mask":
            found.append("a pixel's class wins no more than the share tau of the copies")
        elif one.claim.bound == "one-sided":
            found.append("its answer wins no more than half of the noisy copies")
        else:
            found.append("its answer wins no more noisy copies than another one")
    return "; or ".join(dict.fromkeys(found))


def copies(n0: Iterable[int], n: Iterable[int]) -> str:
    """How many noisy copies decided, e.g. ``"100 noisy copies chose the answer, 300 more bounded it"``."""
    return f"{_range(n0)} noisy copies choose the answer, {_range(n)} fresh ones bound how often it wins"


def where(spaces: Iterable[str]) -> str:
    """In which image an attacker may change values."""
    found = set(spaces)
    native, model = "image at its own resolution", "model's input, after resizing and cropping"
    if SETTINGS in found:
        return "settings of the workflow, the raw image being fixed" + ", or as each certificate says" * (
            len(found) > 1
        )
    if len(found) > 1:
        return f"{model}, or the {native}, as each certificate says"
    return native if NATIVE in found else model


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"between {found[0]:,} and {found[-1]:,}"
