"""The part of the page about sets of classes: their sizes and coverage by radius, and every set in words."""

from __future__ import annotations

from collections.abc import Sequence

from certimed.certificates import shown
from certimed.certificates.words import EXCHANGEABLE, below_text, set_text
from certimed.metrics.sets import set_rows
from certimed.report.html.charts import Curve, line_chart
from certimed.report.html.classes import Line, by_run, run_title
from certimed.report.html.numbers import plain
from certimed.report.kind_tables import set_table
from certimed.report.tables import Table, per_cent

_MOST_ROWS = 200


class SetPart:
    """Everything the template needs about the sets of a page."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        self.runs = by_run(lines)
        self.assumption = EXCHANGEABLE
        self.table_notes = list(dict.fromkeys(note for table in self.tables() for note in table[1].notes))
        self.charts = [chart for number, line in enumerate(self.lines) if (chart := _chart(number, line))]

    def headlines(self) -> list[dict[str, str]]:
        """One sentence a series: what holds at the largest radius, and how large the sets are."""
        found = []
        for line in self.lines:
            row = set_rows(line.of.certificates, line.of.labels)[-1]
            text = (
                f"{line.name}: whatever an attack below radius {row['radius']:g} does, a set misses the true class "
                f"with probability at most {shown(line.of.first.alpha, 'upper', digits=3)}; it holds "
                f"{shown(row['size'], 'upper', places=2)} of {len(line.of.class_names)} classes on average"
            )
            if row["covered"] is not None:
                text += f"; without an attack it holds the true one for {row['covered']} of {row['images']} images"
            found.append({"run": line.run.name, "sigma": line.sigma, "sentence": text})
        return found

    def tables(self) -> list[tuple[str, Table]]:
        """One table a run."""
        return [(run_title(own), set_table([line.of for line in own])) for own in self.runs]

    def statements(self) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
        """For each series, image by image: its id and the set at each radius, by class names."""
        found = []
        for line in self.lines:
            radii = [below_text(radius) for radius in line.of.first.radii]
            rows = [
                (plain(one.item, 80), [set_text([line.of.class_name(at) for at in own]) for own in one.sets])
                for one in line.of.certificates[:_MOST_ROWS]
            ]  # fmt: skip
            found.append((f"{line.title}, {line.run.name}", radii, rows))
        return found


def _chart(number: int, line: Line) -> dict[str, str] | None:
    """Mean set size as a share of all classes, and coverage, against the radius; None where there is one radius."""
    rows = set_rows(line.of.certificates, line.of.labels)
    if len(rows) < 2:
        return None
    classes, radii = len(line.of.first.claim.probabilities), [row["radius"] for row in rows]
    curves = [Curve(f"s{number}", 0, radii, [row["size"] / classes for row in rows], steps=False)]
    names = [f"mean set size, % of {classes} classes"]
    if rows[0]["coverage"] is not None:
        low, high = ([row[end] for row in rows] for end in ("low", "high"))
        curves.append(Curve(f"c{number}", 1, radii, [row["coverage"] for row in rows], low, high, steps=False))
        names.append("coverage without an attack, %, with its 95 % interval")
    said = "; ".join(
        f"radius {row['radius']:g}: size {row['size']:.2f}, coverage {per_cent(row['coverage'], 1)} %" for row in rows
    )
    title = f"{line.title}, {line.run.name}"
    chart = line_chart(f"sets-{number}", title, said, curves, x_max=radii[-1], x_label="radius (L2)", y_label="%")
    return {"title": title, "chart": chart, "names": "; ".join(names)}
