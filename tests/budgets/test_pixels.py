"""Pixel looks: exact family-wise error over all looks, for dependent and independent pixels; the session's contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from certimed.budgets import Agreement, Budget, Fixed, PixelLooks, Stop, start_mask
from certimed.budgets.kinds import look_shares
from certimed.errors import InputError
from certimed.statistics import holm_threshold

TAU, ALPHA = 0.5, 0.1


def start(budget: Budget, space: tuple[int, ...], tau: float = 0.75, alpha: float = 1e-3, **options):
    return start_mask(budget, space, (tau,), (alpha,), **options)


def accepted_on(budget: PixelLooks, batches: tuple[np.ndarray, ...], correction: str = "holm", v: float = 0.0):
    """Pixels certified when these agreement counts come, batch by batch, and the budget decides when to stop."""
    session = start(budget, batches[0].shape, TAU, ALPHA, correction=correction, variation=v)
    seen = Agreement(0, np.zeros(batches[0].shape, dtype=np.int16))
    for batch in batches:
        if not (more := session.next(seen)):
            break
        seen = Agreement(seen.n + more, seen.counts + batch)
    (threshold,) = session.finish(seen).bound
    return seen.counts >= threshold if threshold is not None else np.zeros(seen.counts.shape, dtype=bool)


@pytest.mark.parametrize("v", [0.0, 0.05])
@pytest.mark.parametrize("sizes", [(6, 11), (7,), (5, 6, 8)])
def test_exact_family_wise_error_of_two_independent_pixels(sizes: tuple[int, ...], v: float) -> None:
    """The noise that is drawn may be off by v; what is wrong is judged by the exact law."""
    budget = PixelLooks(sizes)
    steps = np.diff(sizes, prepend=0)
    worst = 0.0
    cases = list(itertools.product(*[itertools.product(range(step + 1), repeat=2) for step in steps]))
    results = [accepted_on(budget, tuple(np.array(batch) for batch in case), v=v) for case in cases]
    for probabilities in ((TAU, TAU), (0.3, TAU), (TAU, 0.7), (0.95, TAU), (0.9, 0.45)):
        wrong = np.array(probabilities) <= TAU
        error = 0.0
        for case, accepted in zip(cases, results):
            if (accepted & wrong).any():
                error += np.prod(
                    [stats.binom.pmf(b, s, np.array(probabilities) + v).prod() for b, s in zip(case, steps)]
                )
        assert error <= ALPHA
        worst = max(worst, error)
    assert worst > 0.01 * ALPHA


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


@pytest.mark.parametrize("correction", ["bonferroni", "holm"])
def test_exact_error_whoever_chooses_the_last_look(correction: str) -> None:
    """Two null pixels beside a robust one; an enemy interrupts at the look that errs, if one does."""
    sizes, steps = (5, 8), (5, 3)
    null, error = TAU, 0.0
    for first, second in itertools.product(
        itertools.product(range(6), repeat=2), itertools.product(range(4), repeat=2)
    ):
        session, counts = start(PixelLooks(sizes), (3,), TAU, ALPHA, correction=correction), np.zeros(3, dtype=int)
        wrong = False
        for n, more in zip(sizes, (np.array([*first, 5]), np.array([*second, 3]))):
            counts = counts + more
            wanted = session.next(Agreement(n, counts))
            (threshold,) = session.finish(Agreement(n, counts)).bound
            wrong |= threshold is not None and bool((counts[:2] >= threshold).any())
            if not wanted:
                break
        chances = [stats.binom.pmf(batch, step, null).prod() for batch, step in zip((first, second), steps)]
        error += wrong * float(np.prod(chances))
    assert 0 < error <= ALPHA


def test_each_look_tests_all_pixels_at_its_share_and_the_last_counts() -> None:
    session = start(PixelLooks((50, 100, 200)), (2, 3))
    first = np.array([[50, 50, 50], [50, 45, 20]])
    assert session.next(Agreement(50, first)) == 50
    second = np.array([[100, 72, 100], [100, 95, 40]])
    assert session.next(Agreement(100, second)) == 0
    outcome = session.finish(Agreement(100, second))
    (threshold,) = outcome.bound
    shares = look_shares(3, 0.001)
    assert sum(shares) <= 0.001 and shares[0] * 2 + shares[2] == pytest.approx(0.001)
    assert threshold == holm_threshold(np.bincount(second.ravel(), minlength=101), 100, 0.75, shares[1])
    assert outcome.looks == ((50, 50), (100, threshold)) and outcome.proved_at == 1
    # The pixel that the first look certified and the second one does not is not certified.
    assert (second >= threshold).tolist() == [[True, False, True], [True, True, False]]
    assert outcome.stop == Stop("answered", undecided=0)


def test_several_taus_are_tested_each_at_its_share() -> None:
    taus, shares, space = (0.6, 0.9), (5e-4, 2e-4), (4, 5)
    counts = np.random.default_rng(0).integers(150, 201, size=space)
    session = start_mask(PixelLooks((100, 200)), space, taus, shares)
    session.next(Agreement(100, counts // 2))
    outcome = session.finish(Agreement(200, counts))
    histogram = np.bincount(counts.ravel(), minlength=201)
    assert outcome.bound == tuple(
        holm_threshold(histogram, 200, tau, look_shares(2, share)[1]) for tau, share in zip(taus, shares)
    )
    assert [len(look) for look in outcome.looks] == [3, 3]
    assert outcome.looks[1] == (200, *(threshold or 0 for threshold in outcome.bound))


def test_a_fixed_number_is_one_look_with_all_of_alpha() -> None:
    counts = np.array([[100, 95], [80, 20]])
    session = start(Fixed(100), (2, 2))
    outcome = session.run(lambda first, n: Agreement(first + n, counts), Agreement(0, np.zeros_like(counts)))
    wanted = holm_threshold(np.bincount(counts.ravel(), minlength=101), 100, 0.75, 1e-3)
    assert outcome.bound == (wanted,) and outcome.looks == ((100, wanted),)
    assert outcome.stop == Stop("cap reached")


def test_large_image_stops_early_and_agrees_with_the_fixed_procedure() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random((128, 128)) < 0.9, 1 - 10 ** rng.uniform(-4, -1.5, (128, 128)), 0.4)
    counts = np.zeros(truth.shape, dtype=np.int32)

    def draw(first: int, n: int) -> Agreement:
        nonlocal counts
        counts = counts + rng.binomial(n, truth)
        return Agreement(first + n, counts)

    session = start(PixelLooks((100, 200, 400, 1_000), undecided=0.005), truth.shape)
    outcome = session.run(draw, Agreement(0, counts))
    accepted = counts >= outcome.bound[0]
    assert outcome.n <= 200 and outcome.stop.kind == "answered" and outcome.stop.undecided <= 0.005 * truth.size
    assert accepted.mean() > 0.98 * (truth > 0.75).mean()
    assert not accepted[truth < 0.5].any()


def test_hopeless_images_stop_at_the_first_look() -> None:
    session, seen = start(PixelLooks((100, 1_000)), (8, 8)), Agreement(100, np.full((8, 8), 50))
    assert session.next(seen) == 0
    outcome = session.finish(seen)
    assert outcome.stop == Stop("futile", undecided=0) and outcome.bound == (None,) and outcome.looks == ((100, 0),)


def test_open_pixels_run_to_the_cap() -> None:
    session, first = start(PixelLooks((100, 120)), (4, 4)), Agreement(100, np.full((4, 4), 87))
    assert session.next(first) == 20
    assert session.finish(first).stop == Stop("interrupted")
    last = Agreement(120, np.full((4, 4), 104))
    assert session.next(last) == 0
    outcome = session.finish(last)
    assert outcome.stop == Stop("cap reached", undecided=16) and outcome.n == 120
    with pytest.raises(InputError, match="beyond the 120 asked for"):
        session.next(Agreement(121, last.counts))


def test_pixels_that_many_hopeless_ones_leave_out_of_reach_are_given_up() -> None:
    """82 of 100 may still reach what one pixel alone needs at 200 samples, not what Holm asks beside 10^6 hopeless."""
    few, many = np.array([[82, 100]]), np.concatenate([[82, 100], np.full(1_000_000, 20)])[None]
    assert start(PixelLooks((100, 200)), few.shape).next(Agreement(100, few))
    assert not start(PixelLooks((100, 200)), many.shape).next(Agreement(100, many))


def test_an_interrupted_mask_proves_nothing_before_its_first_look() -> None:
    session = start(PixelLooks((50, 60)), (2, 2))
    outcome = session.finish(Agreement(0, np.zeros((2, 2), dtype=int)))
    assert (outcome.bound, outcome.looks, outcome.proved_at) == ((None,), (), None)
    assert outcome.stop == Stop("interrupted")


def test_impossible_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"^n=50 cannot certify .* use n >= "):
        start(PixelLooks((20, 50)), (512, 512))
    for sizes, undecided in (((), 0.0), ((5, 5), 0.0), ((5, 6), 1.0), ((0, 6), 0.0)):
        with pytest.raises(InputError):
            PixelLooks(sizes, undecided)
    with pytest.raises(InputError, match="no pixels"):
        start(Fixed(100), (0, 4))
    with pytest.raises(InputError, match="fdr"):
        start(Fixed(100), (2, 2), correction="fdr")


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Agreement(50, np.zeros((2, 3), dtype=int)), "integers of shape"),
        (Agreement(50, np.zeros((2, 2))), "integers of shape"),
        (Agreement(50, np.full((2, 2), 51)), r"0\.\.n=50"),
        (Agreement(50, np.full((2, 2), -1)), r"0\.\.n=50"),
        (Agreement(61, np.full((2, 2), 50)), "beyond the 50"),
        (Agreement(10, np.full((2, 2), 10)), "fallen"),
        (Agreement(30, np.full((2, 2), 15)), "fallen"),
        (Agreement(30, np.full((2, 2), 29)), "fallen"),
    ],
)
def test_counts_that_cannot_follow_are_named(seen: Agreement, words: str) -> None:
    session = start(PixelLooks((50, 60)), (2, 2), alpha=0.01)
    session.next(Agreement(20, np.full((2, 2), 18)))
    with pytest.raises(InputError, match=words):
        session.next(seen)
