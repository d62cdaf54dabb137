"""Budgets inside the engine: the first samples of the fixed run, for every method, each with a stop of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import CLASS_NAMES, TinyVLM, brightness, class_images, counted, grey, noisy_copies

from certimed.budgets import Betting, Budget, Fixed, Grid, Looks, Planned, Stop, as_budget
from certimed.certificates import TOO_FEW_SAMPLES, UNSTABLE, ClassCertificate, certificate_from_dict
from certimed.classification import SmoothedClassifier
from certimed.prompts import FixedText, PromptComparison, few_shot, prompt_methods

BUDGETS: list[Budget] = [
    Fixed(300),
    Grid((0.0, 0.1, 0.25), 2_000),
    Looks((50, 200, 800), (0.0, 0.1)),
    Betting(0.05, 2_000),
    Planned(n=2_000),
]
LEVELS = (0.5, 0.505, 0.52, 0.6, 0.9)


SMOOTHED = SmoothedClassifier(brightness, 2, 0.25, noise="float32")


def follows(made: ClassCertificate) -> bool:
    """Whether a claim about two classes follows from its integers: the budget's own session gives it, look by look."""
    session = as_budget(made.budget).start(
        np.array(made.claim.selection), made.alpha, made.sigma, made.bound, made.variation
    )
    for n, agreeing, rival in made.samples.looks:
        assert agreeing + rival == n
        counts = np.array([agreeing, rival] if made.prediction == 0 else [rival, agreeing])
        session.next(counts)
    assert tuple(counts) == made.counts
    outcome, claim = session.finish(counts), made.claim
    assert (outcome.looks, outcome.proved_at, outcome.stop) == (made.samples.looks, made.samples.proved_at, made.stop)
    return (claim.radius, claim.abstained, claim.p_lower, claim.q_upper) == (
        outcome.bound.radius, outcome.bound.abstained, outcome.bound.p_lower, outcome.bound.q_upper,
    )  # fmt: skip


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_samples_are_the_first_ones_of_the_stream(budget: Budget, level: float) -> None:
    made = SMOOTHED.certify(grey(level), budget=budget, n0=50, seed=2, item_id="x")
    assert made.counts == counted(brightness, noisy_copies(grey(level), 0.25, 2, "x", "estimation", made.n), 2)
    assert made.n <= budget.cap and as_budget(made.budget) == budget
    assert certificate_from_dict(json.loads(made.to_json())) == made
    assert follows(made)
    assert SMOOTHED.certify(grey(level), budget=str(budget), n0=50, seed=2, item_id="x") == made
    assert SMOOTHED.certify(grey(level), budget=budget, n0=50, seed=2, item_id="x", batch_size=7) == made
    (many,) = SMOOTHED.certify_many([("x", grey(level))], budget=budget, n0=50, seed=2)
    assert many == made


def test_abstentions_under_a_budget_say_whether_more_samples_would_help() -> None:
    def abstention(level: float, budget: Budget) -> str | None:
        return SMOOTHED.certify(grey(level), budget=budget, n0=200, seed=1, item_id="x").abstention

    three = SmoothedClassifier(lambda x: torch.eye(3)[(x.flatten(1)[:, 0] * 1e6).long() % 3], 3, 0.25)
    lost = three.certify(grey(0.5), budget=Grid())
    assert lost.abstention == UNSTABLE and lost.stop == Stop("futile", below=0.0) and lost.n < 1_000
    assert abstention(0.504, Grid(n=1_000)) == TOO_FEW_SAMPLES
    # A bet on 0.2 at a true radius of 0.04: the majority holds, and no number of samples will win the bet.
    assert abstention(0.51, Betting(0.2)) == UNSTABLE
    assert SMOOTHED.certify(grey(0.556), budget=Betting(0.2, 600), n0=200, seed=1).abstention == TOO_FEW_SAMPLES


@pytest.fixture(scope="module")
def world() -> tuple[TinyVLM, list[object], torch.Tensor]:
    vlm = TinyVLM(seed=3)
    images, labels = class_images(vlm, 4)
    learnt = few_shot(vlm, images, labels, CLASS_NAMES, epochs=10, sigmas=(0.0, 0.25))
    names = ("plain", "few-shot", "zero-shot", "both", "per-sample", "split")
    methods = prompt_methods(
        vlm, CLASS_NAMES, names, sigma=0.25, context="an H&E image patch of", few_shot=learnt, copies=20, lr=0.02
    )
    return vlm, list(methods), class_images(vlm, 2, seed=9)[0]


@pytest.mark.parametrize("budget", ["grid@1500", "planned@1500", "betting:0.05@1500"])
def test_each_method_stops_for_itself_and_gets_what_it_gets_alone(world: tuple, budget: str) -> None:
    vlm, methods, images = world
    setting = {"n0": 40, "budget": budget, "batch_size": 32, "seed": 5}
    together = PromptComparison(vlm, methods, 0.25)
    used = set()
    for picture in images[::2]:
        found = together.certify(picture, **setting)
        for method in methods:
            made = found[method.name]
            used.add(made.n)
            assert certificate_from_dict(json.loads(made.to_json())) == made
            alone = PromptComparison(vlm, [method], 0.25).certify(picture, **setting)[method.name]
            assert alone.to_json() == made.to_json()
            if isinstance(method, FixedText):
                plain = SmoothedClassifier(method.classifier, 3, 0.25).certify(picture, **setting)
                assert (plain.counts, plain.radius, plain.samples) == (made.counts, made.radius, made.samples)
    assert len(used) > 1


def test_a_stream_costs_its_slowest_method_and_no_more(world: tuple) -> None:
    vlm, methods, images = world
    shared = [method for method in methods if method.stream == "plain" and isinstance(method, FixedText)]
    assert len(shared) > 1
    drawn = []
    found = PromptComparison(vlm, shared, 0.25).certify(
        images[0], n0=40, budget="grid@1500", batch_size=32, progress=drawn.append
    )
    assert sum(drawn) == 40 + max(made.n for made in found.values())
