"""Certificate <= truth <= attack: both sides of every image, and whether attacks contradict certificates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certimed.attacks.goals import DICE, KEPT
from certimed.attacks.record import Attack, AttackFile
from certimed.certificates import END_TO_END, MODEL_INPUT
from certimed.errors import require
from certimed.runs import RunFolder
from certimed.statistics import binomial_tail

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

CONTRADICTED = 0.05
"""Certificates are called contradicted where so few runs that keep their promise would be broken so often."""


@dataclass(frozen=True)
class Sandwich:
    """The attacks of a run, beside its certificates.

    Attributes:
        attacks: all of them, in the order made; several on one certificate where settings differed.
        space: where the run's radii live.
    """

    attacks: tuple[Attack, ...]
    space: str = MODEL_INPUT

    @classmethod
    def of(cls, folder: RunFolder) -> Sandwich:
        """The attacks of a run folder; InputError names the first line that is broken or was changed."""
        return cls(tuple(AttackFile(folder).attacks()), str(folder.manifest["request"].get("space", MODEL_INPUT)))

    def rows(self) -> list[dict[str, Any]]:
        """One row for each attacked certificate, the best of all attacks on it.

        ``radius`` (certified) <= truth <= ``broken`` (smallest perturbation found that PREDICT answers otherwise; None:
        none was found), ``unanswered`` (smallest found at which the certified answer is not given any more, which
        includes abstention), ``base`` (smallest found that changes the answer of the base model, without smoothing),
        ``ratio`` of broken and radius, ``inside``: whether an attack succeeded inside the certificate, ``at_radius``:
        the status after the attack just inside it. Masks with a truth also have ``guaranteed_dice``, ``reached_dice``
        and ``base_dice``, means over the classes but the first: guaranteed <= worst case <= reached.
        """
        return [_row(group) for group in self._by_certificate().values()]

    def to_pandas(self) -> pandas.DataFrame:
        """:meth:`rows` as a data frame; MissingExtraError without the ``export`` extra."""
        frame: pandas.DataFrame = require("pandas", "export").DataFrame(self.rows())
        return frame

    def summary(self) -> list[dict[str, Any]]:
        """One row for each method (for masks: and tau).

        ``attacked``; ``broken``; quartiles of the ratio, infinite where nothing broke; ``inside``, how many
        certificates were broken within their radius, and ``p_value``, that of "each is with probability at most
        ``allowed``", which is alpha of the certificate plus alpha of every attack on it (exact binomial test, images
        being independent); ``contradicted``: an end-to-end scope, and a p-value of at most 0.05;
        ``abstained_inside``: the share of images that an attack just inside the radius forces to abstain or to answer
        otherwise; ``base_median``: of the smallest perturbations that change the base model's answer, infinite where
        none was found.
        """
        groups: dict[str, list[list[Attack]]] = {}
        for group in self._by_certificate().values():
            groups.setdefault(group[0].label, []).append(group)
        return [_summary(label, found) for label, found in groups.items()]

    def plot(self, *, width: str = "double") -> Figure:
        """Both sides of every image as a matplotlib figure, see :func:`certimed.report.sandwich.sandwich_figure`.

        Args:
            width: ``"single"``, ``"double"`` or a number of millimetres.

        Raises:
            InputError: nothing was attacked. MissingExtraError: matplotlib is not installed.
        """
        from certimed.report.journal import width_in_mm
        from certimed.report.sandwich import sandwich_figure

        return sandwich_figure(self.rows(), width=width_in_mm(width), space=self.space)

    def findings(self) -> Iterator[str]:
        """What must not be overlooked: attacks that succeeded inside a certificate, one sentence a method."""
        for row in self.summary():
            if not row["inside"]:
                continue
            what = (
                f"{row['inside']} of {row['attacked']} certificates of {row['label']} were broken inside their radius"
            )
            if row["scope"] != END_TO_END:
                yield f"{what}: their scope is {row['scope']!r}, and the attack went through what they hold fixed"
            elif row["contradicted"]:
                yield (
                    f"{what}, where each may be with probability {row['allowed']:g}: p = {row['p_value']:.2g}, so the "
                    "certificates are contradicted; the model may be no fixed function of its input, please report it"
                )
            else:
                yield f"{what}, where each may be with probability {row['allowed']:g} (p = {row['p_value']:.2g})"

    def _by_certificate(self) -> dict[tuple[str, str], list[Attack]]:
        groups: dict[tuple[str, str], list[Attack]] = {}
        for one in self.attacks:
            groups.setdefault((one.item, one.label), []).append(one)
        return groups


def _row(group: list[Attack]) -> dict[str, Any]:
    first = group[0]
    broken = min((one.broken_norm for one in group if one.broken_norm is not None), default=None)
    row = {
        "item": first.item,
        "method": first.method,
        "label": first.label,
        "scope": first.scope,
        "reference": first.reference,
        "radius": first.radius,
        "broken": broken,
        "ratio": None if broken is None else broken / first.radius,
        "unanswered": min((norm for one in group if (norm := one.unanswered_norm()) is not None), default=None),
        "base": min((one.base_norm for one in group if one.base_norm is not None), default=None),
        "inside": any(one.inside for one in group),
        "at_radius": _at_radius(group),
    }
    if any(one.dice for one in group):
        rows = [row for row in (one.reached() for one in group) if row]
        row["guaranteed_dice"] = _foreground(first.dice["guaranteed"])
        row["reached_dice"] = _foreground(tuple(min(values) for values in zip(*rows))) if rows else None
        row["base_dice"] = _foreground(first.dice["base"]) if "base" in first.dice else None
    return row


def _at_radius(group: list[Attack]) -> str | None:
    """The worst status of the attacks inside the radius; None where none was made there."""
    order = ("broken", "abstained", KEPT)
    seen = {
        trial.judged.status for one in group for trial in one.trials if trial.goal != DICE and trial.radius < one.radius
    }
    return next((status for status in order if status in seen), None)


def _summary(label: str, groups: list[list[Attack]]) -> dict[str, Any]:
    rows, first = [_row(group) for group in groups], groups[0][0]
    ratios = np.array([np.inf if row["ratio"] is None else row["ratio"] for row in rows])
    # The lower of two middle values: one of those that were found, also where the other is infinite.
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], method="lower")
    bases = np.array([np.inf if row["base"] is None else row["base"] for row in rows])
    inside, attacked = sum(row["inside"] for row in rows), len(rows)
    allowed = min(1.0, max(_allowed(group) for group in groups))
    p_value = float(binomial_tail(inside, attacked, allowed)) if inside else 1.0
    tried = [row for row in rows if row["at_radius"] is not None]
    return {
        "label": label,
        "method": first.method,
        "scope": first.scope,
        "attacked": attacked,
        "broken": int(np.isfinite(ratios).sum()),
        "ratio_low": float(low),
        "ratio_median": float(middle),
        "ratio_high": float(high),
        "inside": int(inside),
        "allowed": allowed,
        "p_value": p_value,
        "contradicted": bool(first.scope == END_TO_END and p_value <= CONTRADICTED),
        "abstained_inside": sum(row["at_radius"] != KEPT for row in tried) / len(tried) if tried else None,
        "base_median": float(np.quantile(bases, 0.5, method="lower")),
    }


def _allowed(group: list[Attack]) -> float:
    return group[0].alpha + sum(one.spec.alpha for one in group)


def _foreground(values: tuple[float, ...]) -> float | None:
    present = [value for value in values[1:] if not math.isnan(value)]
    return sum(present) / len(present) if present else None
