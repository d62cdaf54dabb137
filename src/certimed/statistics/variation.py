"""Statistics of samples that come from a law close to the wanted one, not from it.

Let P be the wanted law of a sample and Q the law that is drawn, with total variation distance sup |Q(E) - P(E)| <= v
over all events E. The samples are independent draws of Q, so counts are binomial with Q's probabilities, and every
bound on those holds as before. What remains is to move from Q to P:

* a lower bound of Q(E) less v is a lower bound of P(E), an upper bound plus v an upper bound: same confidence;
* if P(E) <= tau, then Q(E) <= tau + v: an exact test at the null tau + v is a test of P(E) <= tau at the same level.
  A sequential test at a raised null is one likewise, since it too is a test about Q;
* of n independent samples every event has a probability under Q within n v of that under P, because total variation is
  subadditive over products: a p-value computed for P is one for Q after n v is added. This serves tests whose null is
  no single probability, such as PREDICT's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from certimed.statistics import _checks as check
from certimed.statistics._checks import FloatArray


def lower_less(p_lower: ArrayLike, variation: float) -> FloatArray:
    """A lower bound for the wanted law from one for the drawn law: ``p_lower - variation``, rounded down, at least 0.

    Args:
        p_lower: lower bounds of probabilities under the law that was drawn, any shape.
        variation: bound on the total variation distance of the two laws of one sample, in [0, 1).

    Raises:
        InputError: p_lower outside [0, 1), variation outside [0, 1).

    >>> print(float(lower_less(0.75, 0.25)) <= 0.5)
    True
    """
    p, v = check.lower_bound(p_lower), float(check.lower_bound(variation, "variation"))
    return np.maximum(np.nextafter(p - v, -1.0), 0.0) if v else p


def upper_more(q_upper: ArrayLike, variation: float) -> FloatArray:
    """An upper bound, or a null hypothesis, raised by ``variation``: rounded up, at most 1.

    Args:
        q_upper: upper bounds of probabilities under the law that was drawn, or probabilities (tau) that a null
            hypothesis allows under the wanted one, any shape.
        variation: bound on the total variation distance of the two laws of one sample, in [0, 1).

    Returns:
        float64 array; a null of 1 can never be rejected.

    Raises:
        InputError: q_upper outside [0, 1], variation outside [0, 1).

    >>> print(float(upper_more(0.5, 0.25)) >= 0.75)
    True
    """
    q, v = check.unit("q_upper", q_upper), float(check.lower_bound(variation, "variation"))
    return np.minimum(np.nextafter(q + v, 2.0), 1.0) if v else q


def p_value_more(p_value: ArrayLike, samples: int, variation: float) -> FloatArray:
    """A p-value for the wanted law's hypothesis where the drawn law was sampled: raised by ``samples * variation``.

    Args:
        p_value: p-values that are exact for the wanted law, any shape.
        samples: all independent samples the test depends on, those that chose its hypothesis included.
        variation: bound on the total variation distance of the two laws of one sample, in [0, 1).

    Raises:
        InputError: p_value outside [0, 1], samples no positive integer, variation outside [0, 1).

    >>> print(float(p_value_more(0.01, 100, 0.0)))
    0.01
    """
    size, v = check.scalar_count("samples", samples), float(check.lower_bound(variation, "variation"))
    total = float(np.nextafter(size * v, np.inf)) if v else 0.0
    return upper_more(p_value, min(total, float(np.nextafter(1.0, 0.0))))
