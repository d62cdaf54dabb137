"""What the page says in words: what was certified, against whom, and what is not proved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from certimed.certificates import END_TO_END, NATIVE, PROMPT_FROZEN
from certimed.report.html.numbers import percent, risk

METHODS = {
    "none": "the class names in a fixed caption; nothing is learned",
    "few-shot": "a prompt learned beforehand from a few labelled images of each class, under noise",
    "zero-shot": "a prompt tuned on each test image itself, without its label",
    "both": "the few-shot prompt, tuned further on each test image",
    "pool": "a prompt tuned beforehand on unlabelled images that are not test images",
    "per-sample": "a prompt tuned anew on every noisy copy, inside the certified model",
    "split": "a prompt tuned on one noisy view and used on another, inside the certified model",
    "denoised": "the noise is removed by a denoiser before the model answers",
    "plain": "the network answers on the noisy image itself",
}
"""Methods that the project names; a prompt file's own name needs no words."""

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
        "Rounding inside the model is not covered.",
        "The statistics are rounded to the safe side, but the guarantee assumes that the model computes with real "
        "numbers; on a computer it holds up to the rounding of its arithmetic.",
    ),
    (
        "Comparisons are descriptions.",
        "Each curve holds by itself. Choosing, image by image, the method or noise level that looks best after the "
        "fact is not covered.",
    ),
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


_SEVERAL_SPACES = (
    "Radii of different spaces or image sizes are not comparable:",
    "a larger image has more values, and the same length of change means less in each of them.",
)


def limits(
    scopes: Iterable[str], spaces: Iterable[str], alphas: Iterable[float], *, comparable: bool
) -> list[tuple[str, str]]:
    """What is not proved: (the point, its explanation)."""
    found = list(LIMITS) if comparable else [*LIMITS, _SEVERAL_SPACES]
    if any(space != NATIVE for space in spaces):
        found.insert(3, _NATIVE_LIMIT)
    if PROMPT_FROZEN in set(scopes):
        found.insert(0, _FROZEN_LIMIT)
    for alpha in sorted(set(alphas)):
        found.append(
            (
                f"Each certificate may fail with probability {risk(alpha)}.",
                "The chance is over the noise that was drawn, and is chosen beforehand.",
            )
        )
    return found


def copies(n0: Iterable[int], n: Iterable[int]) -> str:
    """How many noisy copies decided, e.g. ``"100 noisy copies chose the answer, 300 more bounded it"``."""
    return f"{_range(n0)} noisy copies choose the answer, {_range(n)} fresh ones bound how often it wins"


def where(spaces: Iterable[str]) -> str:
    """In which image an attacker may change values."""
    found = set(spaces)
    native, model = "image at its own resolution", "model's input, after resizing and cropping"
    if len(found) > 1:
        return f"{model}, or the {native}, as each certificate says"
    return native if NATIVE in found else model


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return f"{found[0]:,}" if len(found) == 1 else f"between {found[0]:,} and {found[-1]:,}"


def headline(shares: Sequence[float | None], images: int, labelled: bool) -> str:
    """How many images hold, over the methods of a run."""
    known = sorted(share for share in shares if share is not None)
    what = "answered correctly with a proved radius" if labelled else "given an answer with a proved radius"
    if percent(known[0]) == percent(known[-1]):
        return f"{round(known[0] * images)} of {images} images ({percent(known[0])}) are {what}"
    return (
        f"between {percent(known[0])} and {percent(known[-1])} of {images} images, depending on the method, are {what}"
    )


def scope_words(scope: str) -> str:
    """The scope of a certificate, short."""
    return "whole pipeline" if scope == END_TO_END else "prompt frozen at this image"
