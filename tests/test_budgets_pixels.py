"""Pixel looks: exact family-wise error over all looks, for dependent and independent pixels; the session's contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from certimed.budgets import PixelLooks
from certimed.errors import InputError
from certimed.statistics import holm_threshold

TAU, ALPHA = 0.5, 0.1


def accepted_on(budget: PixelLooks, batches: tuple[np.ndarray, ...]) -> np.ndarray:
    """Pixels certified when these agreement counts come, batch by batch."""
    session = budget.start(batches[0].shape, TAU, ALPHA)
    counts, n = np.zeros(batches[0].shape, dtype=np.int16), 0
    for batch, size in zip(batches, budget.sizes):
        if session.next(counts, n) == 0:
            break
        counts, n = counts + batch, size
    return session.finish(counts, n).accepted


@pytest.mark.parametrize("sizes", [(6, 11), (7,), (5, 6, 8)])
def test_exact_family_wise_error_of_two_independent_pixels(sizes: tuple[int, ...]) -> None:
    budget = PixelLooks(sizes)
    steps = np.diff(sizes, prepend=0)
    worst = 0.0
    cases = list(itertools.product(*[itertools.product(range(step + 1), repeat=2) for step in steps]))
    results = [accepted_on(budget, tuple(np.array(batch) for batch in case)) for case in cases]
    for probabilities in ((TAU, TAU), (0.3, TAU), (TAU, 0.7), (0.95, TAU), (0.9, 0.45)):
        wrong = np.array(probabilities) <= TAU
        error = 0.0
        for case, accepted in zip(cases, results):
            if (accepted & wrong).any():
                error += np.prod([stats.binom.pmf(b, s, probabilities).prod() for b, s in zip(case, steps)])
        assert error <= ALPHA
        worst = max(worst, error)
    assert worst > 0.02 * ALPHA


def test_exact_family_wise_error_under_dependence() -> None:
    """Three pixels at tau, tied to each other: each sample draws one row of a table of agreements."""
    sizes, steps = (6, 10), (6, 4)
    for patterns in ([(1, 1, 1), (0, 0, 0)], [(1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0)]):
        table = np.array(patterns)
        assert (table.mean(axis=0) <= TAU).all()
        error = 0.0
        batches = []
        for step in steps:
            splits = [c for c in itertools.product(range(step + 1), repeat=len(table)) if sum(c) == step]
            chance = stats.multinomial.pmf(splits, step, np.full(len(table), 1 / len(table)))
            batches.append([(np.array(split) @ table, float(w)) for split, w in zip(splits, chance)])
        for (first, a), (second, b) in itertools.product(*batches):
            if accepted_on(PixelLooks(sizes), (first, second)).any():
                error += a * b
        assert 0 < error <= ALPHA


def test_certified_pixels_stay_certified_and_leave_the_family() -> None:
    budget = PixelLooks((50, 100, 200))
    session = budget.start((2, 3), 0.75, 0.001)
    assert session.next(np.zeros((2, 3), dtype=int), 0) == 50
    first = np.array([[50, 50, 50], [50, 45, 20]])
    assert session.next(first, 50) == 50
    second = np.array([[100, 60, 100], [100, 95, 40]])
    session.next(second, 100)
    outcome = session.finish(second, 100)
    assert outcome.accepted.tolist() == [[True, True, True], [True, True, False]]
    (n_first, t_first, a_first), (n_second, t_second, a_second) = outcome.looks
    assert (n_first, n_second) == (50, 100) and t_first == 50
    # The second family is the two pixels left over.
    assert t_second == holm_threshold(np.bincount([95, 40], minlength=101), 100, 0.75, a_second)
    assert outcome.stop == "answered" and outcome.reason == "answered: 83.33% of pixels certified, 0.00% undecided"
    assert a_first * 2 + 0.0005 == pytest.approx(0.001)


def test_large_image_stops_early_and_agrees_with_the_fixed_procedure() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((128, 128)) < 0.9, 1 - 10 ** rng.uniform(-4, -1.5, (128, 128)), 0.4)
    budget = PixelLooks((100, 200, 400, 1_000), undecided=0.005)
    session = budget.start(truth.shape, 0.75, 0.001)
    counts, n = np.zeros(truth.shape, dtype=np.int32), 0
    while more := session.next(counts, n):
        counts, n = counts + rng.binomial(more, truth), n + more
    outcome = session.finish(counts, n)
    assert outcome.n <= 200 and outcome.stop == "answered" and outcome.undecided <= 0.005
    assert outcome.accepted.mean() > 0.98 * (truth > 0.75).mean()
    assert not outcome.accepted[truth < 0.5].any()


def test_hopeless_images_stop_at_the_first_look() -> None:
    session = PixelLooks((100, 1_000)).start((8, 8), 0.75, 0.001)
    outcome = session.finish(np.full((8, 8), 50), 100)
    assert outcome.stop == "futile" and not outcome.accepted.any() and outcome.undecided == 0.0


def test_open_pixels_run_to_the_cap() -> None:
    session = PixelLooks((100, 120)).start((4, 4), 0.75, 0.001)
    assert session.next(np.full((4, 4), 87), 100) == 20
    outcome = session.finish(np.full((4, 4), 104), 120)
    assert outcome.stop in ("cap reached", "futile") and outcome.n == 120


@pytest.mark.parametrize("text", ["pixels:100,200,400", "pixels:100,400/0.01"])
def test_spelling_round_trips(text: str) -> None:
    budget = PixelLooks.parse(text)
    assert PixelLooks.parse(str(budget)) == budget
    assert budget.to_dict()["kind"] == "pixels"


def test_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match="use a last look of n >= "):
        PixelLooks((20, 50)).start((512, 512), 0.75, 0.001)
    for sizes, undecided in (((), 0.0), ((5, 5), 0.0), ((5, 6), 1.0), ((0, 6), 0.0)):
        with pytest.raises(InputError):
            PixelLooks(sizes, undecided)
    for text in ("grid", "pixels:a", "pixels:10,5"):
        with pytest.raises(InputError):
            PixelLooks.parse(text)
    session = PixelLooks((50, 60)).start((2, 2), 0.75, 0.01)
    with pytest.raises(InputError, match="beyond the next look"):
        session.next(np.zeros((2, 2), dtype=int), 55)
    with pytest.raises(InputError, match="integers of shape"):
        session.next(np.zeros((2, 3), dtype=int), 50)
    with pytest.raises(InputError, match=r"0\.\.n=50"):
        session.next(np.full((2, 2), 51), 50)
