"""Result tables: one rounding for the terminal, LaTeX, notebooks and the page; CSV keeps every digit."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from certimed.certificates import MODEL_INPUT, SETTINGS, shown
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, ClassificationSummary, MaskSummary
from certimed.metrics.measured import interval_rows
from certimed.metrics.segmentation import (
    DICE_HIGH,
    DICE_LOW,
    DICE_PUBLISHED,
    FOREGROUND,
    IOU_LOW,
    SHARE_CERTIFIED,
    WHOLE_IMAGE,
)
from certimed.report.notes import common_notes, lost_classes
from certimed.report.series import Series, titles

DASH = "-"


@dataclass(frozen=True)
class Column:
    """A heading, and the same in LaTeX where it differs; the cells of ``left`` columns are words."""

    text: str
    latex: str = ""
    left: bool = False


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        series: what it is about.
        block: rows of one block belong together.
        cells: text, rounded, one a column.
        small: intervals below the cells; empty where there is none.
    """

    series: Series[Any]
    block: str
    cells: tuple[str, ...]
    small: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table as text: whoever prints it rounds nothing.

    Attributes:
        title: what its main columns hold.
        columns, rows: the table.
        notes: what a reader must know beside it, as sentences.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def latex(self, *, caption: str = "", label: str = "") -> str:
        """As a booktabs table, a rule between blocks, intervals below in small."""
        lines: list[list[str]] = []
        rules, before = [], None
        for row in self.rows:
            if row.block != before:
                rules.append(len(lines))
            same, before = row.block == before, row.block
            # What all rows of a block share stands once.
            lines.append([_marked(cell) if not (same and cell == row.block) else "" for cell in row.cells])
            if row.small:
                lines.append([Latex(rf"{{\scriptsize {latex_escape(text)}}}") if text else "" for text in row.small])
        columns = [Latex(column.latex) if column.latex else column.text for column in self.columns]
        return booktabs(columns, lines, caption=caption, label=label, rules_before=rules)

    def html(self) -> str:
        """As an HTML table, everything escaped; intervals stand behind in small."""
        head = "".join(f"<th>{escape(column.text)}</th>" for column in self.columns)
        body = ""
        for row in self.rows:
            small = row.small or ("",) * len(row.cells)
            cells = (
                f"<td>{escape(cell)}{f' <small>{escape(text)}</small>' if text else ''}</td>"
                for cell, text in zip(row.cells, small)
            )
            body += f"<tr>{''.join(cells)}</tr>"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def accuracy_table(
    series: Sequence[Series[Any]],
    radii: Sequence[float] | None = None,
    *,
    confidence: float = 0.95,
    places: int = 1,
    most: int | None = None,
) -> Table:
    """Certified accuracy (without labels: the share certified) in per cent, one row a series, a block a sigma.

    Args:
        series: of labels.
        radii: of the columns; default :func:`telling_radii`.
        confidence: of the intervals below the shares.
        places: decimals of the per cent; what is certified is rounded down, intervals outwards.
        most: most columns of radii.
    """
    ordered = sorted(zip(series, titles(series)), key=lambda pair: pair[0].sigma)
    radii = telling_radii(series, most) if radii is None else radii
    labelled = all(one.labels is not None for one in series)
    summaries = [one.accuracy(radii, confidence, labelled=labelled) for one, _ in ordered]
    adaptive = any(stop != "cap reached" for found in summaries for stop in found.stops)
    columns = [Column("sigma", r"$\sigma$"), Column("method", left=True), Column("clean"), Column("noisy")]
    columns += [Column(f"r={radius:g}", f"$r={radius:g}$") for radius in radii]
    columns += [Column("too few"), Column("unstable"), Column("failed"), *([Column("samples")] if adaptive else [])]
    rows = []
    for (one, title), found in zip(ordered, summaries):
        block = f"{one.sigma:g}"
        curve = found.certified_accuracy or found.certified_share
        cells = [block, title + one.marks, *(per_cent(v, places) for v in (found.clean_accuracy, found.noisy_accuracy))]
        cells += [per_cent(share, places, "lower") for share in curve]
        cells += [per_cent(share, places) for share in (found.too_few_samples, found.unstable)]
        cells += [str(found.failed), *([f"{found.mean_samples:.0f}"] if adaptive else [])]
        spans = [span_text(low, high, places) for low, high in found.intervals or ()]
        small = ["", "", "", "", *spans, *[""] * (len(cells) - 4 - len(spans))] if spans else []
        rows.append(Row(one, block, tuple(cells), tuple(small)))
    what = "certified accuracy (%) at radius r" if labelled else "images certified (%) at radius r, no labels"
    notes = [
        f"r: L2 in {_where(series)}. clean, noisy: base model without noise, and "
        "on single noisy copies (not certified). too few, unstable: abstained for want of samples, or because noise "
        "changes the answer.",
        *common_notes(series),
    ]
    if adaptive:
        notes.insert(0, _why_samples_ended(summaries))
    return Table(what, tuple(columns), tuple(rows), tuple(notes))


def mask_table(series: Sequence[Series[Any]], *, confidence: float = 0.95) -> Table:
    """Masks: Dice and IoU of the foreground and the share of pixels certified, one row a series, a block a method.

    The guaranteed Dice comes first: it is the lowest mean that perturbations below the radius can reach. Published
    scores are taken over certified pixels and bound nothing under attack.
    """
    ordered = sorted(zip(series, titles(series)), key=lambda pair: (pair[1], pair[0].sigma))
    columns = [Column("method", left=True), Column("sigma", r"$\sigma$"), Column("radius"), Column("guaranteed Dice")]
    columns += [Column("best case"), Column("IoU, guaranteed"), Column("Dice, published"), Column("clean")]
    columns += [Column("noisy"), Column("pixels certified", r"pixels certified (\%)"), Column("failed")]
    rows = []
    for one, title in ordered:
        found = one.dice(confidence)
        small: tuple[str, ...] = ()
        cells = [title + one.marks, f"{one.sigma:g}", shown(one.first.radius, "lower", places=3)]
        if found is not None:
            cells += [
                bound(found[FOREGROUND, DICE_LOW].mean, "lower"),
                bound(found[FOREGROUND, DICE_HIGH].mean, "upper"),
            ]
            cells += [bound(found[FOREGROUND, IOU_LOW].mean, "lower"), *(
                score(found, metric) for metric in (DICE_PUBLISHED, "Dice (clean)", "Dice (noisy)")
            )]  # fmt: skip
            share = found[WHOLE_IMAGE, SHARE_CERTIFIED].mean
            span = found[FOREGROUND, DICE_LOW]
            if not math.isnan(span.low):
                text = f"{bound(span.low, 'lower')}-{bound(span.high, 'upper')}"
                small = ("", "", "", text, *[""] * 7)
        else:
            cells += [DASH] * 6
            share = sum(one.tally.shares) / one.images
        cells += [per_cent(share, 1, "lower"), str(one.failed)]
        rows.append(Row(one, one.method, tuple(cells), small))
    notes = [
        f"radius: L2 in {_where(series)}. Dice, IoU: mean over the classes but "
        "the first (the background), then over images; guaranteed to best case: the range that perturbations below "
        "the radius can reach; published: over certified pixels only, no bound under attack. One image is one unit, "
        "and a failed one counts with 0.",
        *lost_classes(series),
        *common_notes(series),
    ]
    return Table("Dice of the foreground", tuple(columns), tuple(rows), tuple(notes))


def interval_table(series: Sequence[Series[Any]]) -> Table:
    """Measurements: how wide intervals are and what was decided, one row a measurement and radius, a block a series.

    Widths are means over the images whose interval is finite, rounded up.
    """
    columns = [
        Column("method", left=True),
        Column("measurement", left=True),
        Column("unit", left=True),
        Column("radius"),
    ]
    columns += [
        Column("median"),
        Column("width"),
        Column("finite"),
        Column("below"),
        Column("above"),
    ]
    columns += [Column("undecided"), Column("images"), Column("failed")]
    rows = []
    for one, title in zip(series, titles(series, by_method=True)):
        for found in interval_rows(one.certificates):
            median, width = found["median"], found["width"]
            decided = [DASH] * 3
            if found["threshold"] is not None:
                decided = [str(found[name]) for name in ("below", "above")]
                decided.append(str(found["images"] - found["below"] - found["above"]))
            cells = [title + one.marks, found["measurement"], found["unit"], shown(found["radius"], "lower", digits=6)]
            cells += [
                DASH if median is None else f"{median:.4g}",
                DASH if width is None else shown(width, "upper", digits=4),
            ]
            cells += [str(found["finite"]), *decided, str(found["images"]), str(one.failed)]
            rows.append(Row(one, title, tuple(cells)))
    notes = [
        f"radius: L2 in {_where(series)}. For every perturbation below it the "
        "median under noise stays in its interval; median, width: means over images (of finite intervals); finite: "
        "images whose interval has two ends; below, above: images whose interval is proved to lie on that side of the "
        "threshold.",
        *common_notes(series),
    ]
    return Table("intervals of measurements", tuple(columns), tuple(rows), tuple(notes))


def table(series: Sequence[Series[Any]], **how: Any) -> Table:
    """Of series of one kind: :func:`accuracy_table`, :func:`mask_table` or :func:`interval_table`."""
    if series[0].measured:
        return interval_table(series)
    return (mask_table if series[0].masks else accuracy_table)(series, **how)


def telling_radii(series: Sequence[Series[Any]], most: int | None = None) -> list[float]:
    """Published radii below the largest that is certified, thinned to ``most``; 0 where nothing is."""
    largest = max((one.largest for one in series), default=0.0)
    found = [radius for radius in PUBLISHED_RADII if radius < largest] or [0.0]
    return found[:: -(-len(found) // (most or len(found)))]


def accuracy_rows(
    series: Sequence[Series[Any]], radii: Sequence[float], confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Certified accuracy in long form for CSV, all digits: one row for each series and radius, shares as fractions.

    ``low`` and ``high`` bound the accuracy over new images, ``lower`` the share of these images that is truly robust
    (see :class:`~certimed.metrics.ClassificationSummary`).
    """
    rows = []
    for one, title in zip(series, titles(series)):
        found = one.accuracy(radii, confidence)
        about = {"sigma": one.sigma, "method": title, "scope": ", ".join(sorted(one.scopes))}
        names = ("failed", "clean_accuracy", "noisy_accuracy", "too_few_samples", "unstable", "mean_samples")
        after = {name: getattr(found, name) for name in names}
        rows += [{**about, **row, **after} for row in found.to_rows()]
    return rows


def mask_rows(series: Sequence[Series[Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """Masks in long form for CSV, all digits: one row for each series, class and metric, with its interval.

    Raises:
        InputError: no series has scores.
    """
    found = [
        {"method": title, "sigma": one.sigma, "radius": one.first.radius, "scope": ", ".join(sorted(one.scopes)), **row}
        for one, title in zip(series, titles(series))
        if (summary := one.dice(confidence)) is not None
        for row in summary.to_rows()
    ]
    if not found:
        raise InputError("no run has scores against true masks; certify a data set with masks")
    return found


def per_cent(share: float | None, places: int = 0, side: Any = "nearest") -> str:
    """A share in per cent, a dash where there is none: bounds to their side, observed shares to nearest, where only 0
    and 1 themselves read 0 and 100.

    >>> per_cent(0.9996), per_cent(0.9996, 1, "lower"), per_cent(1.0), per_cent(None)
    ('> 99', '99.9', '100', '-')
    """
    if share is None or math.isnan(share):
        return DASH
    text = shown(share, side, places=places, scale=100)
    if side == "nearest" and 0 < share < 1 and float(text) in (0, 100):
        step = 10.0**-places
        return f"< {step:.{places}f}" if float(text) == 0 else f"> {100 - step:.{places}f}"
    return text


def span_text(low: float, high: float, places: int = 0) -> str:
    """An interval of a share in per cent, rounded outwards."""
    return f"{per_cent(low, places, 'lower')}-{per_cent(high, places, 'upper')}"


def bound(value: float, side: Any, places: int = 3) -> str:
    """A guaranteed value, rounded to its side; a dash where there is none."""
    return shown(value, side, places=places)


def score(found: MaskSummary, metric: str, name: str = FOREGROUND) -> str:
    """A mean that is no bound, to nearest; a dash where there is none."""
    row = found.rows.get((name, metric))
    return DASH if row is None else shown(row.mean, "nearest", places=3)


def _where(series: Sequence[Series[Any]]) -> str:
    spaces = sorted({one.space for one in series})
    pixels = "; ".join("the model's input" if space == MODEL_INPUT else space for space in spaces if space != SETTINGS)
    found = [f"[0, 1] units of the certified space ({pixels})"] if pixels else []
    return "; ".join([*found, *(["units of the noise on each setting"] if SETTINGS in spaces else [])])


def _why_samples_ended(summaries: Sequence[ClassificationSummary]) -> str:
    """Mean samples and stops, over all certificates."""
    mean = sum(found.mean_samples for found in summaries) / len(summaries)
    stops: Counter[str] = Counter()
    for found in summaries:
        stops.update({stop: share / len(summaries) for stop, share in found.stops.items()})
    why = ", ".join(f"{stop} {per_cent(share)} %" for stop, share in stops.most_common())
    return f"samples (n): {mean:,.0f} an image on average; {why}."


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


def _marked(cell: str) -> Latex:
    """Text, escaped, with the marks of narrower scopes as LaTeX has them."""
    text = latex_escape(cell)
    for mark, command in (("*", "$^*$"), ("†", r"$^\dagger$")):
        text = text.replace(mark, command)
    return Latex(text)


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


def _line(cells: Sequence[str]) -> str:
    return " & ".join(latex_escape(cell) for cell in cells) + r" \\"
