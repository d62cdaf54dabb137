"""The part of the page about attacks: certificate <= truth <= attack, for every run that has some in its folder."""

from __future__ import annotations

from typing import Any

from certimed.attacks.sandwich import Sandwich
from certimed.certificates import SETTINGS, shown
from certimed.report.html.numbers import plain
from certimed.report.html.part import Line, Material, Part, by_run
from certimed.report.sentences import Sentence

_MOST_ROWS = 60
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 260, 56, 14, 10, 34


class SandwichPart(Part):
    """Both sides of every attacked certificate: a chart and a table a method, and what must not be overlooked."""

    template = "sandwich.html.j2"
    contents = (("attacks", "Attacks"),)

    def __init__(self, found: list[tuple[Line, Sandwich]]) -> None:
        super().__init__([line for line, _ in found])
        self.methods = [_method(line, sandwich, summary) for line, sandwich in found for summary in sandwich.summary()]
        self.findings = [plain(sentence, 400) for _, sandwich in found for sentence in sandwich.findings()]

    @classmethod
    def of(cls, material: Material) -> Part | None:
        found = []
        for own in by_run(material.lines):
            sandwich = Sandwich.of(own[0].run.folder)
            if sandwich.attacks:
                found.append((own[0], sandwich))
        return cls(found) if found else None

    def headlines(self) -> dict[int, Sentence]:
        return {}  # the part of the answers speaks for the run

    def notes(self) -> list[str]:
        return self.findings


def _method(line: Line, sandwich: Sandwich, summary: dict[str, Any]) -> dict[str, Any]:
    label = summary["label"]
    rows = sorted((row for row in sandwich.rows() if row["label"] == label), key=lambda row: float(row["radius"]))
    unit = "units of the noise" if sandwich.space == SETTINGS else "[0, 1] units"
    return {
        "title": plain(f"{line.run.name}: {label}", 120),
        "unit": unit,
        "summary": summary,
        "dice": any("guaranteed_dice" in row for row in rows),
        "rows": [_cells(row) for row in rows[:_MOST_ROWS]],
        "left_out": max(0, len(rows) - _MOST_ROWS),
        "chart": _chart(rows, unit),
    }


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Lower bounds rounded down, upper ones up."""

    def up(name: str) -> str:
        value = row.get(name)
        return "none found" if value is None else shown(value, "upper", digits=4)

    cells = {name: up(name) for name in ("broken", "unanswered", "base", "reached_dice")}
    guaranteed = row.get("guaranteed_dice")
    return cells | {
        "item": plain(row["item"], 80),
        "radius": shown(row["radius"], "lower", digits=4),
        "guaranteed_dice": "-" if guaranteed is None else shown(guaranteed, "lower", digits=4),
        "inside": "inside" if row["inside"] else "",
    }


def _chart(rows: list[dict[str, Any]], unit: str) -> str:
    """One bar an image, from its certified radius to the smallest perturbation that broke it, or to the top."""
    largest: float = 1.1 * max(max(row["radius"], row["broken"] or 0.0) for row in rows)
    inside, foot = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM

    def y(value: float) -> float:
        return foot - (foot - _TOP) * value / largest

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = y(share * largest)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{share * largest:.3g}</text>')
    for place, row in enumerate(rows):
        x = _LEFT + inside * (place + 0.5) / len(rows)
        low, high = y(row["radius"]), _TOP if row["broken"] is None else y(row["broken"])
        parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="median" cx="{x:.1f}" cy="{low:.1f}" r="2.5"/>')
    words = f"images by certified radius; L2, {unit}"
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{words}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>Certified radius, below, and smallest '
        f"perturbation found, above, image by image; the table has the numbers</title>{''.join(parts)}</svg>"
    )
