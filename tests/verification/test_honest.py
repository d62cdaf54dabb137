"""No honest certificate is refused: all budgets, bounds, targets and laws."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from verification.honest import CLASS_BUDGETS, MASK_BUDGETS, class_certificate, mask_certificates

from certimed.errors import InputError
from certimed.verification.certificates import certificate_faults

BOUNDS = ("one-sided", "two-sided", "best")
LAWS = ("float32", "grid")
TAUS = ((0.75,), (0.5,), (0.6, 0.75, 0.8), (0.7, 0.9))


def honest_class(rng: np.random.Generator, index: int) -> list[str]:
    """Faults of one random class certificate."""
    spec = CLASS_BUDGETS[index % len(CLASS_BUDGETS)]
    bound = "one-sided" if spec.startswith("betting") else BOUNDS[index // len(CLASS_BUDGETS) % 3]
    classes = int(rng.choice([2, 3, 8]))
    top = float(rng.choice([rng.random(), 1 - 10 ** -rng.uniform(0.3, 5), 1.0]))
    rest = rng.dirichlet(np.full(classes - 1, 0.5)) * (1 - top)
    made = class_certificate(
        spec,
        [top, *rest.tolist()],
        bound=bound,
        alpha=float(rng.choice([1e-3, 0.01, 1e-6])),
        sigma=float(rng.choice([0.12, 0.25, 0.5, 1.0])),
        noise=LAWS[index % 2],
        seed=index,
        n0=int(rng.choice([1, 10, 100])),
        shape=(3, 224, 224),
    )
    return list(certificate_faults(json.loads(made.to_json())))


def honest_masks(rng: np.random.Generator, index: int, path: Path) -> list[str]:
    """Faults of the certificates of one random mask, one for each tau."""
    size = int(rng.choice([4, 8, 32]))
    probabilities = rng.beta(rng.uniform(0.5, 20), 0.5, (size, size))
    try:
        made = mask_certificates(
            MASK_BUDGETS[index % len(MASK_BUDGETS)],
            probabilities,
            taus=TAUS[index // len(MASK_BUDGETS) % len(TAUS)],
            correction=("holm", "bonferroni")[index % 2],
            sigma=float(rng.choice([0.25, 0.5])),
            noise=LAWS[index // 2 % 2],
            seed=index,
        )
    except InputError:  # a cap that could certify nothing
        return []
    found = []
    for one in made:
        one.write_arrays(path)
        found += list(certificate_faults(json.loads(one.to_json()), path))
    return found


def test_two_hundred_certificates_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    begin = time.process_time()
    for index in range(150):
        assert honest_class(rng, index) == [], index
    for index in range(50):
        assert honest_masks(rng, index, tmp_path / "x.npz") == [], index
    assert time.process_time() - begin <= 120


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_two_thousand_certificates_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for index in range(1_500):
        assert honest_class(rng, index) == [], index
    for index in range(500):
        assert honest_masks(rng, index, tmp_path / "x.npz") == [], index
