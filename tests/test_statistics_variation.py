"""Samples from a law within v of the wanted one: the charge keeps every level, and without it none is kept."""

import numpy as np
import pytest
from scipy import stats

from certimed.errors import InputError
from certimed.statistics import (
    binomial_tail,
    clopper_pearson_lower,
    clopper_pearson_upper,
    lower_less,
    p_value_more,
    predict_p_value,
    upper_more,
)

N, ALPHA, V = 60, 0.05, 0.03
WANTED = np.linspace(0.05, 0.95, 37)


def failure(bound, wanted: float, drawn: float) -> float:
    """P(bound is wrong about ``wanted``) where the counts follow ``drawn``: an exact binomial sum."""
    return float(stats.binom.pmf(np.arange(N + 1), N, drawn)[bound(np.arange(N + 1), wanted)].sum())


SIDES = {
    "lower": (lambda k, p: lower_less(clopper_pearson_lower(k, N, ALPHA), V) > p, +V),
    "upper": (lambda k, p: upper_more(clopper_pearson_upper(k, N, ALPHA), V) < p, -V),
    "null": (lambda k, tau: binomial_tail(k, N, float(upper_more(tau, V))) <= ALPHA, +V),
}
UNCHARGED = {
    "lower": lambda k, p: clopper_pearson_lower(k, N, ALPHA) > p,
    "upper": lambda k, p: clopper_pearson_upper(k, N, ALPHA) < p,
    "null": lambda k, tau: binomial_tail(k, N, tau) <= ALPHA,
}


@pytest.mark.parametrize("side", SIDES)
def test_the_charge_keeps_the_level_at_the_worst_law(side):
    bound, shift = SIDES[side]
    assert max(failure(bound, p, p + shift) for p in WANTED) <= ALPHA
    assert max(failure(UNCHARGED[side], p, p + shift) for p in WANTED) > ALPHA


def test_predict_keeps_its_level_with_all_samples_charged():
    """Two equally likely rivals and a third class; the drawn law favours the wrong one by v."""
    n, v, alpha = 30, 0.002, 0.1
    first = np.arange(n + 1)
    worst = 0.0
    for rival in (0.02, 0.1, 0.3, 0.5):
        # Counts of (top, second) under the drawn law (rival + v, rival - v); a wrong answer is "top" not abstained.
        top, second = np.meshgrid(first, first, indexing="ij")
        rest = n - top - second
        ok = rest >= 0
        drawn = np.stack([top[ok], second[ok], rest[ok]], 1)
        chance = stats.multinomial.pmf(drawn, n, [rival + v, rival - v, 1 - 2 * rival])
        answers = (p_value_more(predict_p_value(top[ok], second[ok]), n, v) <= alpha) & (top[ok] > second[ok])
        worst = max(worst, float(chance[answers].sum()))
    assert worst <= alpha


def test_rounding_goes_outwards_and_nothing_is_charged_for_nothing():
    assert float(lower_less(0.7, 0.1)) < 0.7 - 0.1
    assert float(upper_more(0.7, 0.1)) > 0.7 + 0.1
    assert float(lower_less(0.01, 0.5)) == 0.0
    assert float(upper_more(0.9, 0.5)) == 1.0
    assert float(lower_less(0.7, 0.0)) == 0.7
    assert float(upper_more(0.7, 0.0)) == 0.7
    assert float(p_value_more(0.7, 10**6, 0.5)) == 1.0


def test_nonsense_is_refused():
    for call in (
        lambda: lower_less(0.5, -1e-9),
        lambda: upper_more(1.5, 0.1),
        lambda: p_value_more(0.5, 0, 0.1),
        lambda: lower_less(0.5, 1.0),
    ):
        with pytest.raises(InputError):
            call()
