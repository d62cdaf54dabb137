"""Classes from scores, certificates from counts: what segmentation does before and after it samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certimed.budgets import Look, PixelLooks, PixelSession
from certimed.certificates import END_TO_END, MODEL_INPUT, MaskCertificate, collect_provenance
from certimed.errors import InputError
from certimed.statistics import count_threshold, radius_from_lower, require_samples_for_tau


def start_sessions(
    plan: PixelLooks | int,
    space: tuple[int, ...],
    taus: Sequence[float],
    shares: Sequence[float],
    correction: str,
    k_fwer: int,
) -> list[PixelSession]:
    """One session a tau under a budget, none for a fixed n; refuses what could certify nothing with InputError."""
    for tau, share in zip(taus, shares):
        check_tau(tau)
        if isinstance(plan, int):
            require_samples_for_tau(plan, tau, share, math.prod(space), correction=correction, j=k_fwer)
    if isinstance(plan, int):
        return []
    return [plan.start(space, tau, share, correction, k_fwer) for tau, share in zip(taus, shares)]


def winning_class(scores: Tensor, binary_threshold: float | None = None) -> Tensor:
    """Class of each pixel: ``(B, K, *space)`` -> small integers ``(B, *space)``; ties go to the lowest class.

    With a threshold (then K = 1): class 1 where the channel exceeds it. Equal to ``scores.argmax(1)``, which on a CPU
    takes about ten times as long, because it walks the class axis with a stride.
    """
    if binary_threshold is not None:
        return (scores[:, 0] > binary_threshold).to(torch.uint8)
    classes = scores.shape[1]
    kind = torch.uint8 if classes <= 256 else torch.int32
    if scores.device.type != "cpu":
        return scores.argmax(dim=1).to(kind)
    won = torch.empty((len(scores), *scores.shape[2:]), dtype=kind)
    for planes, out in zip(scores, won):
        out.copy_(planes[1] > planes[0])
        if classes > 2:
            best = torch.maximum(planes[0], planes[1])
            for index in range(2, classes):
                out.masked_fill_(planes[index] > best, index)
                torch.maximum(best, planes[index], out=best)
    return won


def certificate_from_agreement(
    mask: NDArray[Any],
    agreement: NDArray[Any],
    *,
    item: str,
    num_classes: int,
    n0: int,
    n: int,
    tau: float,
    alpha: float,
    correction: str,
    sigma: float,
    seed: int,
    shape: tuple[int, ...],
    k_fwer: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    model_id: str | None = None,
    intensity: str | None = None,
    scope: str = END_TO_END,
    space: str = MODEL_INPUT,
    notes: tuple[str, ...] = (),
    budget: str | None = None,
    looks: tuple[Look, ...] = (),
    stopped: str | None = None,
) -> MaskCertificate:
    """The certificate that candidate classes and agreement counts prove; the one place where counts become a mask.

    Args:
        mask: integers ``space``, the classes chosen on the ``n0`` selection samples.
        agreement: integers ``space``, 0..n, counted on ``n`` *disjoint* estimation samples.
        sigma: the standard deviation the radius is computed for.
        budget, looks, stopped: under a budget, as the certificate records them; the last look's share of alpha is then
            the level of the test.
    """
    level = looks[-1].alpha if looks else alpha
    histogram = np.bincount(agreement.ravel(), minlength=n + 1)
    return MaskCertificate(
        item=item,
        mask=mask,
        agreement=agreement,
        threshold=count_threshold(histogram, n, tau, level, correction, k_fwer),
        num_classes=num_classes,
        n0=int(n0),
        n=int(n),
        alpha=float(alpha),
        tau=float(tau),
        correction=correction,
        k_fwer=int(k_fwer),
        sigma=float(sigma),
        radius=float(radius_from_lower(check_tau(tau), sigma)),
        seed=int(seed),
        shape=shape,
        provenance=collect_provenance(device, dtype=dtype, model=model_id, intensity=intensity),
        scope=scope,
        space=space,
        notes=notes,
        budget=budget,
        looks=looks,
        stopped=stopped,
    )


def check_tau(tau: float) -> float:
    """Return tau, or raise InputError unless 0.5 <= tau < 1 (below one half no radius follows)."""
    if not 0.5 <= tau < 1:
        raise InputError(f"tau={tau} gives no radius; use 0.5 <= tau < 1, e.g. 0.75")
    return float(tau)
