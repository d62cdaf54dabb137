"""Certificates under every budget verify, forged ones do not, and the verifier's thresholds are right by themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest

from certimed.budgets import Betting, Grid, Precision, parse_budget
from certimed.budgets.planning import plan_sizes
from certimed.certificates import ClassCertificate
from certimed.classification import certificate_from_counts
from certimed.statistics.betting import betting_thresholds
from certimed.statistics.sequential import crossing_probability, look_sizes, sequential_thresholds, spending
from certimed.verification.budgets import _thresholds, _wealth_crossing, read_budget
from certimed.verification.classes import class_faults

SPECS = ("grid", "grid:0.0,0.3@2000", "betting:0.25", "betting:0.1@3000", "looks", "looks:50,100,300/0.1,0.2",
         "precision", "precision:0.1,0.02@5000", "500")  # fmt: skip
SHARES = (0.2, 0.45, 0.5, 0.52, 0.6, 0.7, 0.8413, 0.85, 0.9, 0.97, 0.99, 0.999, 1.0)


def drawn(
    spec: str, share: float, bound: str = "one-sided", alpha: float = 1e-3, sigma: float = 0.25, seed: int = 0
) -> ClassCertificate:
    """A certificate from counts of three classes drawn under a budget."""
    rng, law = np.random.default_rng(seed), [share, 0.7 * (1 - share), 0.3 * (1 - share)]
    budget, selection = parse_budget(spec), np.array([80, 15, 5])
    counts, outcome = budget.start(selection, alpha, sigma, bound).run(lambda start, n: rng.multinomial(n, law))
    return certificate_from_counts(
        selection, counts, budget=budget, outcome=outcome, item="x", alpha=alpha, sigma=sigma, seed=0,
        shape=(1, 4, 4), bound=bound,
    )  # fmt: skip


def faults(certificate: ClassCertificate, **changes: Any) -> list[str]:
    return list(class_faults(json.loads(certificate.to_json()) | changes))


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
@pytest.mark.parametrize("spec", SPECS)
def test_every_certificate_is_true_and_survives_json(spec: str, bound: str) -> None:
    if spec.startswith("betting") and bound != "one-sided":
        pytest.skip("bets on the top class alone")
    for seed, share in enumerate(SHARES):
        for alpha, sigma in ((1e-3, 0.25), (0.01, 0.5)):
            made = drawn(spec, share, bound, alpha, sigma, seed)
            assert faults(made) == []
            assert ClassCertificate.from_json(made.to_json()) == made


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
    assert _wealth_crossing(cap, p, alpha) == pytest.approx(
        crossing_probability(range(1, cap + 1), wealth[1:], p), rel=1e-6
    )
    assert _wealth_crossing(cap, p, alpha) <= alpha / 2


def test_looks_are_those_of_the_budgets() -> None:
    for cap in (20, 64, 300, 2_000, 10_000, 123_457):
        made = {Grid(n=cap): look_sizes(cap), Betting(0.01, n=cap): look_sizes(cap, 32, 1.125),
                Precision(n=cap): plan_sizes(cap)}  # fmt: skip
        for budget, looks in made.items():
            read = read_budget(str(budget))
            assert read is not None and read.looks == looks
    for text in ("grid", "grid@0100", "grid:0.5,0.1@100", "looks:10,5", "betting:x@10", "fixed:0", "none", "pixels:10"):
        assert read_budget(text) is None


PROVED = drawn("grid", 0.9)
FUTILE = drawn("grid", 0.3)
LOOKS = drawn("looks", 0.9)
BET = drawn("betting:0.25", 0.97)
LOST_BET = drawn("betting:0.25", 0.6)
PLANNED = drawn("precision", 0.95)


def more_samples(certificate: ClassCertificate) -> dict[str, Any]:
    return {"n": certificate.n + 1, "counts": [certificate.counts[0] + 1, *certificate.counts[1:]]}


def moved(certificate: ClassCertificate, name: str, by: int) -> dict[str, Any]:
    values = list(getattr(certificate, name))
    return {name: [values[0] + by, values[1] - by, *values[2:]]}


FORGED: dict[str, tuple[ClassCertificate, Callable[[ClassCertificate], dict[str, Any]]]] = {
    "budget: one look with all of alpha": (PROVED, lambda c: {"budget": f"fixed:{c.n}"}),
    "budget: another cap": (PROVED, lambda c: {"budget": "grid@20000"}),
    "budget: other radii": (PROVED, lambda c: {"budget": "grid:0.0,0.31@10000"}),
    "budget: looks instead of a grid": (PROVED, lambda c: {"budget": "looks:100,1000,10000"}),
    "budget: fewer looks, a larger share each": (LOOKS, lambda c: {"budget": "looks:100,10000"}),
    "budget: planned afterwards": (LOOKS, lambda c: {"budget": "precision:0.05@10000"}),
    "budget: a larger bet": (BET, lambda c: {"budget": "betting:0.3@10000"}),
    "budget: unknown": (PROVED, lambda c: {"budget": "guess"}),
    "proved_at: empty": (PROVED, lambda c: {"proved_at": []}),
    "proved_at: of an abstention": (FUTILE, lambda c: {"proved_at": list(c.counts)}),
    "proved_at: the first look": (PROVED, lambda c: {"proved_at": [58, 6, 0]}),
    "proved_at: more agreeing than counted": (PROVED, lambda c: {"proved_at": [c.n, 0, 0]}),
    "proved_at: no look": (PROVED, lambda c: {"proved_at": [c.proved_at[0] - 1, *c.proved_at[1:]]}),
    "proved_at: another class": (PROVED, lambda c: {"proved_at": list(c.proved_at[::-1])}),
    "proved_at: a class less": (PROVED, lambda c: {"proved_at": list(c.proved_at[:2])}),
    "looks: fewer": (PROVED, lambda c: {"looks": 1}),
    "looks: more": (PROVED, lambda c: {"looks": c.looks + 1}),
    "n: no look of the budget": (PROVED, more_samples),
    "counts: fewer agree": (PROVED, lambda c: moved(c, "counts", -40)),
    "counts and proof: fewer agree": (
        PROVED, lambda c: moved(c, "counts", -40) | moved(c, "proved_at", -40),
    ),
    "counts: all agree": (FUTILE, lambda c: {"counts": [c.n, 0, 0]}),
    "stopped: at the cap": (PROVED, lambda c: {"stopped": "cap reached: 10000 samples"}),
    "stopped: a larger radius answered": (PROVED, lambda c: {"stopped": "answered: above reported radius 2.5"}),
    "stopped: another place": (PROVED, lambda c: {"stopped": "answered: between reported radii 0.5 and 0.75"}),
    "stopped: futile though proved": (PROVED, lambda c: {"stopped": FUTILE.stopped}),
    "stopped: answered though nothing is proved": (FUTILE, lambda c: {"stopped": PROVED.stopped}),
    "stopped: planned from more than there were": (
        PLANNED, lambda c: {"stopped": f"answered: {c.n} samples planned from 101 of 100 selection samples"},
    ),
    "stopped: another size": (PLANNED, lambda c: {"stopped": c.stopped.replace(str(c.n), "32")}),
    "n0: other selection samples than planned from": (PLANNED, lambda c: {"n0": 90}),
    "p_lower: the next rung up": (PROVED, lambda c: {"p_lower": c.p_lower + 0.003}),
    "p_lower: a rung down": (PROVED, lambda c: {"p_lower": c.p_lower - 0.003}),
    "p_lower: between the rungs": (PROVED, lambda c: {"p_lower": c.p_lower - 1e-5}),
    "p_lower: of an abstention": (FUTILE, lambda c: {"p_lower": 0.3}),
    "p_lower: of a lost bet": (LOST_BET, lambda c: {"p_lower": BET.p_lower, "radius": BET.radius, "abstained": False,
                                                    "proved_at": list(c.counts), "stopped": BET.stopped}),
    "a won bet denied": (BET, lambda c: {"p_lower": 0.0, "radius": 0.0, "abstained": True, "proved_at": [],
                                         "stopped": LOST_BET.stopped}),
    "alpha: lowered": (PROVED, lambda c: {"alpha": 1e-9}),
    "alpha: raised": (LOOKS, lambda c: {"alpha": 0.1}),
    "bound: two-sided bet": (BET, lambda c: {"bound": "best", "q_upper": 0.01}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_certificate_is_caught(kind: str) -> None:
    certificate, forge = FORGED[kind]
    assert faults(certificate) == []
    assert faults(certificate, **forge(certificate))


def test_one_agreeing_sample_less_than_the_threshold_is_caught() -> None:
    """Counts at the very threshold hold; with one less the claim is false, with the next rung's it is too modest."""
    budget = Grid()
    evidence = budget.evidence(0, 1e-3, 0.25, "one-sided")
    n = evidence.looks[7]
    least = next(k for k in range(n) if evidence.bound(7, np.array([k, n - k])).radius > 0.25)
    for k, holds in ((least, True), (least - 1, False)):
        proof = np.array([least, n - least])
        session = budget.start(np.array([90, 10]), 1e-3, 0.25)
        made = certificate_from_counts(
            np.array([90, 10]), proof, budget=budget, outcome=_at(session, evidence, proof), item="x", alpha=1e-3,
            sigma=0.25, seed=0, shape=(1, 4, 4),
        )  # fmt: skip
        wrong = faults(made, counts=[k, n - k], proved_at=[k, n - k], looks=8,
                       stopped="answered: between reported radii 0.25 and 0.5")  # fmt: skip
        assert (wrong == []) is holds, wrong


def _at(session: Any, evidence: Any, proof: np.ndarray) -> Any:
    """The outcome of a session whose first looks proved nothing and whose eighth is this."""
    counts = np.zeros(2, dtype=np.int64)
    for size in evidence.looks[:8]:
        counts = np.maximum(counts, proof * size // evidence.looks[7])
        counts[1] += size - counts.sum()
        session.next(counts)
    return session.finish(counts)


def test_a_thousand_certificates_of_all_budgets_in_ten_seconds() -> None:
    rng = np.random.default_rng(1)
    shares = rng.uniform(0.3, 1.0, 1_000)
    made = [
        json.loads(drawn(SPECS[index % len(SPECS)], float(share), seed=index).to_json())
        for index, share in enumerate(shares)
    ]
    begin = time.process_time()  # of this process alone: the machine may be busy with others
    assert not [fault for data in made for fault in class_faults(data)]
    assert time.process_time() - begin <= 10.0
