"""Recorded counts through today's statistics: every number that was published must come out again, bit for bit.

    python -m benchmarks.replay [--fast]

The counts of the studies' fixed-n certificates and the winners of recorded full runs are kept with the results. From
them this computes certified accuracies, their intervals and bounds, the samples and radii of every budget, and compares
with the recorded results; it draws no noise and loads no model. Exit code 1 if anything differs. ``--fast`` leaves out
the budgets, which take a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.home import RESULTS
from benchmarks.performance.profiles import FILE, METHODS
from benchmarks.performance.recordings import recording_path, runs
from benchmarks.performance.replay import compare
from certimed.budgets import Fixed
from certimed.certificates import Circumstances, ClassCertificate, Samples, certificate_of, collect_provenance
from certimed.metrics import summarise
from certimed.noise import Float32Gaussian
from certimed.statistics import radius_from_lower
from certimed.targets import Classes

Difference = tuple[str, Any, Any]
"""Where, what was recorded, what comes out."""


def certificate(counts: list[int], n0: int, sigma: float, alpha: float) -> ClassCertificate:
    """What a fixed number of samples proves from the counts of all classes.

    The selection samples are not kept: the class is the one that the counts name, as it was in every recorded run that
    did not abstain.
    """
    target, law, budget = Classes(len(counts)), Float32Gaussian(sigma), Fixed(sum(counts))
    selected = np.zeros(len(counts), dtype=np.int64)
    selected[int(np.argmax(counts))] = n0
    given = np.asarray(counts, dtype=np.int64)
    session = target.start(selected, (1, 1, 1), budget, alpha, law)
    outcome = session.run(lambda start, more: given, np.zeros_like(given))
    ((claim, share, _),) = target.claims(selected, given, outcome, alpha, law)
    samples = Samples(n0, budget.n, str(budget), tuple(outcome.looks), outcome.proved_at, outcome.stop)
    about = Circumstances(
        item="recorded",
        method="recorded",
        seed=0,
        shape=(1, 1, 1),
        space="model input",
        scope="end-to-end",
        provenance=collect_provenance("cpu"),
        placement=law.placement(torch.zeros(1, 1, 1)),
        views=None,
    )
    made = certificate_of(claim, law=law, samples=samples, share=share, about=about, native=None)
    assert isinstance(made, ClassCertificate)
    return made


def accuracies(results: Path = RESULTS) -> Iterator[Difference]:
    """Certified accuracy of the prompt studies, every set, sigma, method and radius."""
    profiles = json.loads((results / FILE).read_text(encoding="utf-8"))
    for name, sigmas in profiles.items():
        study = json.loads((results / f"promptsmooth_{name}.json").read_text(encoding="utf-8"))
        setting = study["setting"]
        for sigma, methods in sigmas.items():
            for method in METHODS:
                labels = [image[0] for image in methods[method]]
                made = [
                    certificate(image[1:], setting["n0"], float(sigma), setting["alpha"]) for image in methods[method]
                ]
                found = summarise(made, labels, radii=study["radii"])
                recorded = study["sigmas"][sigma]["methods"][method]
                for key, value in (
                    ("certified", found.certified_accuracy),
                    ("intervals", found.intervals),
                    ("lower", found.accuracy_lower),
                ):
                    yield f"{name}, sigma {sigma}, {method}: {key}", recorded[key], json.loads(json.dumps(value))


def budgets(results: Path = RESULTS) -> Iterator[Difference]:
    """Samples, decisions and radii of every budget on the recorded full runs."""
    recorded = json.loads((results / "performance_recorded.json").read_text(encoding="utf-8"))["result"]
    names = [name for name in ("demo", "lc25000") if recording_path(results, name).exists()]
    found = compare(((name, run) for name in names for run in runs(recording_path(results, name))), recorded["replays"])
    for key in ("runs", "n", "n0", "all", "sigmas", "groups"):
        yield f"recorded runs: {key}", recorded[key], json.loads(json.dumps(found[key]))


def radii(results: Path = RESULTS) -> Iterator[Difference]:
    """The radius of every recorded segmentation."""
    for path in sorted(results.glob("segmentation_*.json")):
        study = json.loads(path.read_text(encoding="utf-8"))
        for sigma, found in study["sigmas"].items():
            computed = float(radius_from_lower(study["setting"]["tau"], float(sigma)))
            yield f"{path.stem}, sigma {sigma}: radius", found["radius"], computed


def differing(found: Iterator[Difference]) -> tuple[int, list[Difference]]:
    """How many were compared, and those that are not equal in every bit."""
    every = list(found)
    return len(every), [one for one in every if not _same(one[1], one[2])]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)))


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="without the budgets")
    parts = [accuracies, radii] if parser.parse_args().fast else [accuracies, radii, budgets]
    bad = 0
    for part in parts:
        count, wrong = differing(part())
        bad += len(wrong)
        print(f"{part.__name__}: {count - len(wrong)} of {count} equal in every bit")
        for where, before, now in wrong[:5]:
            print(f"  {where}: recorded {str(before)[:150]}, now {str(now)[:150]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
