"""Certified accuracy curves, and what of a mask stays certified, against the radius."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from certimed.certificates import NATIVE, SETTINGS
from certimed.errors import InputError
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure
from certimed.report.series import Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 200


def curve_figure(
    panels: Mapping[str, Mapping[str, Series[Any]]], *, confidence: float = 0.95, width: float = WIDTHS["double"]
) -> Figure:
    """Certified accuracy (of masks: the share of pixels certified) against the radius: one panel a key, one curve a
    series, with confidence bands.

    Labels: the curve at r is the share of images that are right and certified with a radius above r (Cohen et al., ICML
    2019); without labels, the share certified. Bands over images: Clopper-Pearson. Masks: the mean share of pixels,
    read off the radius maps, which hold for all pixels and all radii at once, so any radius may be picked afterwards;
    bands: bootstrap. Failed images count with 0. Series whose certificates say less than the whole pipeline are marked
    in the legend. Between two of the radii drawn, the curve has its value at the larger: never more than is proved.

    Args:
        panels: panel title -> name of the curve -> series, see :func:`certimed.report.series.panels`; all of one kind.
        confidence: of the band over images, drawn for each panel's first and last curve.
        width: in millimetres.

    Raises:
        InputError: nothing to draw, or more curves in a panel than can be told apart.
    """
    every = [one for own in panels.values() for one in own.values()]
    if not every or not all(panels.values()):
        raise InputError("there is nothing to draw: no certificate was found")
    if (most := max(map(len, panels.values()))) > len(STYLES):
        raise InputError(
            f"{most} curves in one panel cannot be told apart; choose at most {len(STYLES)}, e.g. with --method"
        )
    labelled = all(one.labels is not None for one in every)
    where = "[0, 1] units" + ", native resolution" * all(one.space == NATIVE for one in every)
    where = "units of the noise" if all(one.space == SETTINGS for one in every) else where
    what = "certified accuracy" if labelled else "share of images certified"
    with journal_style():
        figure = new_figure(width, min(0.75 * width / len(panels), 62.0) + 8)
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (title, own) in zip(axes, panels.items()):
            largest = max(one.largest for one in own.values()) or 1.0
            radii = [float(radius) for radius in np.linspace(0, 1.02 * largest, _POINTS)]
            for number, ((name, one), (colour, style)) in enumerate(zip(own.items(), STYLES)):
                found = one.curve(radii, confidence, labelled=labelled)
                label = name + one.marks
                axis.step(radii, found.values, linestyle=style, color=colour, where="pre", lw=1, label=label)
                if found.low and number in (0, len(own) - 1):
                    axis.fill_between(radii, found.low, found.high, step="pre", color=colour, alpha=0.15, lw=0)
            axis.set(title=title, xlabel=f"radius (L2, {where})", xlim=(0, radii[-1]))
        axes[0].set_ylabel("share of pixels certified" if every[0].masks else what)
        _legends(axes)
    return figure


def _legends(axes: Any) -> None:
    """One legend where all panels have the same curves, else one each."""
    labels = [axis.get_legend_handles_labels()[1] for axis in axes]
    for axis, own in zip(axes, labels):
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25, lw=0.3)
        if axis is axes[-1] or own != labels[-1]:
            axis.legend(frameon=False)
