"""Dividing images into training, validation and test part by a stated rule."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from certimed.errors import InputError
from certimed.studies.mask_presets import CVC_FIRST_FRAMES, SplitRule

_CVC_FRAMES = 612


class Split(NamedTuple):
    """Indices of the three parts, each sorted; they are disjoint and together complete."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split_images(ids: Sequence[str], rule: SplitRule, groups: Sequence[Hashable] | None = None) -> Split:
    """Divide images by a rule; the same ids give the same parts, in whatever order they are listed.

    By image: ids in sorted order are shuffled with the rule's seed (NumPy's ``default_rng``) and cut at the sizes.
    Published sizes apply to the full data set; for another number of images the parts keep their proportions.
    By group: whole groups in shuffled order, largest need first: each goes to the part that is furthest below its
    size, so no group is ever torn apart and the parts come close to their sizes.

    Args:
        ids: unique names.
        rule: see :class:`~certimed.studies.SplitRule`.
        groups: patient or sequence of every image; needed where ``rule.by`` is not ``"image"``.

    Raises:
        InputError: repeated ids, missing groups, or too few images or groups for three parts.
    """
    if len(set(ids)) != len(ids):
        raise InputError("ids repeat an image; every image needs a name of its own")
    sizes = _sizes(rule, len(ids))
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    generator = np.random.default_rng(rule.seed)
    if rule.by == "image":
        shuffled = [order[i] for i in generator.permutation(len(order))]
        first, second = sizes[0], sizes[0] + sizes[1]
        return Split(*(sorted(part) for part in (shuffled[:first], shuffled[first:second], shuffled[second:])))
    if groups is None or len(groups) != len(ids):
        raise InputError(f"a split by {rule.by} needs the {rule.by} of each of the {len(ids)} images")
    members: dict[Hashable, list[int]] = {}
    for index in order:
        members.setdefault(groups[index], []).append(index)
    if len(members) < 3:
        raise InputError(f"{len(members)} groups cannot be divided into three parts; at least 3 are needed")
    return _by_group(list(members.values()), sizes, generator)


def cvc_sequence(name: str) -> int:
    """Sequence (1 .. 29) of a CVC-ClinicDB frame, from the frame number its file is named after.

    Raises:
        InputError: no number, or one outside 1 .. 612.
    """
    found = re.findall(r"\d+", PurePosixPath(name).stem)
    if not found or not 1 <= int(found[-1]) <= _CVC_FRAMES:
        raise InputError(f"{name} is not named after a frame of CVC-ClinicDB (1 to {_CVC_FRAMES})")
    return bisect_right(CVC_FIRST_FRAMES, int(found[-1]))


def _sizes(rule: SplitRule, total: int) -> tuple[int, int, int]:
    if total < 3:
        raise InputError(f"{total} images cannot be divided into three parts; at least 3 are needed")
    parts = rule.sizes or rule.shares
    validation, test = (max(1, round(total * part / sum(parts))) for part in parts[1:])
    return total - validation - test, validation, test


def _by_group(groups: list[list[int]], sizes: tuple[int, int, int], generator: np.random.Generator) -> Split:
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    shuffled = [groups[i] for i in generator.permutation(len(groups))]
    for group in shuffled:
        empty = [part for part in range(3) if not parts[part]]
        # Every part gets a group before any gets a second; then the part with the largest share still missing.
        choices = empty or range(3)
        chosen = max(choices, key=lambda part: (sizes[part] - len(parts[part])) / sizes[part])
        parts[chosen].extend(group)
    return Split(*(sorted(part) for part in parts))
