"""Budgets in words and in JSON: the command line's spelling, manifests, and what an argument may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from certimed.budgets.kinds import PUBLISHED_RADII, Betting, Budget, Fixed, Grid, Looks, PixelLooks, Planned
from certimed.errors import InputError

KINDS: tuple[type[Budget], ...] = (Fixed, Looks, Grid, Betting, Planned, PixelLooks)


def as_budget(
    budget: Budget | int | str | None = None, n: int | None = None, *, default: Budget | None = None
) -> Budget:
    """The budget that the arguments ``budget`` and ``n`` of a ``certify`` ask for.

    Args:
        budget: a budget, its spelling for :func:`parse_budget`, or a number of samples.
        n: short for ``Fixed(n)``.
        default: where both are None; without one :class:`Grid`, which answers the published radii with at most 10 000
            samples.

    Raises:
        InputError: both are given, or what is given is no budget.
    """
    if budget is not None and n is not None:
        raise InputError(f"n={n} and budget={budget!s:.80} both say how many samples to draw; give one of them")
    chosen = budget if n is None else n
    if chosen is None:
        return Grid() if default is None else default
    if isinstance(chosen, Budget):
        return chosen
    if isinstance(chosen, str):
        return parse_budget(chosen)
    if isinstance(chosen, bool) or not isinstance(chosen, int | np.integer):
        raise InputError(f"budget={chosen!r:.80} is no budget; pass one of certimed.budgets, its spelling, or a number")
    return Fixed(int(chosen))


def parse_budget(text: str) -> Budget:
    """A budget from its command-line spelling.

    ``10000`` or ``fixed:10000``; ``looks:100,1000,10000``, ``looks:100,1000/0,0.5`` (reported radii after the slash);
    ``grid``, ``grid:0,0.25,0.5``; ``betting:0.25``; ``planned:5%``, ``planned:0.05,0.01`` (fraction, absolute loss);
    for masks ``pixels:100,200,400``, ``pixels:100,400/0.01`` (undecided share after the slash). ``@N`` at the end sets
    the cap: ``betting:0.25@20000``.

    Raises:
        InputError: anything else.

    >>> parse_budget("betting:0.25"), str(parse_budget("planned:5%"))
    (Betting(radius=0.25, n=10000), 'planned:0.05@10000')
    """
    name, _, rest = text.strip().partition(":") if ":" in text else text.strip().partition("@")
    if ":" not in text and rest:
        rest = f"@{rest}"
    if name.isdigit() and not rest:
        return Fixed(int(name))
    body, _, cap = rest.partition("@")
    parsers: dict[str, Callable[[str, dict[str, Any]], Budget]] = {
        "fixed": _parse_fixed,
        "looks": _parse_looks,
        "grid": _parse_grid,
        "betting": _parse_betting,
        "planned": _parse_planned,
        "pixels": _parse_pixels,
    }
    try:
        return parsers[name](body, {"n": int(cap)} if cap else {})
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"budget {text!r} is not understood; use e.g. 10000, grid, grid:0,0.25,0.5@10000, betting:0.25, "
            "planned:5%, looks:100,1000,10000, or for masks pixels:100,200,400/0.01"
        ) from None


def budget_from_dict(data: object) -> Budget:
    """Inverse of :meth:`Budget.to_dict`.

    Raises:
        InputError: not a mapping, an unknown kind, missing or unknown fields, values out of range.
    """
    fields = dict(data) if isinstance(data, dict) else {}
    kinds = {kind.kind: kind for kind in KINDS}
    kind = kinds.get(fields.pop("kind", None))
    if kind is None:
        raise InputError(f"a budget must be a JSON object whose kind is one of {', '.join(kinds)}, not {data!r:.80}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except TypeError:
        raise InputError(f"budget {kind.kind!r} has missing, unknown or wrongly typed fields: {data!r:.120}") from None


# Each parser takes what stands between the name and "@", and {"n": cap} where a cap was given.


def _parse_fixed(body: str, cap: dict[str, int]) -> Budget:
    return Fixed(**({"n": int(body)} if body else {}), **cap)


def _parse_looks(body: str, cap: dict[str, int]) -> Budget:
    sizes, slash, radii = body.partition("/")
    if cap:
        raise ValueError
    looks = tuple(int(size) for size in sizes.split(",")) if sizes else Looks().sizes
    return Looks(looks, _numbers(radii)) if slash else Looks(looks)


def _parse_grid(body: str, cap: dict[str, int]) -> Budget:
    return Grid(_numbers(body) if body else PUBLISHED_RADII, **cap)


def _parse_betting(body: str, cap: dict[str, int]) -> Budget:
    return Betting(float(body), **cap)


def _parse_planned(body: str, cap: dict[str, int]) -> Budget:
    first, _, absolute = body.partition(",")
    values: dict[str, Any] = {"absolute": float(absolute)} if absolute else {}
    if first:
        values["fraction"] = float(first[:-1]) / 100 if first.endswith("%") else float(first)
    return Planned(**values, **cap)


def _parse_pixels(body: str, cap: dict[str, int]) -> Budget:
    sizes, slash, undecided = body.partition("/")
    if cap:
        raise ValueError
    values = {"sizes": tuple(int(size) for size in sizes.split(","))} if sizes else {}
    return PixelLooks(**values, undecided=float(undecided) if slash else 0.0)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
