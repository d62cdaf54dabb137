"""Measure what certificates cost, side by side with the published loops, and write ``performance.md`` with plots.

    python -m benchmarks.performance --out docs                      # everything, about half an hour on two cores
    python -m benchmarks.performance --out docs --sections art --art-python art/bin/python
    python -m benchmarks.performance --quick --out quick         # small sizes: shows that it runs

Results are kept a section a file below ``--results``; a stopped run goes on with the next section, and ``--again``
names sections to measure anew. With ``--report-only`` the document is written from the results there are. The study
models and data are used where they are (``--models``, ``--data`` or CERTIMED_DATA); the demo needs neither. The other
toolbox needs an environment of its own, made once:

    python -m venv art && art/bin/pip install adversarial-robustness-toolbox==1.20.1 statsmodels -e '.[all]'
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from benchmarks.home import Places
from benchmarks.performance.plots import draw
from benchmarks.performance.report import write_report
from benchmarks.performance.sections import SECTIONS, Plan, load_results, measure
from benchmarks.performance.settings import FULL, QUICK

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results, or results below --out with --quick")
    data = os.environ.get("CERTIMED_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT / "studies")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--again", default="", help="sections to measure although their results are there")
    parser.add_argument("--art-python", help="Python of an environment with adversarial-robustness-toolbox")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report-only", action="store_true")
    given = parser.parse_args()
    names = [name for name in given.sections.split(",") if name]
    again = [name for name in given.again.split(",") if name]
    if unknown := sorted({*names, *again} - set(SECTIONS)):
        parser.error(f"unknown section {unknown[0]}; use some of {', '.join(SECTIONS)}")
    torch.set_num_threads(given.threads)
    results = given.results or (given.out / "results" if given.quick else ROOT / "benchmarks" / "results")
    plan = Plan(QUICK if given.quick else FULL, Places(given.data, given.models, results), given.art_python)
    if not given.report_only:
        for name in measure(plan, names, again):
            print(f"measured: {name}", flush=True)
    found = load_results(results)
    figures = draw(found, given.out / "figures")
    print(f"written: {write_report(found, figures, given.out / 'performance.md')}")


if __name__ == "__main__":
    main()
