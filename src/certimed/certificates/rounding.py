"""Numbers for people: a bound is never shown as stronger than it is."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

Side = Literal["lower", "upper", "nearest"]
_ROUNDING = {"lower": ROUND_FLOOR, "upper": ROUND_CEILING, "nearest": ROUND_HALF_EVEN}
_ENOUGH = Context(prec=700)  # digits of the largest float with as many places again


def shown(value: float, side: Side, *, digits: int | None = None, places: int | None = None, scale: int = 1) -> str:
    """A number in decimals, rounded outwards; the one way in which bounds reach statements, tables, pages and figures.

    Args:
        value: finite, exact to the last bit; anything else is shown as a dash.
        side: ``"lower"`` for lower bounds and radii (rounded down), ``"upper"`` for upper bounds and failure
            probabilities (rounded up), ``"nearest"`` for what is no bound.
        digits: significant digits; trailing zeros are dropped.
        places: decimal places, kept; exactly one of the two.
        scale: the value is multiplied by it first, exactly: 100 for per cent.

    >>> shown(0.196944, "lower", places=3), shown(0.536192, "upper", places=3), shown(1e-7, "upper", digits=3)
    ('0.196', '0.537', '1e-07')
    >>> shown(0.99999999, "lower", digits=4), shown(0.3, "upper", digits=6)
    ('0.9999', '0.3')
    """
    if not math.isfinite(value):
        return "-"
    # A float such as 0.3 is a hair below or above what its shortest spelling says; people mean the spelling, and so
    # did whoever typed it. The spelling differs from the float by less than half a unit in its last place.
    exact = _ENOUGH.multiply(Decimal(repr(float(value))), Decimal(scale))
    if places is None:
        assert digits is not None
        places = digits - 1 - exact.adjusted() if exact else 0
    rounded = exact.quantize(Decimal(1).scaleb(-places), rounding=_ROUNDING[side], context=_ENOUGH)
    return f"{rounded:f}" if digits is None else f"{float(rounded):.{digits}g}"
