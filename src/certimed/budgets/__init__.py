"""Budgets: how many estimation samples an image gets, with the same guarantee as a fixed number.

    budget = parse_budget("grid")                                # or Grid(), Fixed(10_000), Betting(0.25), ...
    session = budget.start(selection, alpha, sigma)              # counts of the n0 selection samples
    while more := session.next(counts):                          # cumulative estimation counts, zeros at first
        counts = counts + draw(more)
    outcome = session.finish(counts)                             # outcome.bound, outcome.reason

(:meth:`Session.run` is this loop.)

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
    Looks,
    Precision,
)
from certimed.budgets.pixels import Look, PixelLooks, PixelOutcome, PixelSession, as_pixel_budget
from certimed.budgets.session import Outcome, Session
from certimed.budgets.spelling import as_budget, budget_from_dict, parse_budget

__all__ = [
    "PUBLISHED_RADII",
    "Betting",
    "Budget",
    "Expectation",
    "Fixed",
    "Grid",
    "Look",
    "Looks",
    "Outcome",
    "PixelLooks",
    "PixelOutcome",
    "PixelSession",
    "Precision",
    "Session",
    "as_budget",
    "as_pixel_budget",
    "budget_from_dict",
    "expected",
    "mean_over",
    "parse_budget",
]
