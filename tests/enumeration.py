"""Every outcome of small experiments, for error probabilities that are exact sums."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats


def outcomes_of(n: int, classes: int) -> np.ndarray:
    """Every way to put n samples into the classes, shape (outcomes, classes)."""
    bars = itertools.combinations(range(n + classes - 1), classes - 1)
    edges = np.array([(-1, *b, n + classes - 1) for b in bars])
    return np.diff(edges, axis=1) - 1


def simplex(classes: int, step: int) -> np.ndarray:
    return outcomes_of(step, classes) / step


def true_radius(p: np.ndarray) -> float:
    """Radius at sigma = 1 that the true probabilities support for class 0 (Cohen et al. 2019, Theorem 1)."""
    top, rival = p[0], p[1:].max()
    if top <= rival:
        return 0.0
    return float("inf") if rival <= 0 else float((stats.norm.ppf(top) - stats.norm.ppf(rival)) / 2)
