"""SegCertify as published (Fischer, Baader, Vechev, ICML 2021), written again for comparison.

Every noisy prediction is kept, every pixel is tested by its own binomial test, and Holm's procedure sorts all
p-values. Nothing here is shared with the package, so an error in either shows as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats


def all_predictions(model: Callable[[torch.Tensor], torch.Tensor], noisy: Iterable[torch.Tensor]) -> NDArray[np.int64]:
    """Classes of noisy copies ``(C, *space)``, one forward pass each: int64 ``(n, *space)``."""
    with torch.no_grad():
        return np.stack([model(copy[None])[0].argmax(dim=0).numpy() for copy in noisy])


def segcertify(
    selection: NDArray[np.int64],
    estimation: NDArray[np.int64],
    *,
    tau: float,
    alpha: float,
    correction: str = "holm",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Candidate mask and certified pixels from all kept predictions.

    Args:
        selection: ``(n0, *space)`` classes of the selection samples.
        estimation: ``(n, *space)`` classes of the estimation samples.
    """
    space = selection.shape[1:]
    n = len(estimation)
    modes = stats.mode(selection.reshape(len(selection), -1), axis=0).mode
    agreeing = (estimation.reshape(n, -1) == modes).sum(axis=0)
    certified = test_pixels(agreeing, n, tau=tau, alpha=alpha, correction=correction)
    return modes.reshape(space), certified.reshape(space)


def test_pixels(
    agreeing: NDArray[np.int64], n: int, *, tau: float, alpha: float, correction: str = "holm"
) -> NDArray[np.bool_]:
    """Certified pixels from agreement counts ``(K,)``: one binomial test a pixel, then the correction."""
    p_values = np.array([stats.binomtest(int(k), n, tau, alternative="greater").pvalue for k in agreeing])
    return holm_by_sorting(p_values, alpha) if correction == "holm" else p_values <= alpha / p_values.size


def holm_by_sorting(p_values: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """Rejected hypotheses of Holm's step-down procedure, in the order given."""
    rejected = np.zeros(p_values.size, dtype=bool)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > alpha / (p_values.size - rank):
            break
        rejected[index] = True
    return rejected
