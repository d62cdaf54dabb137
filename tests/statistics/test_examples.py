"""The examples in the docstrings of the statistics room run as written."""

from __future__ import annotations

import doctest
import importlib

import pytest

import certimed.statistics


@pytest.mark.parametrize(
    "module", ["binomial", "classes", "conformal", "dataset", "multiplicity", "order", "planning", "variation"]
)
def test_docstring_examples(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"certimed.statistics.{module}"))
    assert result.attempted > 0 and result.failed == 0


def test_public_functions_have_an_example_and_name_their_errors() -> None:
    for name in certimed.statistics.__all__:
        item = getattr(certimed.statistics, name)
        if callable(item) and hasattr(item, "__code__"):
            assert ">>>" in item.__doc__ and "Raises:" in item.__doc__, name
