"""The figures that pages quote are those of the command that computes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quoted

DOCS = Path(__file__).parents[2] / "docs"


def test_second_looks_are_exact_and_quoted():
    """One look fails with at most alpha; two looks at the same size are one."""
    assert quoted.rerun_failure((100,), 0.6) <= quoted.ALPHA
    assert quoted.rerun_failure((100, 100), 0.6) == pytest.approx(quoted.rerun_failure((100,), 0.6), abs=1e-12)
    page, settings = ((DOCS / name).read_text() for name in ("certificate.md", "settings.md"))
    three, eight = (f"{quoted.worst_rerun(sizes):.1f}" for sizes in (quoted.TENFOLD, quoted.DOUBLING))
    assert f"{three} alpha (100, 1 000, 10 000 samples) to {eight} alpha (from 100 to 12 800, doubling)" in page
    assert f"{three} to {eight} alpha" in settings


def test_norms_and_overlaps_are_quoted():
    page = " ".join((DOCS / "certificate.md").read_text().split())
    shrunk, grown = (f"{quoted.resize_norm(*sizes):.3g}" for sizes in ((512, 224), (150, 224)))
    assert f"512 to 224 pixels has norm {float(shrunk):.2g}, 150 to 224 has {grown}" in page
    assert f"with probability {quoted.overlap():.1e} a pair at 10 000 samples".replace("e-07", "e-7") in page
