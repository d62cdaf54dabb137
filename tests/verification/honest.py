"""Honest certificates without a model: counts drawn from multinomials, through the real budgets and targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certimed.budgets import Agreement, parse_budget
from certimed.certificates import (
    Circumstances,
    ClassCertificate,
    MaskCertificate,
    Provenance,
    Samples,
    Share,
    certificate_of,
)
from certimed.noise import NoiseLaw, as_law
from certimed.targets import Classes, Pixels

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


def _samples(n0: int, budget: Any, outcome: Any) -> Samples:
    return Samples(n0, outcome.n, str(budget), outcome.looks, outcome.proved_at, outcome.stop)
