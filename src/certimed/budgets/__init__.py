"""Budgets: how many estimation samples an image gets, with the same guarantee as a fixed number.

    budget = parse_budget("grid")                                # or Grid(), Fixed(10_000), Betting(0.25), ...
    session = budget.start(selection, alpha, sigma)              # counts of the n0 selection samples
    while more := session.next(counts):                          # cumulative estimation counts, zeros at first
        counts = counts + draw(more)
    outcome = session.finish(counts)                             # outcome.bound, outcome.stop

(:meth:`Session.run` is this loop.) Masks: :func:`start_mask`, whose counts are the agreement of every pixel.
Measurements: :func:`start_interval`, whose counts are the values.

Every budget's guarantee: with probability at least 1 - alpha over the estimation noise, a bound that does not abstain
is right: the smoothed prediction is the selected class in the whole open ball of its radius. When to stop is free:
giving up only abstains.
"""

from certimed.budgets.expectation import Expectation, expected, mean_over
from certimed.budgets.kinds import (
    PUBLISHED_RADII,
    Betting,
    Budget,
    Fixed,
    Grid,
    LookBudget,
    Looks,
    PixelLooks,
    Planned,
)
from certimed.budgets.pixels import Agreement, start_mask
from certimed.budgets.session import Evidence, Outcome, Question, Session
from certimed.budgets.spelling import as_budget, budget_from_dict, parse_budget
from certimed.budgets.stops import Stop
from certimed.budgets.values import Ends, Goal, Values, goals, start_interval

__all__ = [
    "PUBLISHED_RADII",
    "Agreement",
    "Betting",
    "Budget",
    "Ends",
    "Evidence",
    "Expectation",
    "Fixed",
    "Goal",
    "Grid",
    "LookBudget",
    "Looks",
    "Outcome",
    "PixelLooks",
    "Planned",
    "Question",
    "Session",
    "Stop",
    "Values",
    "as_budget",
    "budget_from_dict",
    "expected",
    "goals",
    "mean_over",
    "parse_budget",
    "start_interval",
    "start_mask",
]
