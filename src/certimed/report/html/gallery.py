"""The images of the report one by one, as data for the page's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from certimed.certificates import TOO_FEW_SAMPLES, ClassCertificate
from certimed.report.html.numbers import plain
from certimed.report.html.pictures import Budget, thumbnail
from certimed.report.html.sources import Pictures, Run
from certimed.report.html.words import scope_words

if TYPE_CHECKING:
    from certimed.report.html.classes import ClassRun, Series


class Thumbnails:
    """One entry an image, shared by the runs that speak of it."""

    def __init__(self, pictures: Mapping[int, Pictures], budget: Budget) -> None:
        self.images: list[dict[str, Any]] = []
        self._pictures = pictures
        self._budget = budget
        self._places: dict[tuple[str, str], int] = {}

    def place(self, run: Run, item: str) -> int:
        """Position of an image in :attr:`images`; read and shrunk the first time it is asked for."""
        identity = run.section("data").get("identity")
        key = (identity if isinstance(identity, str) else f"run {run.index}", item)
        if key not in self._places:
            self._places[key] = len(self.images)
            image = self._pictures[run.index].load(item)
            entry: dict[str, Any] = {"name": plain(item)}
            if image is not None and (shown := self._budget.spend(thumbnail(image))) is not None:
                entry["thumb"] = shown
            self.images.append(entry)
        return self._places[key]


class Gallery:
    """Data of the gallery: ``images``, ``series`` and, for each series, one row an image."""

    def __init__(self, data: dict[str, Any], refused: int) -> None:
        self.data = data
        self.refused = refused

    @property
    def has_pictures(self) -> bool:
        """Whether any image has a picture."""
        return any("thumb" in image for image in self.data["images"])

    @classmethod
    def of_classes(
        cls, runs: Sequence[ClassRun], series: Sequence[Series], pictures: Mapping[int, Pictures], budget: Budget
    ) -> Gallery:
        """The gallery of classification runs."""
        thumbnails = Thumbnails(pictures, budget)
        shapes: list[list[int]] = []
        listed = [_described(one, thumbnails, shapes, run) for run in runs for one in run.series]
        data = {
            "task": "classify",
            "images": thumbnails.images,
            "shapes": shapes,
            "classes": {str(run.run.index): list(run.run.class_names) for run in runs},
            "series": listed,
        }
        return cls(data, budget.refused)


def _described(series: Series, thumbnails: Thumbnails, shapes: list[list[int]], run: ClassRun) -> dict[str, Any]:
    rows = []
    for index, (record, certificate) in enumerate(zip(series.records, series.certificates)):
        label = None if series.labels is None else series.labels[index]
        rows.append(_row(thumbnails.place(run.run, record.item), certificate, label, shapes))
        rows[-1]["clean"] = record.clean.get(series.method)
        rows[-1]["label"] = record.label
    rows += [
        {"image": thumbnails.place(run.run, record.item), "outcome": "failed", "reason": plain(record.reason or "")}
        for record in run.records
        if series.method not in record.certificates
    ]
    return {
        "key": series.key,
        "run": run.run.index,
        "name": f"{series.name} · sigma {certificate_sigma(series.certificates)}",
        "runName": run.run.name,
        "rows": rows,
    }


def certificate_sigma(certificates: Sequence[ClassCertificate]) -> str:
    """The noise level, or levels, of a series."""
    return ", ".join(f"{sigma:g}" for sigma in sorted({c.sigma for c in certificates}))


def _row(image: int, certificate: ClassCertificate, label: int | None, shapes: list[list[int]]) -> dict[str, Any]:
    native = None
    if certificate.native is not None:
        native = {"radius": certificate.native.radius, "shape": _numbered(certificate.native.shape, shapes)}
    return {
        "image": image,
        "outcome": outcome(certificate, label),
        "prediction": certificate.prediction,
        "radius": certificate.radius,
        "agree": certificate.counts[certificate.prediction],
        "n": certificate.n,
        "shape": _numbered(certificate.shape, shapes),
        "native": native,
        **({} if certificate.budget == f"fixed:{certificate.n}" else {"stopped": plain(certificate.stopped)}),
        "scope": scope_words(certificate.scope),
        "space": certificate.space,
    }


def outcome(certificate: ClassCertificate, label: int | None) -> str:
    """What became of one image, in one word of the page."""
    if certificate.abstained:
        return "few" if certificate.abstention == TOO_FEW_SAMPLES else "unstable"
    if label is None:
        return "certified"
    return "right" if certificate.prediction == label else "wrong"


def _numbered(shape: tuple[int, ...], shapes: list[list[int]]) -> int:
    """Position of a shape in the list of all, added if it is new."""
    if list(shape) not in shapes:
        shapes.append(list(shape))
    return shapes.index(list(shape))
