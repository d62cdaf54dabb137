"""Draw the pictures of the README from a finished demo.

certimed demo --out certimed-demo
python -m benchmarks.figures --demo certimed-demo
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from benchmarks.home import ROOT
from certimed.report.figures import draw_curves, draw_intervals

FIGURES = ROOT / "docs" / "figures"


def main() -> None:
    """Write docs/figures/demo-*.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("certimed-demo"))
    demo = parser.parse_args().demo
    FIGURES.mkdir(exist_ok=True)
    runs = sorted(demo.glob("prompts-sigma-*"), key=lambda path: float(path.name.rpartition("-")[2]))
    draw_curves(runs, FIGURES / "demo-prompts.png", ("plain", "zero-shot", "few-shot", "lora"))
    draw_intervals([demo / "masks-sigma-0.25"], FIGURES / "demo-measured.png", width="140")
    panel = sorted((demo / "masks-sigma-0.25" / "pictures").glob("*.png"))[0]
    shutil.copy(panel, FIGURES / "demo-masks.png")


if __name__ == "__main__":
    main()
