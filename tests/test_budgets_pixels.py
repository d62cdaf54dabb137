"""Pixel looks: exact family-wise error over all looks, for dependent and independent pixels; the session's contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from certimed.budgets import PixelLooks, as_pixel_budget
from certimed.errors import InputError
from certimed.statistics import holm_threshold

TAU, ALPHA = 0.5, 0.1


def accepted_on(
    budget: PixelLooks, batches: tuple[np.ndarray, ...], correction: str = "holm", j: int = 1
) -> np.ndarray:
    """Pixels certified when these agreement counts come, batch by batch, and the budget decides when to stop."""
    session = budget.start(batches[0].shape, TAU, ALPHA, correction, j)
    counts = np.zeros(batches[0].shape, dtype=np.int16)
    for batch in batches:
        counts = counts + batch
        if not session.look(counts):
            break
    threshold = session.outcome().threshold
    return counts >= threshold if threshold is not None else np.zeros(counts.shape, dtype=bool)


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


@pytest.mark.parametrize(("correction", "j"), [("bonferroni", 1), ("lehmann-romano", 2)])
def test_exact_error_of_other_corrections_whoever_chooses_the_last_look(correction: str, j: int) -> None:
    """Two null pixels beside a robust one; an enemy stops at the look that errs, if one does."""
    sizes, steps = (5, 8), (5, 3)
    null, error = TAU, 0.0
    for first, second in itertools.product(
        itertools.product(range(6), repeat=2), itertools.product(range(4), repeat=2)
    ):
        session = PixelLooks(sizes).start((3,), TAU, ALPHA, correction, j)
        counts, wrong = np.array([*first, 5]), False
        for n, more in zip(sizes, (np.array([*second, 3]), 0)):
            session.look(counts)
            threshold = session.outcome().threshold
            wrong |= threshold is not None and int((counts[:2] >= threshold).sum()) >= j
            assert session.outcome().n == n
            counts = counts + more
        chances = [stats.binom.pmf(batch, step, null).prod() for batch, step in zip((first, second), steps)]
        error += wrong * float(np.prod(chances))
    assert 0 < error <= ALPHA


def test_each_look_tests_all_pixels_at_its_share_and_the_last_counts() -> None:
    session = PixelLooks((50, 100, 200)).start((2, 3), 0.75, 0.001)
    first = np.array([[50, 50, 50], [50, 45, 20]])
    assert session.look(first)
    second = np.array([[100, 72, 100], [100, 95, 40]])
    assert not session.look(second)
    outcome = session.outcome()
    (n_first, t_first, a_first), (n_second, t_second, a_second) = outcome.looks
    assert (n_first, n_second) == (50, 100) and t_first == 50
    assert (
        t_second == outcome.threshold == holm_threshold(np.bincount(second.ravel(), minlength=101), 100, 0.75, a_second)
    )
    # The pixel that the first look certified and the second one does not is not certified.
    assert (second >= outcome.threshold).tolist() == [[True, False, True], [True, True, False]]
    assert outcome.stop == "answered" and outcome.reason == "answered: 66.67% of pixels certified, 0.00% undecided"
    assert a_first * 2 + 0.0005 == pytest.approx(0.001)
    assert session.record() == {"budget": "pixels:50,100,200", "looks": outcome.looks, "stopped": outcome.reason}


def test_large_image_stops_early_and_agrees_with_the_fixed_procedure() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((128, 128)) < 0.9, 1 - 10 ** rng.uniform(-4, -1.5, (128, 128)), 0.4)
    session = PixelLooks((100, 200, 400, 1_000), undecided=0.005).start(truth.shape, 0.75, 0.001)
    counts, n, more = np.zeros(truth.shape, dtype=np.int32), 0, True
    for size in (100, 200, 400, 1_000):
        if more:
            counts, n = counts + rng.binomial(size - n, truth), size
            more = session.look(counts)
    outcome = session.outcome()
    accepted = counts >= outcome.threshold
    assert outcome.n == n <= 200 and outcome.stop == "answered" and outcome.undecided <= 0.005
    assert accepted.mean() > 0.98 * (truth > 0.75).mean()
    assert not accepted[truth < 0.5].any()


def test_hopeless_images_stop_at_the_first_look() -> None:
    session = PixelLooks((100, 1_000)).start((8, 8), 0.75, 0.001)
    assert not session.look(np.full((8, 8), 50))
    outcome = session.outcome()
    assert outcome.stop == "futile" and outcome.threshold is None and outcome.undecided == 0.0


def test_open_pixels_run_to_the_cap() -> None:
    session = PixelLooks((100, 120)).start((4, 4), 0.75, 0.001)
    assert session.look(np.full((4, 4), 87))
    assert session.outcome().stop == "interrupted"
    assert not session.look(np.full((4, 4), 104))
    outcome = session.outcome()
    assert outcome.stop == "cap reached" and outcome.n == 120 and outcome.undecided == 1.0
    with pytest.raises(InputError, match="all 2 looks"):
        session.look(np.full((4, 4), 104))


def test_pixels_that_many_hopeless_ones_leave_out_of_reach_are_given_up() -> None:
    """82 of 100 may still reach what one pixel alone needs at 200 samples, not what Holm asks beside 10^6 hopeless."""
    few, many = np.array([[82, 100]]), np.concatenate([[82, 100], np.full(1_000_000, 20)])[None]
    assert PixelLooks((100, 200)).start(few.shape, 0.75, 0.001).look(few)
    assert not PixelLooks((100, 200)).start(many.shape, 0.75, 0.001).look(many)


def test_arguments_of_certify_become_a_plan() -> None:
    assert as_pixel_budget(None, None, 100) == 100 and as_pixel_budget(None, 7, 100) == 7
    assert as_pixel_budget(300, None, 100) == as_pixel_budget(" fixed:300", None, 100) == 300
    assert as_pixel_budget("pixels:100,200/0.1", None, 100) == PixelLooks((100, 200), 0.1)
    assert as_pixel_budget(PixelLooks((5, 6)), None, 100) == PixelLooks((5, 6))
    for budget, n in ((100, 100), ("grid", None), (True, None), (1.5, None), ("", None)):
        with pytest.raises(InputError):
            as_pixel_budget(budget, n, 100)


@pytest.mark.parametrize("text", ["pixels:100,200,400", "pixels:100,400/0.01"])
def test_spelling_round_trips(text: str) -> None:
    budget = PixelLooks.parse(text)
    assert PixelLooks.parse(str(budget)) == budget
    assert budget.to_dict()["kind"] == "pixels"


def test_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"last look of budget pixels:20,50 is too early: .* use n >= "):
        PixelLooks((20, 50)).start((512, 512), 0.75, 0.001)
    for sizes, undecided in (((), 0.0), ((5, 5), 0.0), ((5, 6), 1.0), ((0, 6), 0.0)):
        with pytest.raises(InputError):
            PixelLooks(sizes, undecided)
    for text in ("grid", "pixels:a", "pixels:10,5", "pixels:10,10000000", "pixels:" + "9" * 5_000):
        with pytest.raises(InputError):
            PixelLooks.parse(text)
    session = PixelLooks((50, 60)).start((2, 2), 0.75, 0.01)
    with pytest.raises(InputError, match="nothing was looked at"):
        session.outcome()
    with pytest.raises(InputError, match="integers of shape"):
        session.look(np.zeros((2, 3), dtype=int))
    with pytest.raises(InputError, match=r"0\.\.n=50"):
        session.look(np.full((2, 2), 51))
    with pytest.raises(InputError, match="correction='holm'"):
        PixelLooks((50,)).start((2, 2), 0.75, 0.01, "holm", 2)
