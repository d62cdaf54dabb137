"""Measurements by name: what is measured, of which classes, in which unit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from certimed.errors import InputError, ModelError
from certimed.measurements import geometry
from certimed.measurements.scene import Scene
from certimed.usercode import is_user_code, load_user_function

Function = Callable[[Scene, Sequence[Sequence[int]]], float]

_SIZES = {2: ("cm2", 100.0, "pixels"), 3: ("ml", 1000.0, "voxels")}


@dataclass(frozen=True)
class Kind:
    """A kind of measurement.

    Attributes:
        function: what is computed, in lengths of :attr:`Scene.steps`.
        length: power of a length in it: 0, 1, or None for that of the image's axes (area, volume).
        unit: of kinds whose power is 0.
        axes: numbers of spatial axes it is for.
        reads_image: whether it looks at the noisy image.
        needs_truth: whether it compares with a truth.
        groups: how many groups of classes it is of.
        default: the groups in words, where none are named.
    """

    function: Function
    length: int | None = 0
    unit: str = ""
    axes: tuple[int, ...] = (1, 2, 3)
    reads_image: bool = False
    needs_truth: bool = False
    groups: int = 1
    default: str | None = None


KINDS: dict[str, Kind] = {
    "area": Kind(geometry.size, None, axes=(2,)),
    "volume": Kind(geometry.size, None, axes=(3,)),
    "diameter": Kind(geometry.diameter, 1, axes=(2, 3)),
    "count": Kind(geometry.count),
    "ctr": Kind(geometry.ratio_of_widths, groups=2, default="heart/left lung+right lung"),
    "centroid_x": Kind(geometry.centroid(-1), 1),
    "centroid_y": Kind(geometry.centroid(-2), 1, axes=(2, 3)),
    "centroid_z": Kind(geometry.centroid(-3), 1, axes=(3,)),
    "intensity": Kind(geometry.mean_intensity, unit="of [0, 1]", reads_image=True),
    "dice": Kind(geometry.dice, needs_truth=True),
    "iou": Kind(geometry.iou, needs_truth=True),
}
"""Kinds by name: one row each."""


@dataclass(frozen=True)
class Measurement:
    """A number that is read off a mask.

    Attributes:
        name: as it was spelt, e.g. ``"area:left lung"``; unique in a run.
        kind: see :class:`Kind`.
        groups: groups of class indices it is of.
    """

    name: str
    kind: Kind = field(repr=False)
    groups: tuple[tuple[int, ...], ...] = ()

    def value(self, scene: Scene) -> float:
        """The number; NaN where it is not defined. ModelError where a function of the user's own fails."""
        try:
            found = float(self.kind.function(scene, self.groups))
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(
                f"the measurement {self.name} failed on a noisy copy ({type(error).__name__}: {said})"
            ) from error
        if not math.isfinite(found):
            return math.nan
        if self.kind.length is None and scene.spacing is not None:
            return found / _SIZES[scene.mask.ndim][1]
        return found

    def unit(self, spacing: tuple[float, ...] | None, axes: int) -> str:
        """Of the values: ``"cm2"``, ``"ml"``, ``"mm"``; pixels (voxels) where the spacing is not known; or nothing.

        Raises:
            InputError: the measurement is not for images of so many axes, or the spacing is of another number.
        """
        if axes not in self.kind.axes:
            wanted = " or ".join(map(str, self.kind.axes))
            raise InputError(f"{self.name} is for images of {wanted} spatial axes, and this one has {axes}")
        if spacing is not None and (len(spacing) != axes or not all(0 < step < math.inf for step in spacing)):
            raise InputError(f"spacing {spacing} must hold {axes} lengths above 0 in mm, one for each axis")
        if self.kind.length is None:
            known, _, unknown = _SIZES[axes]
            return unknown if spacing is None else known
        if self.kind.length:
            return "pixels" if spacing is None else "mm"
        return self.kind.unit


def measurement(function: Callable[..., float], name: str | None = None, unit: str = "") -> Measurement:
    """A measurement of one's own.

    Args:
        function: takes any of the arguments ``mask``, ``image``, ``spacing``, ``truth`` (those of :class:`Scene`) by
            name and returns one number; NaN where it is not defined. It must be a fixed function of them.
        name: unique in a run; default: the function's own.
        unit: of the number.

    Raises:
        InputError: an argument of another name.
    """
    known = ("mask", "image", "spacing", "truth")
    called = str(name or getattr(function, "__name__", "measurement"))
    wanted = [one.name for one in inspect.signature(function).parameters.values()]
    unknown = [one for one in wanted if one not in known]
    if unknown or not wanted:
        raise InputError(
            f"{called} takes {', '.join(wanted) or 'nothing'}; a measurement takes any of {', '.join(known)}"
        )

    def value(scene: Scene, groups: Any) -> float:
        return function(**{one: getattr(scene, one) for one in wanted})

    return Measurement(called, Kind(value, unit=unit, reads_image="image" in wanted, needs_truth="truth" in wanted))


def parse_measurement(text: str, class_names: Sequence[str], *, allow_code: bool = False) -> Measurement:
    """A measurement from its spelling.

    ``KIND:CLASS``, with classes joined by ``+``: ``area:left lung``, ``volume:tumour+oedema``, ``count:lesion``; a
    ratio has two groups, ``ctr:heart/left lung+right lung``, which is also what ``ctr`` alone means. A class is named,
    or given by its index. ``python:MODULE:FUNCTION`` is a function of one's own, see :func:`measurement`.

    Args:
        text: the spelling.
        class_names: of the segmenter, in the order of its scores.
        allow_code: consent to run Python code.

    Raises:
        InputError: an unknown kind or class, or code without consent.
    """
    if is_user_code(text):
        return measurement(load_user_function(text, allow_code=allow_code), text)
    name, _, named = text.partition(":")
    kind = KINDS.get(name.strip())
    if kind is None:
        raise InputError(f"measurement {text!r:.80} is unknown; use KIND:CLASS, KIND one of {', '.join(KINDS)}")
    groups = tuple(
        tuple(_class(one.strip(), class_names, text) for one in group.split("+"))
        for group in (named.strip() or kind.default or "").split("/")
    )
    if len(groups) != kind.groups:
        raise InputError(
            f"measurement {text!r:.80} names {len(groups)} groups of classes, and {name} has {kind.groups}"
        )
    return Measurement(text.strip(), kind, groups)


def _class(name: str, class_names: Sequence[str], text: str) -> int:
    if name in class_names:
        return list(class_names).index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    raise InputError(
        f"measurement {text!r:.80} names the class {name!r:.60}, and the classes are {', '.join(class_names)}"
    )
