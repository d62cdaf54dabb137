"""Result tables for papers and spreadsheets: LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from certimed.errors import InputError
from certimed.metrics import ClassificationSummary

AccuracySummaries = Mapping[tuple[float, str], ClassificationSummary]
"""Summaries by (sigma, method), in the order of the table."""

# One pass over the characters, so that the braces of a replacement are not escaped again.
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
    "\r": " ",
    "\t": " ",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


class Latex(str):
    """Text that is LaTeX already and must not be escaped."""

    __slots__ = ()


def latex_escape(text: str) -> str:
    """Plain text as LaTeX that prints the same; text marked :class:`Latex` is returned as it is.

    >>> print(latex_escape("H&E, 50 % of n_0"))
    H\\&E, 50 \\% of n\\_0
    """
    return text if isinstance(text, Latex) else "".join(_ESCAPES.get(char, char) for char in text)


def booktabs(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    label: str = "",
    rules_before: Sequence[int] = (),
) -> str:
    r"""A LaTeX table in the style of the booktabs package (``\usepackage{booktabs}``).

    Args:
        columns: headings; the first column is set flush left, the others centred.
        rows: cells; escaped unless marked :class:`Latex`.
        caption, label: of the float; left out where empty.
        rules_before: indices of rows that start a new block.

    Raises:
        InputError: no columns, or a row of another length.
    """
    if not columns:
        raise InputError("columns is empty; a table needs at least one heading")
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise InputError(f"row {index} has {len(row)} cells and the table has {len(columns)} columns")
    lines = [r"\begin{table}[t]", r"\centering"]
    lines += [rf"\caption{{{latex_escape(caption)}}}"] if caption else []
    lines += [rf"\label{{{label}}}"] if label else []
    lines += [rf"\begin{{tabular}}{{l{'c' * (len(columns) - 1)}}}", r"\toprule", _line(columns), r"\midrule"]
    for index, row in enumerate(rows):
        if index in rules_before and index > 0:
            lines.append(r"\midrule")
        lines.append(_line(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header; None is an empty cell, numbers keep all their digits.

    Raises:
        InputError: no rows, or rows with different columns.
    """
    if not rows:
        raise InputError("there is no row to write as CSV")
    header = list(rows[0])
    for index, row in enumerate(rows):
        if list(row) != header:
            raise InputError(f"row {index} has the columns {list(row)} where {header} are needed")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def accuracy_rows(summaries: AccuracySummaries) -> list[dict[str, Any]]:
    """Certified accuracy in long form: one row for each sigma, method and radius, shares as fractions.

    ``low`` and ``high`` bound the accuracy over new images, ``lower`` the share of these images that is truly robust
    (see :class:`~certimed.metrics.ClassificationSummary`).
    """
    return [
        {
            "sigma": sigma,
            "method": method,
            **row,
            "failed": summary.failed,
            "clean_accuracy": summary.clean_accuracy,
            "noisy_accuracy": summary.noisy_accuracy,
            "too_few_samples": summary.too_few_samples,
            "unstable": summary.unstable,
            "mean_samples": summary.mean_samples,
        }
        for (sigma, method), summary in summaries.items()
        for row in summary.to_rows()
    ]


def accuracy_latex(
    summaries: AccuracySummaries, *, caption: str = "", label: str = "", marks: Mapping[str, str] | None = None
) -> str:
    """Certified accuracy (%) as a booktabs table: methods by radii, a block for each sigma, intervals below in small.

    Args:
        marks: LaTeX put behind a method's name, e.g. ``{"zero-shot": r"$^\\dagger$"}``.

    Raises:
        InputError: nothing to show, or summaries read at different radii.
    """
    radii = {summary.radii for summary in summaries.values()}
    if len(radii) != 1:
        raise InputError(f"the summaries have {len(radii)} different lists of radii; read all at the same radii")
    columns = [Latex(r"$\sigma$"), "Method", "clean", *(Latex(f"$r={radius:g}$") for radius in radii.pop())]
    rows: list[list[str]] = []
    rules = []
    previous: float | None = None
    for (sigma, method), summary in summaries.items():
        if previous is not None and sigma != previous:
            rules.append(len(rows))
        name = Latex(latex_escape(method) + (marks or {}).get(method, ""))
        first = "" if sigma == previous else f"{sigma:g}"
        rows.append([first, name, _percent(summary.clean_accuracy), *_shares(summary)])
        if summary.intervals is not None:
            rows.append(["", "", "", *_intervals(summary)])
        previous = sigma
    return booktabs(columns, rows, caption=caption, label=label, rules_before=rules)


def _shares(summary: ClassificationSummary) -> list[str]:
    return [_percent(share) for share in summary.certified_accuracy or summary.certified_share]


def _intervals(summary: ClassificationSummary) -> list[str]:
    return [Latex(rf"{{\scriptsize {100 * low:.0f}--{100 * high:.0f}}}") for low, high in summary.intervals or ()]


def _percent(share: float | None) -> str:
    return "--" if share is None else f"{100 * share:.1f}"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(latex_escape(cell) for cell in cells) + r" \\"
