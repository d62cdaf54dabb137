"""Budgets as objects: spelling, JSON, the session's contract, what they say about stopping."""

from __future__ import annotations

import time

import numpy as np
import pytest

from certimed.budgets import (
    PUBLISHED_RADII,
    Betting,
    Budget,
    Fixed,
    Grid,
    Looks,
    Outcome,
    PixelLooks,
    Planned,
    Stop,
    as_budget,
    budget_from_dict,
    parse_budget,
)
from certimed.errors import InputError
from certimed.statistics import class_bound, radius_from_lower

SELECTION = np.array([95, 3, 2])


def run(budget: Budget, p: float, sigma: float = 0.25, bound: str = "one-sided", seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    session, counts, pieces = budget.start(SELECTION, 0.001, sigma, bound), np.zeros(3, dtype=np.int64), []

    def draw(start: int, n: int) -> np.ndarray:
        nonlocal counts
        assert start == counts.sum()
        pieces.append(n)
        counts = counts + rng.multinomial(n, [p, 0.7 * (1 - p), 0.3 * (1 - p)])
        return counts

    outcome = session.run(draw, counts)
    assert outcome == session.finish(counts)
    assert outcome.n == counts.sum() == sum(pieces) <= session.cap <= budget.cap
    assert [look[0] for look in outcome.looks] == np.cumsum(pieces).tolist()
    assert outcome.looks[-1] == (counts.sum(), counts[0], counts[1:].max())
    assert session.cap == budget.cap or isinstance(budget, Planned)
    return outcome


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("10000", Fixed(10_000)),
        ("fixed:500", Fixed(500)),
        ("fixed@500", Fixed(500)),
        ("looks:100,1000,10000", Looks((100, 1_000, 10_000))),
        ("looks:100,1000/0,0.5", Looks((100, 1_000), (0.0, 0.5))),
        ("looks", Looks()),
        ("grid", Grid()),
        ("grid@500", Grid(n=500)),
        ("grid:0,.25,.5", Grid((0.0, 0.25, 0.5))),
        ("grid:0.25@2000", Grid((0.25,), 2_000)),
        ("betting:0.25", Betting(0.25)),
        ("betting:0.25@20000", Betting(0.25, 20_000)),
        ("planned", Planned()),
        ("planned:5%", Planned(0.05)),
        ("planned:0.1,0.02@5000", Planned(0.1, 0.02, 5_000)),
        ("pixels", PixelLooks()),
        ("pixels:100,200,400", PixelLooks((100, 200, 400))),
        ("pixels:100,400/0.01", PixelLooks((100, 400), 0.01)),
    ],
)
def test_spelling_and_json_round_trips(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget
    assert budget_from_dict(budget.to_dict()) == budget
    assert hash(budget) == hash(parse_budget(text))


@pytest.mark.parametrize(
    "text",
    ["", "grids", "looks:1000,100", "looks:ten", "betting", "betting:x", "betting:-1", "grid:0.5,0.25", "planned:0",
     "planned:150%", "fixed:0", "fixed:1.5", "grid@0", "looks:100,1000@10", "grid:nan", "10000000000",
     "grid@10000000", "pixels:a", "pixels:10,5", "pixels:10,10000000", "pixels:" + "9" * 5_000, "pixels:5,6@7",
     "pixels:5,6/1", "pixels:5,6/x", "precision:5%"],
)  # fmt: skip
def test_bad_spellings_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_budget(text)


@pytest.mark.parametrize("data", [None, [], {"kind": "none"}, {"kind": "fixed", "m": 3}, {"kind": "betting"}])
def test_bad_json_is_refused(data: object) -> None:
    with pytest.raises(InputError):
        budget_from_dict(data)


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
@pytest.mark.parametrize("p", [0.3, 0.55, 0.9, 1.0])
def test_fixed_is_the_published_procedure(p: float, bound: str) -> None:
    outcome = run(Fixed(400), p, bound=bound)
    assert outcome.n == 400 and outcome.stop == Stop("cap reached") and outcome.proved_at == 0
    ((n, agreeing, rival),) = outcome.looks
    assert outcome.bound == class_bound([agreeing, rival, n - agreeing - rival], 0, 0.001, 0.25, bound)


@pytest.mark.parametrize("spec", ["looks", "grid", "planned", "betting:0.25", "400"])
@pytest.mark.parametrize("p", [0.3, 0.52, 0.7, 0.87, 0.97, 1.0])
def test_recorded_looks_give_the_bound_again(spec: str, p: float) -> None:
    budget = parse_budget(spec)
    outcome = run(budget, p)
    bounds = []
    for last in range(1, len(outcome.looks) + 1):
        session, again = budget.start(SELECTION, 0.001, 0.25), None
        for n, agreeing, rival in outcome.looks[:last]:
            again = np.array([agreeing, rival, n - agreeing - rival])
            session.next(again)
        bounds.append(session.finish(again).bound)
    assert outcome.bound == bounds[-1] == bounds[outcome.proved_at]
    assert outcome.bound.radius == max(bound.radius for bound in bounds)
    if outcome.bound.abstained:
        assert outcome.bound.radius == 0.0 and outcome.proved_at == len(outcome.looks) - 1
    else:
        assert outcome.bound.radius == float(radius_from_lower(outcome.bound.p_lower, 0.25)) > 0
        assert [bound.radius for bound in bounds].index(outcome.bound.radius) == outcome.proved_at


def test_reported_radii_are_exceeded_not_met() -> None:
    """The published count is "radius > r": a claim at r must pass it."""
    for sigma in (0.1, 0.25, 0.5, 1.0):
        for r in (0.0, 0.1, 0.25):
            outcome = run(Betting(r), 0.9999, sigma)
            assert r < outcome.bound.radius < r + 1e-6
    assert run(Grid((0.0, 0.25)), 0.8, 0.25).stop == Stop("answered", above=0.0, below=0.25)
    assert run(Grid((0.0, 0.25)), 0.95, 0.25).stop == Stop("answered", above=0.25)


def test_stops_say_why_as_data() -> None:
    assert run(Grid(), 0.3).stop == Stop("futile", below=0.0)
    assert run(Grid(), 0.7).stop == Stop("answered", above=0.1, below=0.25)
    assert run(Betting(0.25), 0.4).stop == Stop("futile", below=0.25)
    assert run(Grid((0.25,)), 0.8513).stop == Stop("cap reached", below=0.25)
    assert run(Grid((0.0, 0.25)), 0.8513).stop == Stop("cap reached", above=0.0, below=0.25)
    planned = run(Planned(), 0.95)
    assert planned.stop == Stop("answered", agreeing=95)
    assert 1_000 < planned.n < 3_000 and len(planned.looks) == 1
    assert planned.stop.to_dict() == {"kind": "answered", "agreeing": 95}
    assert Stop(**run(Grid(), 0.7).stop.to_dict()) == Stop("answered", above=0.1, below=0.25)
    with pytest.raises(InputError, match="stop 'done' is unknown"):
        Stop("done")  # type: ignore[arg-type]


def test_interruption_keeps_what_was_proved() -> None:
    session = Grid().start(SELECTION, 0.001, 0.25)
    first = session.next(np.zeros(3, dtype=int))
    counts = np.array([first, 0, 0])
    assert session.next(counts) > 0
    outcome = session.finish(np.array([first + 5, 0, 0]))
    assert outcome.stop == Stop("interrupted") and outcome.n == first + 5
    assert outcome.bound.radius > 0.1 and outcome.proved_at == 0 and outcome.looks == ((first, first, 0),)
    empty = Grid().start(SELECTION, 0.001, 0.25).finish(np.zeros(3, dtype=int))
    assert empty.bound.abstained and (empty.n, empty.looks, empty.proved_at) == (0, (), None)


def test_what_an_argument_may_be() -> None:
    assert as_budget() == Grid() and as_budget(default=Fixed(100)) == Fixed(100)
    assert as_budget(None, 7) == as_budget(7) == as_budget("7") == as_budget(" fixed:7 ") == Fixed(7)
    assert as_budget(np.int64(7)) == Fixed(7) and type(as_budget(np.int64(7)).cap) is int
    assert as_budget("pixels:100,200/0.1") == PixelLooks((100, 200), 0.1)
    assert as_budget(PixelLooks((5, 6))) == PixelLooks((5, 6))
    for budget, n in ((100, 100), (Grid(), 100), (True, None), (1.5, None), ("", None), (None, True)):
        with pytest.raises(InputError):
            as_budget(budget, n)  # type: ignore[arg-type]


def test_each_budget_says_which_answers_it_serves() -> None:
    with pytest.raises(InputError, match="does not serve classes"):
        PixelLooks().start(SELECTION, 0.001, 0.25)
    for budget in (Grid(), Looks(), Betting(0.1), Planned()):
        with pytest.raises(InputError, match="does not serve masks"):
            budget.mask_looks()
    assert Fixed(100).mask_looks() == ((100,), 0.0)


def test_a_planned_size_depends_on_the_selection_alone_and_grows_with_what_is_asked() -> None:
    sizes = [Planned(fraction).plan(95, 100, 0.001, 0.25) for fraction in (0.2, 0.1, 0.05, 0.02)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] < 10_000
    assert Planned().plan(20, 100, 0.001, 0.25) == 32  # a minority: not worth a sample more
    assert Planned(absolute=0.000625).plan(97, 100, 0.001, 0.25) == Planned().plan(97, 100, 0.001, 0.25)
    assert Planned().plan(97, 100, 0.001, 1.0) == Planned().plan(97, 100, 0.001, 0.1)
    assert Planned(n=20).plan(9, 10, 0.001, 0.25) == 20


def test_partial_batches_are_asked_to_be_filled() -> None:
    session = Looks((100, 200)).start(SELECTION, 0.001, 0.25)
    assert session.next(np.array([0, 0, 0])) == 100
    assert session.next(np.array([30, 10, 0])) == 60


@pytest.mark.parametrize(
    ("counts", "words"),
    [([1, 2], "3 integers"), ([1.0, 2.0, 3.0], "3 integers"), ([90, 20, 0], "beyond the 100"), ([5, 0, 1], "fallen")],
)
def test_wrong_counts_are_named(counts: list[float], words: str) -> None:
    session = Looks((100, 200)).start(SELECTION, 0.001, 0.25)
    session.next(np.array([10, 0, 0]))
    with pytest.raises(InputError, match=words):
        session.next(counts)


def test_settings_that_could_only_abstain_are_refused() -> None:
    with pytest.raises(InputError, match="use n >= "):
        Betting(0.75, n=1_000).start(SELECTION, 0.001, 0.25)
    with pytest.raises(InputError, match="larger sigma"):
        Betting(2.5).start(SELECTION, 0.001, 0.1)
    with pytest.raises(InputError, match="one-sided"):
        Betting(0.25).start(SELECTION, 0.001, 0.25, "best")
    for alpha, sigma, bound in ((0.0, 0.25, "best"), (0.001, 0.0, "best"), (0.001, 0.25, "worst")):
        with pytest.raises(InputError):
            Grid().start(SELECTION, alpha, sigma, bound)
    with pytest.raises(InputError, match="selection"):
        Grid().start(np.array([3]), 0.001, 0.25)


def test_radii_beyond_the_cap_cost_nothing() -> None:
    """At sigma 0.1 and 10 000 samples nothing above 0.32 can be proved: 0.5 to 2.5 must not keep an image running."""
    outcome = run(Grid(PUBLISHED_RADII), 1.0, sigma=0.1)
    assert outcome.stop == Stop("answered", above=0.25, below=0.5) and outcome.n < 3_000


def test_a_call_costs_microseconds() -> None:
    Grid().start(SELECTION, 0.001, 0.25)  # builds the tables
    started, calls = time.perf_counter(), 0
    for _ in range(30):
        session, counts = Grid().start(SELECTION, 0.001, 0.25), np.zeros(3, dtype=np.int64)
        while more := session.next(counts):
            counts = counts + np.array([more * 9 // 10, more - more * 9 // 10, 0])
            calls += 1
    assert (time.perf_counter() - started) / calls < 2e-3
