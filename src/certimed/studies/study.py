"""Several runs as one study: each in a folder of its own, gone on with where it stopped, one table over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.integrity import write_whole
from certimed.metrics import PUBLISHED_RADII
from certimed.report.series import Series, by_kind, series
from certimed.report.tables import (
    Table,
    accuracy_rows,
    accuracy_table,
    csv_text,
    interval_table,
    mask_rows,
    mask_table,
)
from certimed.runs import Job, RunFolder, RunSpec, Watcher, execute
from certimed.runs.folder import MANIFEST


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

    @property
    def masks(self) -> bool:
        """Whether masks were certified."""
        return next(iter(self.specs.values())).masks

    @cached_property
    def series(self) -> list[Series[Any]]:
        """Every method of every run, see :func:`certimed.report.series.series`."""
        return series([folder.path for folder in self.folders.values()])

    @property
    def failed(self) -> int:
        """Images that failed, over all runs."""
        return sum({one.run: one.failed for one in self.series}.values())

    def rows(self) -> list[dict[str, Any]]:
        """The table in long form, all digits: see :mod:`certimed.report.tables`. Failed images count as wrong."""
        return mask_rows(self._answers) if self.masks else accuracy_rows(self._answers, self.radii)

    def table(self, *, most: int | None = None) -> Table:
        """The table for people; certificates that do not cover the whole pipeline are marked.

        Args:
            most: most columns of radii; None: all of :attr:`radii`.
        """
        if self.masks:
            return mask_table(self._answers)
        return accuracy_table(self._answers, self.radii if most is None else None, most=most)

    def measured(self) -> Table | None:
        """The table of measurements; None where nothing was measured."""
        found = [own for own in by_kind(self.series) if own[0].measured]
        return interval_table(found[0]) if found else None

    @property
    def _answers(self) -> list[Series[Any]]:
        """The series of labels or masks, without those of measurements beside them."""
        return [one for one in self.series if not one.measured]

    def envelope(self) -> list[dict[str, Any]]:
        """The largest certified accuracy of each method at each radius over all sigmas, as papers like to draw it.

        No certificate proves it: which sigma is best at a radius was chosen in hindsight, and every row says so.
        """
        found = []
        for method in dict.fromkeys(one.label for one in self.series):
            mine = {one.sigma: one.curve(self.radii).values for one in self.series if one.label == method}
            for index, radius in enumerate(self.radii):
                best = max(mine, key=lambda sigma: mine[sigma][index])
                row = {"method": method, "radius": radius, "certified_accuracy": mine[best][index], "sigma": best}
                found.append({**row, "scope": "sigma chosen in hindsight"})
        return found

    def write_tables(self, folder: str | Path, *, caption: str, label: str) -> None:
        """``table.csv`` and ``table.tex``; nothing where there is no truth to compare with.

        Raises:
            InputError: they cannot be written.
        """
        if self.masks and not any(one.scores for one in self.series):
            return
        write_whole(Path(folder) / "table.csv", lambda stream: stream.write(csv_text(self.rows())))
        latex = self.table().latex(caption=caption, label=label)
        write_whole(Path(folder) / "table.tex", lambda stream: stream.write(latex))


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
        load: how a request is loaded; default :meth:`RunSpec.load`. Workers load it themselves.
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
        job = spec.load(allow_code=allow_code) if load is None else load(spec)
        folders[label] = execute(
            spec,
            place,
            resume=(place / MANIFEST).is_file(),
            workers=workers,
            allow_code=allow_code,
            job=job,
            watcher=watcher,
        )
    return Study(dict(specs), folders, tuple(radii))
