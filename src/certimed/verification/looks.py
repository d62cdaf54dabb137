"""Are the looks that a class certificate records possible, and are they of one stream of samples?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from certimed.verification.budgets import Allowance
from certimed.verification.exact import among_first, fisher
from certimed.verification.planning import planned_sizes

IMPLAUSIBLE = 1e-12
"""Counts less probable than this, whatever the model and whatever the rule that stopped, are false."""


def schedule_faults(data: dict[str, Any], allowed: Allowance) -> Iterator[str]:
    """Were the looks held where the budget says, the first ones of its sizes?"""
    samples = data["samples"]
    held = [look[0] for look in samples["looks"]]
    if not allowed.serves(data["kind"]):
        yield f"budget {samples['budget']!r:.80} does not serve a claim of kind {data['kind']!r}"
    elif allowed.kind == "planned":
        agreeing = samples["stop"].get("agreeing")
        if agreeing != data["claim"]["selection"][data["claim"]["prediction"]]:
            yield f"its size was planned from {agreeing} of {samples['n0']} selection samples, which did not agree"
            return
        share = data["alpha"]["level"]
        sizes = planned_sizes(agreeing, samples["n0"], allowed, share, data["law"]["sigma"])
        if len(held) != 1 or held[0] not in sizes:
            wanted = " or ".join(map(str, sorted(sizes)))
            yield f"looks were held at {held}, but {agreeing} of {samples['n0']} selection samples plan {wanted}"
    elif held != list(allowed.looks[: len(held)]):
        yield f"looks were held at {held!r:.120}, which budget {samples['budget']!r:.80} does not say"
    elif not held[-1] <= samples["n"] < ([*allowed.looks, samples["n"] + 1][len(held)]):
        yield f"n={samples['n']} does not belong to {len(held)} looks of budget {samples['budget']!r:.80}"
    if samples["proved_at"] >= len(held):
        yield f"proved_at={samples['proved_at']} is no index into the {len(held)} looks"


def count_faults(data: dict[str, Any]) -> Iterator[str]:
    """Can the counts of one look become those of the next, and the last ones those at the end?

    Then, are they plausible? Samples are exchangeable: given k of n agreeing samples, the number among the first m of
    them is hypergeometric, whatever the model. Each look is tested against the next one and against the end, at
    :data:`IMPLAUSIBLE`. A budget stops when its counts say so, which is no excuse: over *all* pairs of looks that could
    have been held the probabilities of a false alarm add up to less than 1e-8.
    """
    claim, samples = data["claim"], data["samples"]
    counts, top = claim["counts"], claim["prediction"]
    rival = max(count for index, count in enumerate(counts) if index != top)
    looks = [tuple(look) for look in samples["looks"]]
    others = len(counts) - 1
    for number, (n, k, second) in enumerate(looks, 1):
        if k + second > n or second * others < n - k:
            yield f"look {number}: {k} agreeing and {second} of the strongest rival are no counts of {n} samples"
            return
    end = (samples["n"], counts[top], rival)
    if looks[-1][0] == end[0] and looks[-1] != end:
        yield f"the last look {list(looks[-1])} is not that of the counts, {list(end)}"
        return
    for before, after in pairwise([*looks, end]):
        drawn, agreeing, rivals = (b - a for a, b in zip(before, after))
        if not (0 <= agreeing <= drawn and 0 <= rivals <= drawn - agreeing):
            yield f"counts cannot go from {list(before)} to {list(after)} in {drawn} samples"
            return
    for before, after in [*pairwise(looks), *((look, end) for look in looks)]:
        if before[0] < after[0] and _chance(before, after, others) < IMPLAUSIBLE:
            yield f"{list(before)} is no part of {list(after)} that chance would give (less than 1 in 10^12)"
            return
    yield from _selection_faults(claim["selection"], counts)


def _chance(before: tuple[int, ...], after: tuple[int, ...], others: int) -> float:
    """Bound on the probability of counts so far from their share of the later ones."""
    m, k, second = before
    n, total, rivals = after
    return min(
        among_first(k, m, total, n),
        among_first(m - k, m, n - total, n),
        # The strongest rival so far is one of several, each of which has at most so many samples in the end; and it has
        # at least as many as the one that is strongest in the end.
        others * among_first(second, m, rivals, n),
        among_first(m - second, m, n - rivals, n),
    )


def _selection_faults(selection: list[int], counts: list[int]) -> Iterator[str]:
    """Selection and estimation samples are of one model: Fisher's exact test of each class, times their number."""
    n0, n = sum(selection), sum(counts)
    chance = len(counts) * min(fisher(a, n0, b, n) for a, b in zip(selection, counts))
    if chance < IMPLAUSIBLE:
        yield f"{selection!r:.120} of {n0} selection and {counts!r:.120} of {n} estimation samples are of no one model"
