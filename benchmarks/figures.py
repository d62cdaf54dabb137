"""Draw the pictures of the README from a finished demo.

certimed demo --out certimed-demo
python -m benchmarks.figures --demo certimed-demo
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from certimed.certificates import ClassCertificate
from certimed.report.curves import accuracy_curves
from certimed.runs import CERTIFIED, RunFolder

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
METHODS = ("none", "zero-shot", "few-shot")

Curve = tuple[Sequence[ClassCertificate], Sequence[int]]


def main() -> None:
    """Write docs/figures/demo-*.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("certimed-demo"))
    demo = parser.parse_args().demo
    FIGURES.mkdir(exist_ok=True)
    panels: dict[str, dict[str, Curve]] = {}
    for folder in sorted(demo.glob("prompts-sigma-*"), key=lambda path: float(path.name.rpartition("-")[2])):
        records = [record for record in RunFolder.open(folder).records() if record.status == CERTIFIED]
        labels = [record.label for record in records if record.label is not None]
        panels[f"sigma {folder.name.rpartition('-')[2]}"] = {
            method: ([record.certificates[method] for record in records], labels) for method in METHODS
        }
    accuracy_curves(FIGURES / "demo-prompts.png", panels)
    panel = sorted((demo / "masks-sigma-0.5" / "pictures").glob("*.png"))[0]
    shutil.copy(panel, FIGURES / "demo-masks.png")


if __name__ == "__main__":
    main()
