"""The example notebook runs from top to bottom, and what it shows in the repository is what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "certify_in_a_notebook.ipynb"

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")


def shown(cell: Any) -> list[str]:
    """What a person sees of a cell's outputs: kinds of rich output, and printed text, in how many pieces it came."""
    outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    printed = "".join(one["text"] for one in outputs if "data" not in one)
    return [one["output_type"] for one in outputs if "data" in one] + [printed] * bool(printed)


def test_the_stored_notebook_is_light_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert not [word for word in ("/tmp/", "/home/", "/root/", "/work/", "Traceback") if word in text]


@pytest.mark.timeout(900)
def test_the_notebook_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        fresh, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cells = [(a, b) for a, b in zip(stored.cells, fresh.cells) if a.cell_type == "code"]
    assert len(cells) > 8
    for number, (old, new) in enumerate(cells):
        # Numbers may move where a forward pass rounds differently; lines and pictures may not.
        assert [part.count("\n") for part in shown(old)] == [part.count("\n") for part in shown(new)], f"cell {number}"
    html = [one["data"]["text/html"] for _, cell in cells for one in cell.outputs if "text/html" in one.get("data", {})]
    assert sum("native per-value RMS" in page for page in html) == 1
    assert sum(page.count("data:image/png") for page in html) == 3
    assert any("<th>r=0.25</th>" in page for page in html)
    assert any("image/png" in one.get("data", {}) for _, cell in cells for one in cell.outputs)
    assert any("kept: True" in text for _, cell in cells for text in shown(cell))
