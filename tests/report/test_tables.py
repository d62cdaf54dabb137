"""Tables: text survives escaping, LaTeX is well formed, bounds are rounded outwards, CSV keeps every digit."""

from __future__ import annotations

import csv
import io
import math
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import class_images, class_run, mask_images, mask_run

from certimed.certificates import CHOSEN_AT_X, FROZEN_AT_X, shown
from certimed.errors import InputError
from certimed.metrics.segmentation import DICE_HIGH, DICE_LOW, FOREGROUND
from certimed.report.notes import lost_classes
from certimed.report.series import Series, series
from certimed.report.tables import (
    Latex,
    accuracy_rows,
    accuracy_table,
    booktabs,
    csv_text,
    latex_escape,
    mask_rows,
    mask_table,
    per_cent,
    table,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of labels, of two sigmas, and one of masks; one image each cannot be read."""
    base = tmp_path_factory.mktemp("tables")
    class_images(base / "images", 8, broken=6)
    for sigma in (0.25, 0.5):
        class_run(base / "images", base / f"sigma-{sigma}", n=200, sigma=sigma)
    mask_run(mask_images(base / "scans", 4), base / "masks")
    return base


def labels(place: Path) -> list[Series[Any]]:
    return series([place / "sigma-0.25", place / "sigma-0.5"])


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


def test_per_cent_never_says_more_than_is_proved() -> None:
    for share in np.random.default_rng(0).random(500).tolist():
        exact = Fraction(repr(share)) * 100
        for places in (0, 1):
            low, high = (Fraction(per_cent(share, places, side)) for side in ("lower", "upper"))
            assert low <= exact <= high and high - low <= Fraction(1, 10**places)
    assert [per_cent(v, 0, "lower") for v in (0.996, 0.29, 0.0049, None)] == ["99", "29", "0", "-"]


def test_certified_accuracy_counts_failed_images_and_is_rounded_outwards(place: Path) -> None:
    found = accuracy_table(labels(place), [0.0, 0.1])
    names = [column.text for column in found.columns]
    assert names == ["sigma", "method", "clean", "noisy", "r=0", "r=0.1", "too few", "unstable", "failed"]
    for row, one in zip(found.rows, labels(place)):
        right = sum(c.prediction == y and c.radius > 0 for c, y in zip(one.certificates, one.labels or ()))
        assert row.cells[4] == per_cent(right / 8, 1, "lower") and row.cells[-1] == "1"
        low, high = one.accuracy([0.0]).intervals[0]  # type: ignore[index]
        shown_low, shown_high = map(float, row.small[4].split("-"))
        assert shown_low <= 100 * low and shown_high >= 100 * high and shown_high - 100 * high < 0.1
    assert any("1 image failed and counts as wrong" in note for note in found.notes)
    assert any("fails with probability at most 0.001" in note for note in found.notes)
    assert not any("robability at least" in note for note in found.notes)


def test_the_same_cells_reach_latex_and_html(place: Path) -> None:
    found = accuracy_table(labels(place), [0.0, 0.1])
    latex, html = found.latex(caption="A & B", label="tab:a"), found.html()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 2 * 2 and all(row.count("&") == 8 for row in rows)
    assert latex.count(r"\midrule") == 2 and r"$\sigma$ & method & clean & noisy & $r=0$" in rows[0]
    for row in found.rows:
        assert " & ".join(row.cells) in latex
        assert rf"{{\scriptsize {row.small[4]}}}" in latex
        assert all(f"<td>{cell}" in html for cell in row.cells)


def test_narrower_scopes_are_marked_wherever_a_name_stands(place: Path) -> None:
    (one, _) = labels(place)
    for scope, mark, latex in ((FROZEN_AT_X, "*", "$^*$"), (CHOSEN_AT_X, "†", r"$^\dagger$")):
        found = accuracy_table([replace(one, scopes=frozenset({scope}))], [0.0])
        assert found.rows[0].cells[1] == f"plain{mark}" and f"plain{latex}" in found.latex()
        (note,) = [note for note in found.notes if note.startswith(mark)]
        assert ("hindsight" in note) == (scope == CHOSEN_AT_X)


def test_masks_show_what_is_guaranteed_first_and_count_failed_images(place: Path) -> None:
    shapes = series([place / "masks"])
    found = mask_table(shapes)
    assert [column.text for column in found.columns][2:5] == ["radius", "guaranteed Dice", "best case"]
    for row, one in zip(found.rows, shapes):
        summary = one.dice()
        low, high = (summary[FOREGROUND, name].mean for name in (DICE_LOW, DICE_HIGH))
        assert row.cells[2:5] == (
            shown(one.first.radius, "lower", places=3),
            shown(low, "lower", places=3),
            shown(high, "upper", places=3),
        )
        assert row.cells[-2] == per_cent(sum(one.tally.shares) / 4, 1, "lower") and row.cells[-1] == "1"
    assert any("One image is one unit" in note for note in found.notes)
    assert table(shapes) == found
    rows = mask_rows(shapes)
    assert {row["failed"] for row in rows} == {1} and {row["method"] for row in rows} == {
        "plain, tau 0.6", "plain, tau 0.75"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("guaranteed", "clean", "said"),
    [
        ((0.9, 0.0, 0.5), (0.9, 0.7, 0.6), True),
        ((0.9, 0.1, 0.5), (0.9, 0.7, 0.6), False),
        ((0.9, 0.0, 0.5), (0.9, 0.0, 0.6), False),
        ((0.9, 0.0, 0.5), (0.9, 1.0, 0.6), False),  # absent, by the convention
    ],
)
def test_a_class_that_is_nowhere_certified_is_named(place: Path, guaranteed, clean, said) -> None:
    """Nearly all pixels can be certified while a small class is lost everywhere."""
    (one, *_) = series([place / "masks"])
    records = [
        replace(
            record,
            scores={
                label: replace(score, per_class=score.per_class | {DICE_LOW: guaranteed, "Dice (clean)": clean})
                for label, score in record.scores.items()
            },
        )
        for record in one.records
    ]
    found = lost_classes([replace(one, records=tuple(records))])
    assert len(found) == said
    assert not said or f"Not one pixel of {one.class_name(1)} is rightly certified" in found[0]
    assert not said or found[0] in mask_table([replace(one, records=tuple(records))]).notes


def test_csv_keeps_numbers_and_refuses_ragged_rows(place: Path) -> None:
    rows = accuracy_rows(labels(place), [0.0, 0.1])
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert len(read) == 4 and [row["sigma"] for row in read] == ["0.25", "0.25", "0.5", "0.5"]
    assert math.isclose(float(read[0]["certified_accuracy"]), rows[0]["certified_accuracy"])
    assert read[0]["failed"] == "1" and read[0]["images"] == "8" and read[0]["scope"] == "end-to-end"
    assert csv_text([{"a": None, "b": 1}]) == "a,b\n,1\n"
    with pytest.raises(InputError, match="no row"):
        csv_text([])
    with pytest.raises(InputError, match="row 1"):
        csv_text([{"a": 1}, {"b": 1}])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(place: Path, tmp_path: Path) -> None:
    table = accuracy_table(labels(place)).latex(caption="H&E ~^\\ 50 %")
    body = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{table}\\end{{document}}"
    (tmp_path / "t.tex").write_text(body)
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
