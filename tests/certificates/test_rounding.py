"""Numbers for people, against exact fractions: a bound is never shown as stronger than it is, nor much weaker."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certimed.certificates import shown

VALUES = st.floats(0, 1e12) | st.floats(0, 1e-3) | st.floats(0.99, 1.0)


def exact(value: float) -> Fraction:
    """What people mean by a float: the number that its shortest spelling names."""
    return Fraction(repr(value))


@given(value=VALUES, places=st.integers(0, 12), scale=st.sampled_from([1, 100, 255]))
def test_places(value: float, places: int, scale: int) -> None:
    wanted, unit = exact(value) * scale, Fraction(1, 10**places)
    low, high, near = (
        Fraction(shown(value, side, places=places, scale=scale)) for side in ("lower", "upper", "nearest")
    )
    assert wanted - unit < low <= wanted <= high < wanted + unit
    assert abs(near - wanted) <= unit / 2


@given(value=VALUES.filter(lambda value: value > 1e-300), digits=st.integers(1, 15))
def test_digits(value: float, digits: int) -> None:
    wanted = exact(value)
    low, high, near = (Fraction(shown(value, side, digits=digits)) for side in ("lower", "upper", "nearest"))
    assert low <= wanted <= high
    unit = wanted * Fraction(10, 10**digits)
    assert high - low <= unit and abs(near - wanted) <= unit / 2


@given(value=st.floats(1e-300, 1e300), digits=st.integers(1, 15))
def test_the_float_itself_differs_from_its_spelling_by_less_than_its_last_bit(value: float, digits: int) -> None:
    slack = Fraction(value) * Fraction(1, 2**52)
    assert Fraction(shown(value, "lower", digits=digits)) <= Fraction(value) + slack
    assert Fraction(shown(value, "upper", digits=digits)) >= Fraction(value) - slack


@pytest.mark.parametrize(
    ("value", "side", "how", "text"),
    [
        (0.0, "lower", {"digits": 3}, "0"),
        (0.0, "upper", {"places": 2}, "0.00"),
        (float("inf"), "lower", {"digits": 3}, "-"),
        (float("nan"), "upper", {"places": 3}, "-"),
        (0.001, "upper", {"digits": 3}, "0.001"),
        (0.00033333, "upper", {"digits": 3}, "0.000334"),
        (0.999999, "lower", {"places": 2, "scale": 100}, "99.99"),
        (1.0, "lower", {"places": 2, "scale": 100}, "100.00"),
        (0.9996, "upper", {"digits": 3}, "1"),
        (1e300, "lower", {"places": 4}, "1" + "0" * 300 + ".0000"),
        (-0.12345, "lower", {"places": 3}, "-0.124"),
        (-0.12345, "upper", {"digits": 3}, "-0.123"),
    ],
)
def test_corners(value: float, side: str, how: dict[str, int], text: str) -> None:
    assert shown(value, side, **how) == text
