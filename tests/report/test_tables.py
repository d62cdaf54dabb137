"""Tables for papers: text survives escaping, LaTeX is well formed, CSV keeps every digit."""

from __future__ import annotations

import csv
import io
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from certimed.classification import certificate_from_counts
from certimed.errors import InputError
from certimed.metrics import ClassificationSummary, summarise
from certimed.report.tables import Latex, accuracy_latex, accuracy_rows, booktabs, csv_text, latex_escape


def summary(right: int, total: int = 20) -> ClassificationSummary:
    """``right`` images of 20 certified far out for class 0, the others abstained."""
    counts = [np.array([100, 0] if i < right else [50, 50]) for i in range(total)]
    made = [
        certificate_from_counts(c, c, item=str(i), alpha=0.001, sigma=0.5, seed=0, shape=(1, 2, 2))
        for i, c in enumerate(counts)
    ]
    return summarise(made, [0] * total, [0] * total, radii=(0.0, 0.5, 2.0))


def test_every_special_character_is_escaped_once() -> None:
    text = "\\ & % $ # _ { } ~ ^ < > |"
    assert latex_escape(text) == (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} \textless{} \textgreater{} "
        r"\textbar{}"
    )
    assert latex_escape("H&E") == r"H\&E"
    assert latex_escape(Latex(r"$\sigma$")) == r"$\sigma$"
    assert latex_escape("a\nb") == "a b"


def test_a_table_has_its_rules_and_one_line_a_row() -> None:
    text = booktabs(["a", "50 %"], [["x_1", "1"], ["y", "2"]], caption="A & B", label="tab:x", rules_before=(0, 1))
    body = text.splitlines()
    assert body.count(r"\midrule") == 2  # below the head and before row 1; none before row 0, the head's is there
    assert r"a & 50 \% \\" in body and r"x\_1 & 1 \\" in body
    assert r"\caption{A \& B}" in body and r"\label{tab:x}" in body
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    with pytest.raises(InputError, match="row 1 has 1 cells and the table has 2"):
        booktabs(["a", "b"], [["1", "2"], ["3"]])
    with pytest.raises(InputError, match="columns is empty"):
        booktabs([], [])


def test_certified_accuracy_as_latex() -> None:
    summaries = {(0.25, "none"): summary(5), (0.25, "few_shot"): summary(15), (0.5, "none"): summary(0)}
    text = accuracy_latex(summaries, marks={"none": r"$^{*}$"})
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 7 and all(row.count("&") == 5 for row in rows)
    assert rows[1].startswith(r"0.25 & none$^{*}$ & 100.0 & 25.0 &") and text.count(r"\midrule") == 2
    low, high = summaries[0.25, "none"].intervals[0]
    assert rows[2].startswith(rf" &  &  & {{\scriptsize {100 * low:.0f}--{100 * high:.0f}}} &")
    # The certificate from 100 of 100 copies reaches R = 0.5 Phi^-1(alpha^(1/100)) = 0.75: past 0.5, not past 2.
    assert rows[3] == r" & few\_shot & 100.0 & 75.0 & 75.0 & 0.0 \\"
    with pytest.raises(InputError, match="different lists of radii"):
        accuracy_latex({})


def test_csv_keeps_numbers_and_refuses_ragged_rows() -> None:
    rows = accuracy_rows({(0.1, "none"): summary(7), (0.1, "a,b"): summary(6)})
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(read) == 6 and read[3]["method"] == "a,b"
    assert math.isclose(float(read[0]["certified_accuracy"]), 7 / 20) and float(read[0]["low"]) == rows[0]["low"]
    assert read[0]["failed"] == "0" and read[0]["images"] == "20"
    assert csv_text([{"a": None, "b": 1}]) == "a,b\n,1\n"
    with pytest.raises(InputError, match="no row"):
        csv_text([])
    with pytest.raises(InputError, match="row 1"):
        csv_text([{"a": 1}, {"b": 1}])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    table = accuracy_latex({(0.25, "none_&%"): summary(5)}, caption="H&E ~^\\ 50 %")
    body = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{table}\\end{{document}}"
    (tmp_path / "t.tex").write_text(body)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
