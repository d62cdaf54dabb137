"""What a reader must know beside a table of results, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certimed.certificates import shown
from certimed.metrics.segmentation import DICE_LOW
from certimed.report.series import MARK_WORDS, Series


def lost_classes(series: Sequence[Series[Any]]) -> list[str]:
    """Classes that a network finds without noise and of which no pixel is certified (with true masks: rightly
    certified) in any image.

    A high share of certified pixels hides this where such a class is small: all that is certified is background.
    """
    notes = []
    for one in series:
        if not one.scores:
            notes += _gone_classes(one)
            continue
        scored = [score.per_class for score in one.scores]
        for index in range(1, len(scored[0][DICE_LOW]) if scored else 1):
            # Exactly 1 may be the convention for a class that is absent.
            found = any(0 < score["Dice (clean)"][index] < 1 for score in scored)
            if found and not any(0 < score[DICE_LOW][index] < 1 for score in scored):
                notes.append(
                    f"Not one pixel of {one.class_name(index)} is rightly certified in any image by {one.method} at "
                    f"sigma {one.sigma:g}, though the network finds it without noise: what is certified is of other "
                    "classes."
                )
    return notes


def _gone_classes(one: Series[Any]) -> list[str]:
    """The same without true masks, from the pixels of each class that the network answers without noise."""
    seen = [record.clean_pixels for record in one.records if record.clean_pixels]
    notes = []
    for index, kept in enumerate(one.tally.certified):
        clean = sum(counts[index] for counts in seen if index < len(counts))
        if clean and not kept:
            notes.append(
                f"Not one pixel is certified as {one.class_name(index)} in any image by {one.method} at sigma "
                f"{one.sigma:g}, though the network finds {clean:,} without noise: what is certified is of other "
                "classes."
            )
    return notes


def common_notes(series: Sequence[Series[Any]]) -> list[str]:
    """What is to be said of any results: failed images, failure probability, marks, native radii."""
    alphas = sorted({one.first.alpha for one in series})
    notes = []
    if failed := max(one.failed for one in series):
        said = "1 image failed and counts" if failed == 1 else f"{failed} images failed and count"
        counts = "with Dice 0" if series[0].masks else "as wrong and not certified"
        notes.append(f"{failed} failed and have no interval." if series[0].measured else f"{said} {counts}.")
    risks = " or ".join(shown(alpha, "upper", digits=3) for alpha in alphas)
    notes.append(f"Each certificate fails with probability at most {risks} over the noise drawn.")
    notes += [f"{mark}: {words}." for mark, words in MARK_WORDS.items() if any(mark in one.marks for one in series)]
    return notes + [sentence for one in series[:1] if (sentence := native_note(one)) is not None]


def native_note(one: Series[Any]) -> str | None:
    """What the radii of a series are worth at native resolution, where its certificates know and it is not the same."""
    if one.native:
        return None
    found = [(c.native.norm, c.native.radius) for c in one.certificates if c.native is not None and not c.abstained]
    if all(norm == 1 for norm, _ in found):
        return None
    radii = sorted(radius for _, radius in found)
    return (
        f"native resolution: preparing an image multiplies no L2 norm by more than "
        f"{shown(max(norm for norm, _ in found), 'upper', digits=4)}, so radii there are at least those for arbitrary "
        "perturbations of the model's input (where the noise has a grid, less than its radii by the rounding to it) "
        f"divided by it; {one.label}: median {shown(radii[(len(radii) - 1) // 2], 'lower', digits=4)}."
    )
