"""How sure smoothed classifiers are: the counts of the studies' certificates, kept without ids or images.

The studies certified 288 test images at four sigmas with n = 1 000 samples, too few to replay a budget of 10 000. So
runs of full length are drawn from what the counts make likely: the probability of the most frequent class from
Jeffreys' posterior for it against the rest (Beta, counts + 1/2), the rest shared likewise, then a class for every
sample. One posterior over all classes together would add half a sample to each of them, and so make every image look
less certain the more classes there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.home import RESULTS
from benchmarks.performance.recordings import Run
from certimed.errors import InputError
from certimed.report.series import series

FILE = "performance_profiles.json"
KEPT = RESULTS / FILE
METHODS = ("plain", "few-shot")

Profiles = dict[str, dict[str, dict[str, list[list[int]]]]]
"""Set -> sigma -> method -> for every image its label, then the counts of all classes."""


def collect(studies: Path, results: Path) -> Path:
    """Write the profiles of the studies found below ``studies``; without any, those kept with the repository serve.

    Raises:
        InputError: neither studies nor kept profiles.
    """
    found: Profiles = {}
    for path in sorted(studies.glob("promptsmooth/*/sigma-*/run.json")):
        own = series([path.parent], METHODS)
        found.setdefault(path.parents[1].name, {})[f"{own[0].sigma:g}"] = {
            one.label: [[record.label or 0, *c.counts] for record, c in zip(one.records, one.certificates)]
            for one in own
        }
    target = results / FILE
    if found:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
        return target
    if target.exists() or KEPT.exists():
        return target if target.exists() else KEPT
    raise InputError(
        f"{studies} has no finished study and {KEPT} does not exist; run benchmarks.study_promptsmooth first"
    )


def likely_probabilities(counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """One draw of the class probabilities ``(K,)`` that produced these counts."""
    top = int(counts.argmax())
    others = np.delete(counts, top)
    sure = rng.beta(counts[top] + 0.5, others.sum() + 0.5)
    return np.insert((1.0 - sure) * rng.dirichlet(others + 0.5), top, sure)


def likely_runs(path: Path, n0: int, n: int, every: int = 1) -> Iterator[tuple[str, Run]]:
    """One run of full length for every ``every``-th image, sigma and method, with the name of its set."""
    profiles: Profiles = json.loads(path.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    for name, sigmas in profiles.items():
        for sigma, methods in sigmas.items():
            for method, images in methods.items():
                for image, (label, *counts) in enumerate(images[::every]):
                    p = likely_probabilities(np.array(counts), rng)
                    won = rng.choice(len(counts), size=n0 + n, p=p).astype(np.uint8)
                    yield name, Run(image, label, method, float(sigma), len(counts), won[:n0], won[n0:])
