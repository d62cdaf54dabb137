"""The verifier's thresholds, plans and looks are right by themselves; claims at the edge of a threshold."""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest
from verification.honest import class_certificate

from certimed.budgets import Betting, Grid, Planned, parse_budget
from certimed.budgets.planning import plan_sizes
from certimed.statistics.betting import betting_thresholds
from certimed.statistics.sequential import crossing_probability, look_sizes, sequential_thresholds, spending
from certimed.verification.budgets import _thresholds, _wealth_crossing, read_budget
from certimed.verification.certificates import certificate_faults
from certimed.verification.planning import planned_sizes


@pytest.mark.parametrize(("cap", "alpha"), [(400, 0.05), (10_000, 0.001)])
def test_thresholds_are_those_of_the_statistics(cap: int, alpha: float) -> None:
    looks = look_sizes(cap)
    spent = spending(looks, alpha, 2.0)
    for p in (0.5, 0.5000001, 0.6, 0.75, 0.8413447, 0.93, 0.9772, 0.9987, 0.99977):
        assert _thresholds(looks, p, Fraction(alpha)) == tuple(sequential_thresholds(looks, p, spent).tolist())


def test_thresholds_err_with_at_most_alpha_in_exact_rational_arithmetic() -> None:
    looks, alpha = (8, 16, 28, 40), Fraction(1, 10)
    for p in (Fraction(1, 2), Fraction(5, 8), Fraction(29, 32)):
        running, before, wrong = {0: Fraction(1)}, 0, Fraction(0)
        for size, threshold in zip(looks, _thresholds(looks, float(p), alpha)):
            step = [comb(size - before, k) * p**k * (1 - p) ** (size - before - k) for k in range(size - before + 1)]
            following: dict[int, Fraction] = {}
            for count, mass in running.items():
                for more, chance in enumerate(step):
                    following[count + more] = following.get(count + more, Fraction(0)) + mass * chance
            crossing = sum((mass for k, mass in following.items() if k >= threshold), Fraction(0))
            wrong, before = wrong + crossing, size
            assert wrong <= alpha * Fraction(size, looks[-1]) ** 2
            running = {k: mass for k, mass in following.items() if k < threshold}
        assert wrong > alpha / 10


@pytest.mark.parametrize(("cap", "p", "alpha"), [(200, 0.5, 0.1), (3_000, 0.8413, 0.001), (3_000, 0.99, 0.01)])
def test_what_a_wealth_test_spends_is_that_of_the_statistics(cap: int, p: float, alpha: float) -> None:
    wealth = betting_thresholds(cap, p, alpha / 2)
    crossing = crossing_probability(range(1, cap + 1), wealth[1:], p)
    assert _wealth_crossing(cap, p, alpha) == pytest.approx(crossing, rel=1e-6)
    assert _wealth_crossing(cap, p, alpha) <= alpha / 2


def test_looks_are_those_of_the_budgets() -> None:
    for cap in (20, 64, 300, 2_000, 10_000, 123_457):
        made = {Grid(n=cap): look_sizes(cap), Betting(0.01, n=cap): look_sizes(cap, 32, 1.125),
                Planned(n=cap): plan_sizes(cap)}  # fmt: skip
        for budget, looks in made.items():
            read = read_budget(str(budget))
            assert read is not None and read.looks == looks


@pytest.mark.parametrize(
    "text",
    ["grid", "grid@0100", "grid:0.5,0.1@100", "looks:10,5", "betting:x@10", "betting:0.250@10", "fixed:0", "none",
     "pixels:0", "pixels:10/1.5", "planned:5%@100", "planned:1.5@100", "grid:0@100", "grid:0.0,0.1,0.25,0.5,0.75,1.0,"
     "1.25,1.5,1.75,2.0,2.5@100"],
)  # fmt: skip
def test_a_budget_has_one_spelling(text: str) -> None:
    assert read_budget(text) is None


@pytest.mark.parametrize("spec", ["planned", "planned:0.1,0.02@5000", "planned:0.01@1000", "planned:0.2,0.05@100000"])
def test_plans_are_those_of_the_budget(spec: str) -> None:
    budget, rng = parse_budget(spec), np.random.default_rng(0)
    assert isinstance(budget, Planned)
    read = read_budget(str(budget))
    assert read is not None
    for alpha in (1e-3, 0.05):
        for n0 in (1, 10, 100, 1000):
            for agreeing in {*rng.integers(1, n0 + 1, 5).tolist(), n0}:
                assert planned_sizes(agreeing, n0, read, alpha, 0.25) == {budget.plan(agreeing, n0, alpha, 0.25)}


@pytest.mark.parametrize("noise", ["float32", "grid"])
def test_one_agreeing_sample_less_than_the_threshold_is_caught(noise: str) -> None:
    """Counts at the very threshold hold; with one less the claim is false, and with the next rung's too modest."""
    made = class_certificate("grid@2000", [0.93, 0.07], noise=noise, seed=4)
    budget = Grid(n=2000)
    evidence: Any = budget.evidence(2, 0, 1e-3, 0.25, "one-sided", made.variation)
    at = made.samples.proved_at
    n = evidence.looks[at]
    least = next(k for k in range(n) if evidence.bound(at, np.array([k, n - k])).radius >= made.radius)
    most = next(k for k in range(least, n + 1) if evidence.bound(at, np.array([k, n - k])).radius > made.radius) - 1
    for k, holds in ((least, True), (least - 1, False), (most, True), (most + 1, False)):
        data = json.loads(made.to_json())
        # The look is the last one, and the first ones keep their shares of it.
        looks = [[size, round(k * size / n), size - round(k * size / n)] for size, *_ in data["samples"]["looks"][:at]]
        data["samples"] |= {"n": n, "looks": [*looks, [n, k, n - k]]}
        data["claim"]["counts"] = [k, n - k]
        found = [fault for fault in certificate_faults(data) if "stop" not in fault]
        assert (found == []) is holds, (k, found)
