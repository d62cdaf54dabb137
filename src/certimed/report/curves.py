"""Certified accuracy curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from certimed.certificates import PROMPT_FROZEN, ClassCertificate
from certimed.errors import require
from certimed.metrics import summarise

# Okabe and Ito's palette and line styles: told apart in grey print and by colour-blind readers.
_STYLES = (
    ("#000000", "-"),
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", "--"),
    ("#56B4E9", "-."),
)


def accuracy_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[Sequence[ClassCertificate], Sequence[int]]]],
    *,
    confidence: float = 0.95,
    points: int = 120,
    dpi: int = 150,
) -> None:
    """Draw certified accuracy against the radius, one panel a key, one curve a method, with a confidence band.

    A method whose certificates hold for the prompt frozen at x only is marked with an asterisk in the legend.

    Args:
        path: PNG, PDF or SVG to write.
        panels: panel title -> method -> (certificates, true labels).
        confidence: of the band over images (Clopper-Pearson), drawn for each panel's first and last curve.
    """
    require("matplotlib", "figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(panels), 3.0), dpi=dpi, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, methods) in zip(axes, panels.items()):
        largest = max((c.radius for certs, _ in methods.values() for c in certs), default=1.0) or 1.0
        radii = np.linspace(0, 1.02 * largest, points)
        names = list(methods)
        for (name, (certificates, labels)), (colour, style) in zip(methods.items(), _STYLES):
            summary = summarise(certificates, labels, radii=radii.tolist(), confidence=confidence)
            frozen = any(certificate.scope == PROMPT_FROZEN for certificate in certificates)
            assert summary.certified_accuracy is not None and summary.intervals is not None
            axis.step(
                radii, summary.certified_accuracy, style, color=colour, where="post", lw=1.3, label=name + "*" * frozen
            )
            if name in (names[0], names[-1]):
                low, high = zip(*summary.intervals)
                axis.fill_between(radii, low, high, step="post", color=colour, alpha=0.12, lw=0)
        axis.set(title=title, xlabel="radius (L2, [0, 1] units)", ylim=(0, 1.02), xlim=(0, None))
        axis.grid(alpha=0.25, lw=0.5)
    axes[0].set_ylabel("certified accuracy")
    axes[-1].legend(fontsize=7, frameon=False)
    figure.savefig(path)
