"""Budgets over class sequences: samples, decisions and radii, against a fixed n on the very same samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.performance.recordings import Run
from certimed.budgets import PUBLISHED_RADII, Betting, Budget, Fixed, Grid, Looks, Planned

ALPHA = 1e-3
BETTING, GRID_ONE, GRID, LOOKS, PLANNED = (
    "Betting(sigma)",
    "Grid(sigma)",
    "Grid(published radii)",
    "Looks",
    "Planned(5 %)",
)
DECISIONS = (BETTING, GRID_ONE)
"""Budgets that answer "robust at radius sigma or not" and nothing else."""


def budgets(sigma: float, cap: int) -> dict[str, Budget]:
    """The budgets compared, all with the same cap."""
    return {
        BETTING: Betting(sigma, n=cap),
        GRID_ONE: Grid((sigma,), n=cap),
        GRID: Grid(n=cap),
        LOOKS: Looks((cap // 100, cap // 10, cap)),
        PLANNED: Planned(0.05, n=cap),
    }


@dataclass(frozen=True)
class Answer:
    """What one budget said about one run.

    Attributes:
        samples: estimation samples used.
        radius: proved, 0 where it abstained.
        prediction: the class chosen on the selection samples.
    """

    samples: int
    radius: float
    prediction: int


def replay(budget: Budget, run: Run) -> Answer:
    """The budget over the run's samples in their order, exactly as the engine would have used them."""
    selection = _counts(run.selection, run.classes)
    outcome = budget.start(selection, ALPHA, run.sigma).run(
        lambda start, more: _counts(run.estimation[: start + more], run.classes), np.zeros_like(selection)
    )
    return Answer(outcome.n, outcome.bound.radius, int(selection.argmax()))


def orders(run: Run, number: int) -> list[Run]:
    """The run as it was drawn, then ``number - 1`` times with its estimation samples in another order.

    The samples are independent and equally distributed, so every order is as likely a run as the one drawn; a fixed n
    says the same about all of them.
    """
    rng = np.random.default_rng([run.image, round(1000 * run.sigma)])
    others = [rng.permutation(run.estimation) for _ in range(number - 1)]
    fields = (run.image, run.label, run.method, run.sigma, run.classes, run.selection)
    return [run, *(Run(*fields, estimation) for estimation in others)]


def compare(runs: Iterable[tuple[str, Run]], replays: int) -> dict[str, Any]:
    """Every budget over every run, in ``replays`` orders: each set and sigma, each sigma, and all together."""
    rows = [_row(name, run, replays) for name, run in runs]
    if not rows:
        return {"runs": 0}
    by_sigma: dict[str, list[dict[str, Any]]] = {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_sigma.setdefault(f"{row['sigma']:g}", []).append(row)
        groups.setdefault(f"{row['set']}, sigma {row['sigma']:g}", []).append(row)
    names = sorted({row["set"] for row in rows})
    return {
        "n": rows[0]["n"],
        "n0": rows[0]["n0"],
        "replays": replays,
        "runs": len(rows),
        "images": {name: len({row["image"] for row in rows if row["set"] == name}) for name in names},
        "all": _summary(rows),
        "sigmas": {sigma: _summary(group) for sigma, group in by_sigma.items()},
        "groups": {title: _summary(group) for title, group in groups.items()},
    }


def _row(name: str, run: Run, replays: int) -> dict[str, Any]:
    """One run under every budget; figures are means over the orders."""
    cap = len(run.estimation)
    fixed = replay(Fixed(cap), run)
    found: dict[str, Any] = {}
    shuffled = orders(run, replays)
    for title, budget in budgets(run.sigma, cap).items():
        answers = [replay(budget, one) for one in shuffled]
        found[title] = {
            "samples": float(np.mean([answer.samples for answer in answers])),
            "radius": float(np.mean([answer.radius for answer in answers])),
            "same": float(np.mean([(a.radius > run.sigma) == (fixed.radius > run.sigma) for a in answers])),
            "reached": np.mean([[answer.radius > r for r in PUBLISHED_RADII] for answer in answers], axis=0),
        }
    return {
        "set": name,
        "image": run.image,
        "sigma": run.sigma,
        "n": cap,
        "n0": len(run.selection),
        "right": float(fixed.prediction == run.label),
        "fixed": fixed.radius,
        "fixed reached": np.array([fixed.radius > r for r in PUBLISHED_RADII], dtype=float),
        "budgets": found,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over runs, budget by budget."""
    fixed = np.array([row["fixed"] for row in rows])
    result: dict[str, Any] = {}
    for title in rows[0]["budgets"]:
        mine = [row["budgets"][title] for row in rows]
        samples = np.array([one["samples"] for one in mine])
        radius = np.array([one["radius"] for one in mine])
        proved = fixed > 0
        result[title] = {
            "samples": float(samples.mean()),
            "quartiles": [float(value) for value in np.percentile(samples, [25, 50, 75])],
            "same decision": float(np.mean([one["same"] for one in mine])),
        }
        if title not in DECISIONS:
            result[title] |= {
                "radius loss": float(1 - radius.sum() / fixed.sum()) if proved.any() else 0.0,
                "mean relative loss": float((1 - radius[proved] / fixed[proved]).mean()) if proved.any() else 0.0,
                **_accuracy(rows, title),
            }
    return result


def _accuracy(rows: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Certified accuracy of the budget and of a fixed n, sigma by sigma, and the largest difference at any radius."""
    curves: dict[str, Any] = {}
    for sigma in sorted({row["sigma"] for row in rows}):
        chosen = [row for row in rows if row["sigma"] == sigma]
        mine = np.mean([row["right"] * row["budgets"][title]["reached"] for row in chosen], axis=0)
        theirs = np.mean([row["right"] * row["fixed reached"] for row in chosen], axis=0)
        curves[f"{sigma:g}"] = {"budget": mine.tolist(), "fixed n": theirs.tolist()}
    gaps = [np.abs(np.subtract(curve["budget"], curve["fixed n"])).max() for curve in curves.values()]
    return {"accuracy": curves, "accuracy difference": float(max(gaps))}


def _counts(winners: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    return np.bincount(winners, minlength=classes).astype(np.int64)
