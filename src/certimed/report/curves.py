"""Certified accuracy curves, and what of a mask stays certified, against the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import PROMPT_FROZEN, ClassCertificate
from certimed.errors import InputError
from certimed.metrics import mean_interval, summarise
from certimed.report.journal import STYLES, WIDTHS, journal_style, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 200


@dataclass(frozen=True)
class AccuracyCurve:
    """One method: certificates, true labels (None: not labelled), and how many images failed."""

    certificates: Sequence[ClassCertificate]
    labels: Sequence[int] | None
    failed: int = 0


def accuracy_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[Sequence[ClassCertificate], Sequence[int]]]],
    *,
    confidence: float = 0.95,
    width: float = WIDTHS["double"],
) -> None:
    """Draw :func:`accuracy_figure` of (certificates, true labels) into a file: PNG, PDF or SVG."""
    curves = {
        title: {name: AccuracyCurve(*pair) for name, pair in methods.items()} for title, methods in panels.items()
    }
    save(accuracy_figure(curves, confidence=confidence, width=width), path)


def accuracy_figure(
    panels: Mapping[str, Mapping[str, AccuracyCurve]],
    *,
    confidence: float = 0.95,
    width: float = WIDTHS["double"],
    where: str = "[0, 1] units",
) -> Figure:
    """Certified accuracy against the radius, one panel a key, one curve a method, with confidence bands.

    The curve at r is the share of images that are right and certified with a radius above r (Cohen et al., ICML 2019);
    without labels, the share certified. A method whose certificates hold for the prompt frozen at x only is marked with
    an asterisk in the legend. Between two of the radii drawn, the curve has its value at the larger: never more than is
    proved.

    Args:
        panels: panel title -> method -> what to draw.
        confidence: of the band over images (Clopper-Pearson), drawn for each panel's first and last curve.
        width: in millimetres.
        where: what the radius is measured in, for the axis.

    Raises:
        InputError: nothing to draw, or more curves in a panel than can be told apart.
    """
    _check([len(methods) for methods in panels.values()])
    labelled = all(curve.labels is not None for methods in panels.values() for curve in methods.values())
    with journal_style():
        figure, axes = _axes(len(panels), width)
        for axis, (title, methods) in zip(axes, panels.items()):
            radii = _radii([c.radius for curve in methods.values() for c in curve.certificates])
            names = list(methods)
            for (name, curve), (colour, style) in zip(methods.items(), STYLES):
                ys, band = _accuracy(curve, radii, confidence, labelled)
                frozen = any(certificate.scope == PROMPT_FROZEN for certificate in curve.certificates)
                axis.step(radii, ys, linestyle=style, color=colour, where="pre", lw=1, label=name + "*" * frozen)
                if band is not None and name in (names[0], names[-1]):
                    axis.fill_between(radii, *band, step="pre", color=colour, alpha=0.15, lw=0)
            axis.set(title=title, xlabel=f"radius (L2, {where})", xlim=(0, radii[-1]))
        axes[0].set_ylabel("certified accuracy" if labelled else "share of images certified")
        _legends(axes)
    return figure


def share_figure(
    panels: Mapping[str, Mapping[str, Sequence[NDArray[np.float64]]]],
    *,
    confidence: float = 0.95,
    width: float = WIDTHS["double"],
    where: str = "[0, 1] units",
) -> Figure:
    """Share of pixels that stay certified against the radius: mean over images, with a band over images (bootstrap).

    Read off the radius maps, which hold for all pixels and all radii at once, so any radius may be picked afterwards.

    Args:
        panels: panel title -> method -> radius maps, one an image (``MaskCertificate.radius_map``).
        confidence, width, where: as in :func:`accuracy_figure`.

    Raises:
        InputError: nothing to draw, or more curves in a panel than can be told apart.
    """
    _check([len(methods) for methods in panels.values()])
    with journal_style():
        figure, axes = _axes(len(panels), width)
        for axis, (title, methods) in zip(axes, panels.items()):
            maps = {name: [np.sort(one, axis=None) for one in ones] for name, ones in methods.items()}
            radii = _radii([float(one[-1]) for ones in maps.values() for one in ones])
            names = list(methods)
            for (name, ones), (colour, style) in zip(maps.items(), STYLES):
                # Each map is sorted: what lies to the right of r is certified beyond r.
                shares = np.array([1 - np.searchsorted(one, radii, side="right") / len(one) for one in ones])
                means = [mean_interval(column, None, confidence=confidence) for column in shares.T]
                axis.step(radii, shares.mean(axis=0), linestyle=style, color=colour, where="pre", lw=1, label=name)
                if len(ones) > 1 and name in (names[0], names[-1]):
                    low, high = [mean.low for mean in means], [mean.high for mean in means]
                    axis.fill_between(radii, low, high, step="pre", color=colour, alpha=0.15, lw=0)
            axis.set(title=title, xlabel=f"radius (L2, {where})", xlim=(0, radii[-1]))
        axes[0].set_ylabel("share of pixels certified")
        _legends(axes)
    return figure


def _check(counts: Sequence[int]) -> None:
    if not counts or not all(counts):
        raise InputError("there is nothing to draw: no certificate was found")
    if max(counts) > len(STYLES):
        raise InputError(
            f"{max(counts)} curves in one panel cannot be told apart; choose at most {len(STYLES)}, e.g. with --method"
        )


def _axes(count: int, width: float) -> tuple[Figure, Any]:
    figure = new_figure(width, min(0.75 * width / count, 62.0) + 8)
    return figure, figure.subplots(1, count, squeeze=False, sharey=True)[0]


def _radii(found: Sequence[float]) -> list[float]:
    largest = max(found, default=0.0) or 1.0
    return [float(radius) for radius in np.linspace(0, 1.02 * largest, _POINTS)]


def _accuracy(
    curve: AccuracyCurve, radii: list[float], confidence: float, labelled: bool
) -> tuple[Sequence[float], tuple[Sequence[float], Sequence[float]] | None]:
    summary = summarise(
        curve.certificates, curve.labels if labelled else None, radii=radii, confidence=confidence, failed=curve.failed
    )
    if summary.certified_accuracy is None or summary.intervals is None:
        return summary.certified_share, None
    low, high = zip(*summary.intervals)
    return summary.certified_accuracy, (low, high)


def _legends(axes: Any) -> None:
    """One legend where all panels have the same curves, else one each."""
    labels = [axis.get_legend_handles_labels()[1] for axis in axes]
    for axis, own in zip(axes, labels):
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25, lw=0.3)
        if axis is axes[-1] or own != labels[-1]:
            axis.legend(frameon=False)
