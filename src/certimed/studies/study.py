"""Several runs as one study: each in a folder of its own, gone on with where it stopped, one table over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from certimed.certificates import END_TO_END
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, ClassificationSummary, MaskSummary, summarise, summarise_masks
from certimed.report.mask_tables import mask_latex, mask_rows
from certimed.report.tables import accuracy_latex, accuracy_rows, csv_text
from certimed.runs import CERTIFIED, FAILED, Job, Record, RunFolder, RunSpec, Watcher, execute
from certimed.runs.folder import MANIFEST

HINDSIGHT = "sigma chosen in hindsight"


@dataclass(frozen=True)
class Study:
    """Finished runs of one study.

    Attributes:
        specs: what was asked for, by the run's label.
        folders: the run folders, by label.
        radii: of the certified accuracy.
    """

    specs: Mapping[str, RunSpec]
    folders: Mapping[str, RunFolder]
    radii: tuple[float, ...] = PUBLISHED_RADII
    _read: dict[str, list[Record]] = field(default_factory=dict, repr=False, compare=False)

    def records(self, label: str) -> list[Record]:
        """The records of one run, in the order written."""
        if label not in self._read:
            self._read[label] = list(self.folders[label].records())
        return self._read[label]

    @property
    def masks(self) -> bool:
        """Whether masks were certified."""
        return next(iter(self.specs.values())).masks

    @property
    def failed(self) -> int:
        """Images that failed, over all runs."""
        return sum(record.status == FAILED for label in self.folders for record in self.records(label))

    @cached_property
    def scopes(self) -> dict[str, str]:
        """Scope of every method's certificates, by the method's name."""
        return {one["name"]: one["scope"] for folder in self.folders.values() for one in folder.methods}

    @cached_property
    def accuracies(self) -> dict[tuple[float, str], ClassificationSummary]:
        """By sigma and method, in the order of the table; a failed image counts as not certified, as published.

        Raises:
            InputError: every image of a run failed.
        """
        methods = [(self.specs[label].sigma, name) for label in self.folders for name in self._methods(label)]
        several = len(set(methods)) < len(methods)
        found = {}
        for label, spec in self.specs.items():
            records = self.records(label)
            for name in self._methods(label):
                found[spec.sigma, f"{label}: {name}" if several else name] = _accuracy(records, name, spec, self.radii)
        return found

    @cached_property
    def dice(self) -> dict[tuple[str, float, float], MaskSummary]:
        """By method, sigma and radius, in the order of the table; what has no truth is left out."""
        found: dict[tuple[str, float, float], MaskSummary] = {}
        scored = [
            (name, label)
            for name in dict.fromkeys(one for label in self.folders for one in self._labels(label))
            for label in self.folders
        ]
        for name, label in scored:
            done = [record for record in self.records(label) if name in record.scores]
            if not done:
                continue
            groups = [record.group for record in done]
            found[name, self.specs[label].sigma, done[0].certificates[name].radius] = summarise_masks(
                [record.scores[name] for record in done],
                groups=None if None in groups else groups,
                class_names=self.folders[label].classes,
            )
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The table in long form, see :func:`certimed.report.tables.accuracy_rows` and ``mask_rows``."""
        return mask_rows(self.dice) if self.masks else accuracy_rows(self.accuracies)

    def latex(self, *, caption: str = "", label: str = "") -> str:
        """The table as LaTeX; methods whose certificates do not cover the whole pipeline are marked."""
        if self.masks:
            return mask_latex(self.dice, caption=caption, label=label)
        marks = {name: r"$^{*}$" for _, name in self.accuracies if not self.covers_pipeline(name)}
        if marks:
            caption += " * prompt frozen at the test image: the certificate does not cover the tuning."
        return accuracy_latex(self.accuracies, caption=caption, label=label, marks=marks)

    def covers_pipeline(self, method: str) -> bool:
        """Whether a method's certificates hold end to end."""
        return self.scopes.get(method, self.scopes.get(method.partition(": ")[2], END_TO_END)) == END_TO_END

    def envelope(self) -> list[dict[str, Any]]:
        """The largest certified accuracy of each method at each radius over all sigmas, as papers like to draw it.

        No certificate proves it: which sigma is best at a radius was chosen after looking, and every row says so.
        """
        found = []
        for method in dict.fromkeys(name for _, name in self.accuracies):
            mine = {sigma: one for (sigma, name), one in self.accuracies.items() if name == method}
            for index, radius in enumerate(self.radii):
                shares = {sigma: (one.certified_accuracy or one.certified_share)[index] for sigma, one in mine.items()}
                best = max(shares, key=lambda sigma: shares[sigma])
                row = {"method": method, "radius": radius, "certified_accuracy": shares[best], "sigma": best}
                found.append({**row, "scope": HINDSIGHT})
        return found

    def write_tables(self, folder: str | Path, *, caption: str, label: str) -> None:
        """``table.csv`` and ``table.tex``; nothing where nothing could be scored.

        Raises:
            InputError: they cannot be written.
        """
        rows = self.rows()
        if not rows:
            return
        try:
            (Path(folder) / "table.csv").write_text(csv_text(rows), encoding="utf-8")
            (Path(folder) / "table.tex").write_text(self.latex(caption=caption, label=label), encoding="utf-8")
        except OSError as error:
            raise InputError(f"the tables cannot be written to {folder} ({error.strerror})") from error

    def _methods(self, label: str) -> list[str]:
        return [str(one["name"]) for one in self.folders[label].methods]

    def _labels(self, label: str) -> list[str]:
        """Labels of the certificates: the method, and the tau where there are several."""
        return list(dict.fromkeys(name for record in self.records(label) for name in record.certificates))


def run_study(
    specs: Mapping[str, RunSpec],
    out: str | Path,
    *,
    load: Callable[[RunSpec], Job] | None = None,
    radii: Sequence[float] = PUBLISHED_RADII,
    workers: int = 1,
    allow_code: bool = False,
    watcher: Watcher | None = None,
) -> Study:
    """Certify several requests, each into a subfolder of its label; what is there already is gone on with.

    Args:
        specs: by label, in order: noise levels, or the values of a sweep.
        out: folder of the study.
        load: how a request is loaded; default :meth:`RunSpec.load`. Not with workers, which load it themselves.
        radii: of the certified accuracy.
        workers, allow_code, watcher: see :func:`certimed.runs.execute`.

    Raises:
        InputError: no request, requests for classes and masks together, or what :func:`execute` refuses; a folder that
            was started with other settings is refused with both values named.
    """
    if not specs or len({spec.masks for spec in specs.values()}) > 1:
        raise InputError("a study has one or more runs, all of classes or all of masks")
    folders = {}
    for label, spec in specs.items():
        place = Path(out) / label
        folders[label] = execute(
            spec,
            place,
            resume=(place / MANIFEST).is_file(),
            workers=workers,
            allow_code=allow_code,
            job=(load or (lambda one: one.load(allow_code=allow_code)))(spec),
            watcher=watcher,
        )
    return Study(dict(specs), folders, tuple(radii))


def _accuracy(
    records: Sequence[Record], method: str, spec: RunSpec, radii: tuple[float, ...]
) -> ClassificationSummary:
    done = [record for record in records if record.status == CERTIFIED]
    if not done:
        raise InputError(f"every image failed at sigma {spec.sigma:g} (the first: {records[0].reason})")
    labels = [record.label for record in done if record.label is not None]
    return summarise(
        [record.certificates[method] for record in done],
        labels if len(labels) == len(done) else None,
        [record.clean[method] for record in done],
        radii=radii,
        failed=len(records) - len(done),
    )
