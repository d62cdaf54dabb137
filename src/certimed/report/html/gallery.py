"""The images of the page one by one, as data for its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from certimed.budgets import Fixed, parse_budget
from certimed.certificates import TOO_FEW_SAMPLES, ClassCertificate
from certimed.certificates.words import stop_text
from certimed.report.html.numbers import plain
from certimed.report.html.pictures import Budget, thumbnail
from certimed.report.html.sources import Run
from certimed.report.html.words import SCOPES
from certimed.runs import Record
from certimed.runs.images import Pictures

if TYPE_CHECKING:
    from certimed.report.html.part import Line


class Gallery:
    """Data of the gallery: ``images`` (one entry an image, shared by the runs that speak of it), ``series`` and, for
    each series, one row an image.

    Args:
        runs: the lines of each run.
        pictures: by number of the run.
        budget: of the page's pictures.
    """

    def __init__(self, runs: Sequence[Sequence[Line]], pictures: Mapping[int, Pictures], budget: Budget) -> None:
        self._pictures, self._budget = pictures, budget
        self._places: dict[tuple[str, str], int] = {}
        self._images: list[dict[str, Any]] = []
        self._shapes: list[list[int]] = []
        series = [self._series(line) for own in runs for line in own]
        self.data = {
            "images": self._images,
            "shapes": self._shapes,
            "classes": {str(own[0].run.index): list(own[0].run.class_names) for own in runs},
            "series": series,
        }

    @property
    def pictures(self) -> int:
        """Number of images with a picture."""
        return sum("thumb" in image for image in self._images)

    def _series(self, line: Line) -> dict[str, Any]:
        of = line.of
        rows = [self._row(line.run, record, of.method, c) for record, c in zip(of.records, of.certificates)]
        rows += [
            {
                "image": self._place(line.run, record.item),
                "outcome": "failed",
                "reason": plain(record.reason or ""),
                "label": record.label,
            }
            for record in of.failures
        ]
        return {
            "key": line.key,
            "run": line.run.index,
            "name": line.short,
            "runName": line.run.name,
            "rows": rows,
        }

    def _row(self, run: Run, record: Record, method: str, c: ClassCertificate) -> dict[str, Any]:
        native = None if c.native is None else {"radius": c.native.radius, "shape": self._shape(c.native.shape)}
        fixed = isinstance(parse_budget(c.budget), Fixed)
        return {
            "image": self._place(run, record.item),
            "outcome": outcome(c, record.label),
            "prediction": c.prediction,
            "label": record.label,
            "clean": record.clean.get(method),
            "radius": c.radius,
            "real": c.real_radius,
            "agree": c.counts[c.prediction],
            "n": c.n,
            "shape": self._shape(c.shape),
            "native": native,
            **({} if fixed else {"stopped": stop_text(c.stop, c.n, c.n0)}),
            "scope": SCOPES[c.scope],
            "space": c.space,
        }

    def _place(self, run: Run, item: str) -> int:
        """Position of an image among all; read and shrunk the first time it is asked for."""
        identity = run.section("data").get("identity")
        key = (identity if isinstance(identity, str) else f"run {run.index}", item)
        if key not in self._places:
            self._places[key] = len(self._images)
            image = self._pictures[run.index].load(item)
            entry: dict[str, Any] = {"name": plain(item)}
            if image is not None and (shown := self._budget.spend(thumbnail(image))) is not None:
                entry["thumb"] = shown
            self._images.append(entry)
        return self._places[key]

    def _shape(self, shape: tuple[int, ...]) -> int:
        """Position of a shape in the list of all, added if it is new."""
        if list(shape) not in self._shapes:
            self._shapes.append(list(shape))
        return self._shapes.index(list(shape))


def outcome(certificate: ClassCertificate, label: int | None) -> str:
    """What became of one image, in one word of the page."""
    if certificate.abstained:
        return "few" if certificate.abstention == TOO_FEW_SAMPLES else "unstable"
    if label is None:
        return "certified"
    return "right" if certificate.prediction == label else "wrong"
