"""Honest certificates without a model: counts drawn from multinomials, through the real budgets and targets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certimed.budgets import Agreement, Goal, Values, parse_budget
from certimed.certificates import (
    Circumstances,
    ClassCertificate,
    IntervalCertificate,
    MaskCertificate,
    Provenance,
    Samples,
    Share,
    certificate_of,
)
from certimed.measurements import parse_measurement
from certimed.noise import NoiseLaw, as_law
from certimed.targets import Classes, Interval, Pixels

VERSIONS = {"python": "3.12", "certimed": "0.2", "torch": "2", "numpy": "2", "scipy": "1"}
CLASS_BUDGETS = ("grid", "grid:0.0,0.3@2000", "betting:0.25", "betting:0.1@3000", "looks", "looks:50,100,300/0.1,0.2",
                 "planned", "planned:0.1,0.02@5000", "500", "100")  # fmt: skip
MASK_BUDGETS = ("100", "200", "pixels:100,200,400", "pixels:60,120,300/0.05")


def about(law: NoiseLaw, item: str = "x", shape: tuple[int, ...] = (1, 4, 4), **changes: Any) -> Circumstances:
    """The circumstances of a certificate that no model made, of a black image."""
    provenance = Provenance("cpu", "a processor", "float32", "a" * 64, "as given", "b" * 64, {"Pillow": "11"}, VERSIONS)
    placed = law.placement(torch.zeros(shape))
    return replace(Circumstances(item, "plain", 3, shape, "model input", "end-to-end", provenance, placed), **changes)


def class_certificate(
    spec: str,
    probabilities: list[float],
    *,
    bound: str = "one-sided",
    alpha: float = 1e-3,
    sigma: float = 0.25,
    noise: str = "float32",
    seed: int = 0,
    n0: int = 100,
    share: Share | None = None,
    **changes: Any,
) -> ClassCertificate:
    """One image whose noisy copies fall into classes with these probabilities, certified under a budget."""
    rng, budget, law = np.random.default_rng(seed), parse_budget(spec), as_law(noise, sigma)
    target, where = Classes(len(probabilities), bound), about(law=law, **changes)
    selected = rng.multinomial(n0, probabilities)
    session = target.start(selected, where.shape, budget, alpha, law, where.views)
    counts = np.zeros(len(probabilities), dtype=np.int64)
    while more := session.next(counts):
        counts = counts + rng.multinomial(more, probabilities)
    ((claim, own, outcome),) = target.claims(selected, counts, session.finish(counts), alpha, law)
    made = certificate_of(claim, law=law, samples=_samples(n0, budget, outcome), share=share or own, about=where)
    assert isinstance(made, ClassCertificate)
    return made


def mask_certificates(
    spec: str,
    probabilities: NDArray[np.float64],
    *,
    taus: tuple[float, ...] = (0.75,),
    correction: str = "holm",
    alpha: float = 1e-3,
    sigma: float = 0.25,
    noise: str = "float32",
    seed: int = 0,
    n0: int = 10,
    channels: int = 1,
    **changes: Any,
) -> tuple[MaskCertificate, ...]:
    """One mask whose pixels agree with their candidate class with these probabilities; one certificate for each tau."""
    rng, budget, law = np.random.default_rng(seed), parse_budget(spec), as_law(noise, sigma)
    target, where = Pixels(2, taus, correction), about(law=law, shape=(channels, *probabilities.shape), **changes)
    selected = torch.from_numpy(rng.integers(0, 2, probabilities.shape).astype(np.uint8))
    session = target.start(selected, where.shape, budget, alpha, law)
    counts = Agreement(0, np.zeros(probabilities.shape, dtype=np.int64))
    while more := session.next(counts):
        counts = Agreement(counts.n + more, counts.counts + rng.binomial(more, probabilities))
    found = target.claims(selected, counts, session.finish(counts), alpha, law)
    made = tuple(
        certificate_of(claim, law=law, samples=_samples(n0, budget, outcome), share=share, about=where)
        for claim, share, outcome in found
    )
    return made  # type: ignore[return-value]


VALUE_BUDGETS = ("fixed:60", "fixed:100", "fixed:1000", "looks:100,200,400", "pixels:100,300")


def interval_certificate(index: int, spec: str = "", **how: Any) -> IntervalCertificate:
    """Values drawn from normals, some of them not defined, through the real target."""
    rng = np.random.default_rng(index)
    law = as_law(how.get("noise", ("grid", "float32")[index % 2]), how.get("sigma", float(rng.choice([0.25, 0.5]))))
    budget = parse_budget(spec or VALUE_BUDGETS[index % len(VALUE_BUDGETS)])
    names = ["area:1", "count:1", "centroid_x:1"][: 1 + index % 3]
    radii = tuple(law.sigma * np.array([0.2, 0.6])[: 1 + index // 3 % 2])
    goals = {names[0]: Goal(threshold=float(rng.normal(0, 2)))} | ({names[-1]: Goal(0.9)} if index % 4 == 3 else {})
    measured = tuple(parse_measurement(name, "ab") for name in names)
    target, where = Interval(2, measured, radii, goals), about(law=law)
    session, values = target.start((4, 4), where.shape, budget, 1e-3, law), np.empty((len(names), 0))
    while more := session.next(Values(values.shape[1], values)):
        fresh = rng.normal(0.0, 1.0, (len(names), more)).round(int(rng.integers(0, 4)))
        fresh[rng.random(fresh.shape) < 0.02 * (index % 5 == 4)] = math.nan
        values = np.concatenate([values, fresh], axis=1)
    counts = Values(values.shape[1], values)
    outcome = session.finish(counts)
    ((claim, share, own),) = target.claims((4, 4), counts, outcome, 1e-3, law)
    return certificate_of(claim, law=law, samples=_samples(0, budget, own), share=share, about=where)  # type: ignore[return-value]


def _samples(n0: int, budget: Any, outcome: Any) -> Samples:
    return Samples(n0, outcome.n, str(budget), outcome.looks, outcome.proved_at, outcome.stop)
