"""A run shown in a notebook: its results as a table, and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from certimed.metrics.segmentation import DICE_HIGH, DICE_LOW, DICE_PUBLISHED, FOREGROUND
from certimed.report.curves import accuracy_figure, share_figure
from certimed.report.journal import width_in_mm
from certimed.report.results import CLASSIFY, ClassSeries, MaskSeries, class_series, mask_series, panels, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RADII = (0.0, 0.1, 0.25, 0.5, 1.0)


def run_card(path: Path) -> str:
    """The results of a run as an HTML table, one row a method."""
    if task_of([path]) == CLASSIFY:
        classified = class_series([path])
        rows, said = [_class_row(one) for one in classified], _said(classified[0])
        note = "certified accuracy: right, and no perturbation below that L2 radius changes it"
    else:
        segmented = mask_series([path])
        rows, said = [_mask_row(one) for one in segmented], _said(segmented[0])
        note = "guaranteed Dice: the range any perturbation below the radius can reach (foreground mean)"
    about = f"{said}; radii are L2 in [0, 1] units; {note}."
    return f"<p><b>{escape(path.name)}</b>: {escape(about)}</p>{_table(rows)}"


def run_figure(path: Path, *, by: str = "sigma", width: str = "double", native: bool = False) -> Figure:
    """The curves of a run; see :mod:`certimed.report.curves`."""
    if task_of([path]) == CLASSIFY:
        classified = class_series([path], native=native)
        return accuracy_figure(panels(classified, by, lambda one: one.curve()), width=width_in_mm(width))
    segmented = mask_series([path], native=native)
    return share_figure(panels(segmented, by, lambda one: one.radius_maps(native=native)), width=width_in_mm(width))


def _said(one: ClassSeries | MaskSeries) -> str:
    first = one.certificates[0]
    return (
        f"{len(one.certificates)} images certified, {one.failed} failed; space: {first.space}; "
        f"alpha {first.alpha:g} each; {first.n0} + {first.n} samples"
    )


def _class_row(one: ClassSeries) -> dict[str, str]:
    found = one.summary(_RADII)
    curve = found.certified_accuracy or found.certified_share
    heading = "certified accuracy" if found.certified_accuracy is not None else "certified"
    return {
        "method": one.method,
        "sigma": f"{one.sigma:g}",
        "clean accuracy": _percent(found.clean_accuracy),
        "noisy accuracy": _percent(found.noisy_accuracy),
        **{f"{heading} at {radius:g}": _percent(share) for radius, share in zip(found.radii, curve)},
        "abstained": _percent(found.too_few_samples + found.unstable),
    }


def _mask_row(one: MaskSeries) -> dict[str, str]:
    summary, count = one.summary(), len(one.certificates)
    scores = {}
    if summary is not None:
        low, high = (summary[FOREGROUND, name].mean for name in (DICE_LOW, DICE_HIGH))
        published = f"{summary[FOREGROUND, DICE_PUBLISHED].mean:.3f}"
        scores = {"Dice (published)": published, "guaranteed Dice": f"{low:.3f} to {high:.3f}"}
    return {
        "method": one.method,
        "sigma": f"{one.sigma:g}",
        "tau": f"{one.tau:g}",
        "radius": f"{one.certificates[0].radius:.4f}",
        "pixels certified": _percent(sum(c.share_certified for c in one.certificates) / count),
        **scores,
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
