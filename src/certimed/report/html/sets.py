"""The part of the page about sets of classes: their sizes and coverage by radius, and every set in words."""

from __future__ import annotations

from certimed.certificates import SetClaim
from certimed.certificates.words import EXCHANGEABLE, below_text, set_text
from certimed.metrics.sets import set_rows
from certimed.report.html.charts import Curve, line_chart
from certimed.report.html.numbers import plain
from certimed.report.html.part import Line, Material, Part, run_title
from certimed.report.kind_tables import set_table
from certimed.report.tables import Table, per_cent

_MOST_ROWS = 200


class SetPart(Part):
    """Sets of classes: tables, a chart where there are several radii, every set in words."""

    template = "sets.html.j2"
    contents = (("sets", "Sets"),)

    def __init__(self, material: Material) -> None:
        super().__init__(material.of(SetClaim.kind))
        self.assumption = EXCHANGEABLE
        self.table_notes = list(dict.fromkeys(note for table in self.tables() for note in table[1].notes))
        self.charts = [chart for number, line in enumerate(self.lines) if (chart := _chart(number, line))]

    @classmethod
    def of(cls, material: Material) -> Part | None:
        return cls(material) if material.of(SetClaim.kind) else None

    def samples(self) -> list[str]:
        return ["For sets, one noisy copy of an image is scored, and held against those of calibration images."]

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
            found.append((line.title, radii, rows))
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
    title = line.title
    chart = line_chart(f"sets-{number}", title, said, curves, x_max=radii[-1], x_label="radius (L2)", y_label="%")
    return {"title": title, "chart": chart, "names": "; ".join(names)}
