"""One noisy copy, looked at once: for claims whose probability is over images, not over copies of this one."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from certimed.budgets.kinds import Budget
from certimed.budgets.session import Session
from certimed.budgets.stops import Stop
from certimed.errors import InputError


class Copies(NamedTuple):
    """What ``n`` noisy copies gave, ``(n, ...)``."""

    n: int
    values: NDArray[Any]


OnceSession: TypeAlias = Session[Copies, Copies | None]


def start_once(budget: Budget) -> OnceSession:
    """Begin one image that gets one noisy copy.

    Raises:
        InputError: a budget of more than one sample. The mean over several copies would multiply the norm of an attack
            by the root of their number.
    """
    if budget.value_looks() != (1,):
        raise InputError(f"budget {budget}: sets and controlled masks take one noisy copy of an image; use fixed:1")
    return Session(_Once(), _Seen())


class _Once:
    """See :class:`certimed.budgets.session.Evidence`: the copy itself is the evidence."""

    looks: tuple[int, ...] = (1,)

    def checked(self, counts: Copies, before: Copies | None) -> tuple[Copies, int]:
        if counts.n != len(counts.values):
            raise InputError(f"{len(counts.values)} rows are not of {counts.n} samples")
        return counts, counts.n

    def nothing(self) -> Copies | None:
        return None

    def bound(self, look: int, counts: Copies) -> Copies | None:
        return counts

    def better(self, new: Copies | None, old: Copies | None) -> bool:
        return True

    def trace(self, look: int, counts: Copies, bound: Copies | None) -> tuple[int, ...]:
        return (counts.n,)


class _Seen:
    """See :class:`certimed.budgets.session.Question`."""

    def decide(self, look: int, counts: Copies, bound: Copies | None) -> Stop | None:
        return Stop("cap reached")
