"""Certificate <= truth <= attack, image by image: what is proved, what is broken, and what lies between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from certimed.certificates import MODEL_INPUT, SETTINGS
from certimed.errors import InputError
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 62.0


def sandwich_figure(
    rows: Sequence[Mapping[str, Any]], *, width: float = WIDTHS["double"], space: str = MODEL_INPUT
) -> Figure:
    """One panel a method, one bar an image, in the order of their certified radii.

    The bar runs from the certified radius to the smallest perturbation that was found to break the answer; the truth is
    inside it. Where nothing was found it is drawn to the top, and has no upper end. Crosses: the smallest perturbation
    found for the base model, without smoothing.

    Args:
        rows: see :meth:`certimed.attacks.Sandwich.rows`.
        width: in millimetres.
        space: where the radii live.

    Raises:
        InputError: nothing was attacked.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    if not groups:
        raise InputError("there is nothing to draw: no certificate of the run was attacked")
    largest = max(value for row in rows for value in (row["radius"], row["broken"] or 0.0, row["base"] or 0.0))
    certified, broken, base = (colour for colour, _ in STYLES[:3])
    with journal_style():
        figure = new_figure(width, min(0.75 * width / len(groups), _PANEL) + 8)
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for axis, (label, own) in zip(axes, groups.items()):
            ordered = sorted(own, key=lambda row: float(row["radius"]))
            places = range(len(ordered))
            low = [row["radius"] for row in ordered]
            high = [largest * 1.1 if row["broken"] is None else row["broken"] for row in ordered]
            axis.vlines(places, low, high, color="0.8", lw=2)
            axis.plot(places, low, "^", ms=3, color=certified, label="certified")
            for name, mark, colour, said in (
                ("broken", "v", broken, "broken by an attack"),
                ("base", "x", base, "base model broken"),
            ):
                found = [(place, row[name]) for place, row in zip(places, ordered) if row[name] is not None]
                axis.plot([at for at, _ in found], [norm for _, norm in found], mark, ms=3, color=colour, label=said)
            axis.set(title=f"{label} ({own[0]['scope']})", xlabel="image", ylim=(0, largest * 1.1))
            axis.grid(alpha=0.25, lw=0.3, axis="y")
        axes[0].set_ylabel("L2 norm, units of the noise" if space == SETTINGS else "L2 norm, [0, 1] units")
        axes[-1].legend(frameon=False)
    return figure
