"""The part of the page about attacks: certificate <= truth <= attack, one bar an image."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from certimed.attacks.sandwich import Sandwich
from certimed.certificates import SETTINGS, shown
from certimed.report.html.charts import nice_ticks
from certimed.report.html.numbers import down, percent, plain
from certimed.report.html.part import Material, Part
from certimed.report.html.sources import Run
from certimed.report.sentences import Sentence

_MOST_ROWS = 60
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 640, 150, 14, 10, 18, 40


class SandwichPart(Part):
    """Both sides of every attacked certificate of the runs that were attacked."""

    template = "sandwich.html.j2"
    contents = (("sandwich", "Attacks"),)

    def __init__(self, found: Sequence[tuple[Run, Sandwich]]) -> None:
        super().__init__([])
        self._found = found

    @classmethod
    def of(cls, material: Material) -> Part | None:
        found = [(run, sandwich) for run in material.runs if (sandwich := Sandwich.of(run.folder)).attacks]
        return cls(found) if found else None

    def headlines(self) -> dict[int, Sentence]:
        """Attacks inside certificates, where there are any: they go before everything else that is said of the run."""
        found = {}
        for run, sandwich in self._found:
            if sentences := [plain(one, 1000) for one in sandwich.findings()]:
                found[run.index] = Sentence(
                    "; ".join(sentences), any(row["contradicted"] for row in sandwich.summary())
                )
        return found

    def tables(self) -> list[dict[str, Any]]:
        """One table and one chart for each method of each run."""
        tables = []
        for run, sandwich in self._found:
            rows = sandwich.rows()
            for number, about in enumerate(sandwich.summary()):
                own = [row for row in rows if row["label"] == about["label"]]
                key = f"s{run.index}-{number}"
                tables.append(
                    {
                        "title": f"{about['label']}, {run.name}",
                        "rows": [*_cells(about), *_dice(own)],
                        "chart": _chart(own, key, "of the noise" if sandwich.space == SETTINGS else "in [0, 1] units"),
                    }
                )
        return tables


def _cells(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    middle = about["ratio_median"]
    return [
        ("certificates attacked", str(about["attacked"])),
        ("broken at some radius", str(about["broken"])),
        ("broken / certified, median", f"{middle:.3g}" if math.isfinite(middle) else "more than half were not broken"),
        ("broken inside the certificate", f"{about['inside']} (p = {about['p_value']:.2g})"),
        ("unanswered just inside", percent(about["abstained_inside"])),
        ("scope", str(about["scope"])),
    ]


def _dice(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Of masks with a truth: the worst case lies between what is guaranteed and what an attack reached, in the mean."""
    both = [(row["guaranteed_dice"], row["reached_dice"]) for row in rows if row.get("reached_dice") is not None]
    if not both:
        return []
    low, high = (sum(values) / len(both) for values in zip(*both))
    return [
        ("guaranteed Dice, mean", shown(low, "lower", places=3)),
        ("Dice reached by an attack inside, mean", shown(high, "upper", places=3)),
    ]


def _chart(rows: Sequence[Mapping[str, Any]], key: str, unit: str) -> str:
    drawn = sorted(rows, key=lambda row: (-float(row["radius"]), str(row["item"])))[:_MOST_ROWS]
    largest = 1.05 * max(value for row in drawn for value in (row["radius"], row["broken"] or 0.0)) or 1.0
    height = _TOP + _ROW * len(drawn) + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / largest

    parts = []
    for tick in nice_ticks(largest):
        at, foot = x(tick), height - _BOTTOM
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{foot}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 16}" text-anchor="middle">{tick:g}</text>')
    for number, row in enumerate(drawn):
        y = _TOP + _ROW * (number + 0.5)
        low = math.floor(10 * x(row["radius"])) / 10
        high = x(largest if row["broken"] is None else row["broken"])
        name = html.escape(plain(row["item"], 22))
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" class="quiet">{name}</text>')
        parts.append(f'<line class="proved" x1="{_LEFT}" x2="{low:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        kind = "open" if row["broken"] is None else "between"
        parts.append(f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if row["broken"] is not None:
            parts.append(f'<path class="broken" d="M{high - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>')
    label = f"L2 length {unit}: proved (solid), unknown (thin), broken by an attack (cross)"
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{height - 6}" text-anchor="middle">{label}</text>')
    said = f"{len(rows)} certificates; the largest certified radius is {down(max(row['radius'] for row in rows))}"
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{key}-t"><title id="{key}-t">'
        f"Certificate, truth and attack, image by image: {said}</title>{''.join(parts)}</svg>"
    )
