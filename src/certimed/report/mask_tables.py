"""Result tables of certified segmentation, in the papers' layout: method by sigma, with the guaranteed Dice beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from certimed.metrics import MaskSummary
from certimed.metrics.segmentation import (
    DICE_HIGH,
    DICE_LOW,
    DICE_PUBLISHED,
    FOREGROUND,
    IOU_PUBLISHED,
    SHARE_CERTIFIED,
    WHOLE_IMAGE,
)
from certimed.report.tables import Latex, booktabs, latex_escape

MaskSummaries = Mapping[tuple[str, float, float], MaskSummary]
"""Summaries by (method, sigma, radius), in the order of the table."""


def mask_rows(summaries: MaskSummaries) -> list[dict[str, Any]]:
    """Long form: one row for each method, sigma, class and metric, with its interval."""
    return [
        {"method": method, "sigma": sigma, "radius": radius, **row}
        for (method, sigma, radius), summary in summaries.items()
        for row in summary.to_rows()
    ]


def mask_latex(summaries: MaskSummaries, *, caption: str = "", label: str = "") -> str:
    """A booktabs table: foreground means, a block for each method.

    Published scores are taken over certified pixels and bound nothing under attack; the guaranteed Dice is the range
    that any attack below the radius can reach.
    """
    columns = ["Method", Latex(r"$\sigma$"), "Radius", "Dice", "IoU", "guaranteed Dice", Latex(r"\% abstained")]
    rows: list[list[str]] = []
    rules = []
    previous = None
    for (method, sigma, radius), summary in summaries.items():
        if method != previous and rows:
            rules.append(len(rows))
        low, high = (_number(summary[FOREGROUND, name].mean) for name in (DICE_LOW, DICE_HIGH))
        rows.append(
            [
                "" if method == previous else method,
                f"{sigma:g}",
                f"{radius:.2f}",
                _number(summary[FOREGROUND, DICE_PUBLISHED].mean),
                _number(summary[FOREGROUND, IOU_PUBLISHED].mean),
                Latex(f"{latex_escape(low)}--{latex_escape(high)}"),
                f"{100 * (1 - summary[WHOLE_IMAGE, SHARE_CERTIFIED].mean):.1f}",
            ]
        )
        previous = method
    return booktabs(columns, rows, caption=caption, label=label, rules_before=rules)


def _number(value: float) -> str:
    return "--" if math.isnan(value) else f"{value:.3f}"
