"""From the class counts of one image to a bound, a radius and an abstention (Cohen et al. 2019, CERTIFY)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from certimed.errors import InputError
from certimed.statistics import _checks as check
from certimed.statistics._checks import IntArray
from certimed.statistics.binomial import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    radius_from_lower,
    radius_two_sided,
)
from certimed.statistics.variation import lower_less, upper_more

BoundName = Literal["one-sided", "two-sided", "best"]
BOUND_NAMES: tuple[BoundName, ...] = get_args(BoundName)


@dataclass(frozen=True)
class ClassBound:
    """What the estimation counts of one image prove about its smoothed prediction.

    Attributes:
        p_lower: lower confidence bound of the top class's probability under noise.
        q_upper: upper confidence bound of every other class's probability; None for the one-sided bound, where
            1 - p_lower stands in for it.
        radius: certified L2 radius in the units of sigma; 0 when abstained.
        abstained: True when the counts do not prove that the top class is the smoothed prediction.
        method: "one-sided", "two-sided" or "best".
    """

    p_lower: float
    q_upper: float | None
    radius: float
    abstained: bool
    method: BoundName


def one_sided_bound(
    counts: ArrayLike, top: int, n: int, alpha: float, sigma: float, variation: float = 0.0
) -> ClassBound:
    """Cohen's bound: all mass outside the top class is given to one rival.

    Formula: p_lower = Clopper-Pearson(counts[top], n, alpha), radius = sigma * Phi^-1(p_lower), abstain if
    p_lower <= 1/2. Guarantee (Cohen et al. 2019, Theorem 1 and Proposition 2): with probability at least 1 - alpha over
    the estimation noise, a bound that does not abstain is right: the smoothed prediction is ``top`` in the whole open
    ball.

    Args:
        counts: estimation counts of all classes, integers, shape (num_classes,), summing to n.
        top: index of the class, chosen on the n0 selection samples and never on these counts.
        n: estimation samples.
        alpha: failure probability.
        sigma: noise standard deviation.
        variation: see :func:`class_bound`.

    Raises:
        InputError: counts that do not sum to n, fewer than two classes, an index or a level out of range.

    >>> one_sided_bound([100, 0, 0], 0, 100, 0.001, 0.5).abstained
    False
    """
    k = _checked_counts(counts, top, n)
    level = check.scalar_open_unit("alpha", alpha)
    p_lower = float(lower_less(clopper_pearson_lower(k[top], n, level), variation))
    radius = float(radius_from_lower(p_lower, check.scalar_positive("sigma", sigma)))
    return ClassBound(p_lower=p_lower, q_upper=None, radius=radius, abstained=radius <= 0.0, method="one-sided")


def two_sided_bound(
    counts: ArrayLike, top: int, n: int, alpha: float, sigma: float, variation: float = 0.0
) -> ClassBound:
    """Bounds the top class from below and its strongest rival from above, alpha/2 each, for any number of classes.

    Formula: p_lower = CP_lower(counts[top], n, alpha/2), q_upper = CP_upper(max of the other counts, n, alpha/2),
    radius = sigma/2 (Phi^-1(p_lower) - Phi^-1(q_upper)), abstain if p_lower <= q_upper. It can certify with
    p_lower <= 1/2.

    Guarantee: with probability at least 1 - alpha over the estimation noise, a bound that does not abstain is right
    (Cohen et al. 2019, Theorem 1).

    Proof that no correction for the number of classes is due. ``top`` is fixed before the estimation samples are
    drawn, so the rival j* = argmax over j != top of the *true* probability p_j is one fixed (unknown) class. CP_upper
    grows with the count, so q_upper = max over j != top of CP_upper(counts[j]) >= CP_upper(counts[j*]). Hence
    P(q_upper < max p_j) <= P(CP_upper(counts[j*]) < p_j*) <= alpha/2, as counts[j*] ~ Bin(n, p_j*). Likewise
    P(p_lower > p_top) <= alpha/2. Both bounds hold together with probability at least 1 - alpha by the union bound,
    whatever the dependence between the counts.

    Args:
        counts: estimation counts of all classes, integers, shape (num_classes,), summing to n.
        top: index of the class, chosen on the n0 selection samples and never on these counts.
        n: estimation samples.
        alpha: failure probability.
        sigma: noise standard deviation.
        variation: see :func:`class_bound`.

    Raises:
        InputError: counts that do not sum to n, fewer than two classes, an index or a level out of range.

    >>> spread = [480] + [130] * 4
    >>> two_sided_bound(spread, 0, 1000, 0.001, 0.5).abstained, one_sided_bound(spread, 0, 1000, 0.001, 0.5).abstained
    (False, True)
    """
    k = _checked_counts(counts, top, n)
    p_lower, q_upper = _both_sides(k, top, n, alpha, variation)
    return _from_sides(p_lower, q_upper, sigma, "two-sided")


def best_of_both(counts: ArrayLike, top: int, n: int, alpha: float, sigma: float, variation: float = 0.0) -> ClassBound:
    """The larger of the one-sided radius at alpha/2 and the two-sided radius with alpha/2 on each side, and never less.

    Formula: p_lower = CP_lower(counts[top], n, alpha/2), q_upper = min(CP_upper(max other count, n, alpha/2),
    1 - p_lower), radius = sigma/2 (Phi^-1(p_lower) - Phi^-1(q_upper)).

    Guarantee: with probability at least 1 - alpha over the estimation noise, a bound that does not abstain is right
    (Cohen et al. 2019, Theorem 1). Proof: on the event, of probability at least 1 - alpha, on which both bounds of
    :func:`two_sided_bound` hold, every rival has probability at most 1 - p_top <= 1 - p_lower too; so the minimum is an
    upper bound on the same event and costs nothing more. With q_upper = 1 - p_lower the radius is the one-sided one.

    Args:
        counts: estimation counts of all classes, integers, shape (num_classes,), summing to n.
        top: index of the class, chosen on the n0 selection samples and never on these counts.
        n: estimation samples.
        alpha: failure probability.
        sigma: noise standard deviation.
        variation: see :func:`class_bound`.

    Raises:
        InputError: counts that do not sum to n, fewer than two classes, an index or a level out of range.

    >>> best_of_both([990, 10, 0], 0, 1000, 0.001, 0.5).method
    'best'
    """
    k = _checked_counts(counts, top, n)
    p_lower, q_upper = _both_sides(k, top, n, alpha, variation)
    # 1 - p_lower is rounded to nearest; one unit upwards makes it an upper bound again.
    complement = min(float(np.nextafter(1.0 - p_lower, 2.0)), 1.0)
    return _from_sides(p_lower, min(q_upper, complement), sigma, "best")


def class_bound(
    counts: ArrayLike,
    top: int,
    alpha: float,
    sigma: float,
    bound: BoundName | str = "one-sided",
    variation: float = 0.0,
) -> ClassBound:
    """One of the three bounds by name; n is the sum of the counts.

    The name must be chosen before the counts are seen: to take the better of two bounds, ask for "best", which pays for
    both. Guarantee: as in the function named: "one-sided" :func:`one_sided_bound`, "two-sided" :func:`two_sided_bound`,
    "best" :func:`best_of_both`.

    Args:
        counts: estimation counts of all classes, integers, shape (num_classes,).
        top: index of the class, chosen on the n0 selection samples and never on these counts.
        alpha: failure probability.
        sigma: noise standard deviation.
        bound: "one-sided", "two-sided" or "best".
        variation: the largest difference between an event's probability under the noise the counts are of and under
            the exact Gaussian law that Cohen's theorem needs; ``p_lower`` is lowered and ``q_upper`` raised by it, see
            :mod:`certimed.statistics.variation`.

    Raises:
        InputError: an unknown name, fewer than two classes, no samples, an index or a level out of range.

    >>> print(f"{class_bound([1000, 0], 0, 0.001, 1.0).radius:.3f}")
    2.463
    """
    functions = {"one-sided": one_sided_bound, "two-sided": two_sided_bound, "best": best_of_both}
    if bound not in functions:
        raise InputError(f"bound must be one of {', '.join(BOUND_NAMES)}, but is {bound!r}")
    n = int(check.integers("counts", counts).sum())
    return functions[bound](counts, top, n, alpha, sigma, variation)


def _checked_counts(counts: ArrayLike, top: int, n: int) -> IntArray:
    k = check.integers("counts", counts)
    if k.ndim != 1 or k.size < 2:
        raise InputError(f"counts must have shape (num_classes,) with at least 2 classes, but has shape {k.shape}")
    size = check.scalar_count("n", n)
    check.trials(k, size)
    if k.sum() != size:
        raise InputError(
            f"counts must sum to n={size}, but sum to {k.sum()}; pass the estimation counts of all classes, without n0"
        )
    index = check.scalar_count("top", top, minimum=0)
    if index >= k.size:
        raise InputError(f"top must be a class index below {k.size}, but is {index}")
    return k


def _both_sides(k: IntArray, top: int, n: int, alpha: float, variation: float) -> tuple[float, float]:
    half = check.scalar_open_unit("alpha", alpha) / 2.0
    rival = int(np.delete(k, top).max())
    lower, upper = clopper_pearson_lower(k[top], n, half), clopper_pearson_upper(rival, n, half)
    return float(lower_less(lower, variation)), float(upper_more(upper, variation))


def _from_sides(p_lower: float, q_upper: float, sigma: float, method: BoundName) -> ClassBound:
    radius = float(radius_two_sided(p_lower, q_upper, check.scalar_positive("sigma", sigma)))
    return ClassBound(p_lower=p_lower, q_upper=q_upper, radius=radius, abstained=radius <= 0.0, method=method)
