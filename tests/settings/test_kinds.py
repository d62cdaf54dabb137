"""Settings as they are spelt: names, units, groups, and what is refused."""

from __future__ import annotations

import pytest

from certimed import InputError
from certimed.settings import read_vary, spelt


def test_units_groups_and_the_one_spelling() -> None:
    axes = read_vary(["window-center=30HU", "window-width=20%", "crop = 2.5 mm"])
    assert [(axis.name, axis.scale, axis.unit, axis.kind.how) for axis in axes] == [
        ("window-center", 30.0, "HU", "added"),
        ("window-width", 0.2, "", "multiplied"),
        ("crop-x", 2.5, "mm", "added"),
        ("crop-y", 2.5, "mm", "added"),
    ]
    assert spelt(axes) == ("window-center=30.0HU", "window-width=0.2", "crop-x=2.5mm", "crop-y=2.5mm")
    assert read_vary(spelt(axes)) == axes


def test_a_function_of_ones_own_has_a_noise_for_each_of_its_settings() -> None:
    axes = read_vary(["python:mine:warp=5/0.1", "gamma=0.1"])
    assert [(axis.name, axis.scale) for axis in axes[:2]] == [
        ("python:mine:warp[0]", 5.0),
        ("python:mine:warp[1]", 0.1),
    ]
    assert spelt(axes) == ("python:mine:warp=5.0/0.1", "gamma=0.1")
    assert read_vary(spelt(axes)) == axes


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["window-center"], "is not NAME=NUMBER"),
        (["jpeg=3"], "unknown"),
        (["gain=3HU"], "given in no unit"),
        (["rotation=3mm"], "given in deg"),
        (["gain=0"], "above 0"),
        (["gain=-1"], "above 0"),
        (["gain=1e9"], "above 0"),
        (["gain=1", "gain=2"], "varied twice"),
        ([], "0 settings"),
        (["crop=1px", "gain=1", "offset=1", "gamma=1", "rotation=1", "window-width=1"], "7 settings"),
        (["python:a:b=1", "window-width=1"], "vary the others inside of it"),
        (["box=1px", "gain=0.1"], "vary nothing else"),
        (["python:a:b=x"], "above 0"),
    ],
)
def test_what_is_refused(entries: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_vary(entries)
