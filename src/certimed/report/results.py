"""Run folders as what figures and tables are made of: one series for each method of each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import NATIVE, ClassCertificate, MaskCertificate
from certimed.errors import InputError
from certimed.metrics import (
    PUBLISHED_RADII,
    ClassificationSummary,
    MaskScores,
    MaskSummary,
    summarise,
    summarise_masks,
)
from certimed.report.curves import AccuracyCurve
from certimed.runs import CERTIFIED, RunFolder

CLASSIFY, SEGMENT = "classify", "segment"
GROUPINGS = ("sigma", "method", "run")

T = TypeVar("T")


@dataclass(frozen=True)
class ClassSeries:
    """One method of one classification run.

    Attributes:
        run: the run's name, unique among those shown.
        clean: class of each clean image.
        failed: images without a certificate; they count as not certified and as wrong, as in published protocols.
    """

    run: str
    method: str
    sigma: float
    certificates: tuple[ClassCertificate, ...]
    labels: tuple[int, ...] | None
    clean: tuple[int, ...]
    failed: int

    def curve(self) -> AccuracyCurve:
        """For :func:`certimed.report.curves.accuracy_figure`."""
        return AccuracyCurve(self.certificates, self.labels, self.failed)

    def summary(self, radii: Sequence[float] = PUBLISHED_RADII, confidence: float = 0.95) -> ClassificationSummary:
        """For tables; see :func:`certimed.metrics.summarise`."""
        return summarise(
            self.certificates, self.labels, self.clean, radii=radii, confidence=confidence, failed=self.failed
        )


@dataclass(frozen=True)
class MaskSeries:
    """One method (at one tau) of one segmentation run.

    Attributes:
        scores: against the truth, one an image; empty where any image has no mask.
        groups: patient or sequence of each image, or None.
    """

    run: str
    method: str
    sigma: float
    certificates: tuple[MaskCertificate, ...]
    scores: tuple[MaskScores, ...]
    groups: tuple[str, ...] | None
    class_names: tuple[str, ...]
    failed: int

    @property
    def tau(self) -> float:
        """tau of every certificate."""
        return self.certificates[0].tau

    def radius_maps(self, *, native: bool = False) -> list[NDArray[np.float64]]:
        """The radius of every pixel, one array an image; at native resolution where asked."""
        return [_native_map(c) if native else c.radius_map() for c in self.certificates]

    def summary(self, confidence: float = 0.95) -> MaskSummary | None:
        """Means over images, or None without truth; see :func:`certimed.metrics.summarise_masks`."""
        if not self.scores:
            return None
        return summarise_masks(self.scores, groups=self.groups, class_names=self.class_names, confidence=confidence)


Series = TypeVar("Series", ClassSeries, MaskSeries)


def task_of(paths: Sequence[Path]) -> str:
    """``"classify"`` or ``"segment"``, the same for all runs.

    Raises:
        InputError: no run, something that is none, or runs of both kinds.
    """
    tasks = {str(RunFolder.open(path).manifest.get("task")) for path in paths}
    if len(tasks) != 1 or not tasks <= {CLASSIFY, SEGMENT}:
        raise InputError(f"the runs are of {', '.join(sorted(tasks)) or 'no'} tasks; show runs of one task together")
    return tasks.pop()


def class_series(
    paths: Sequence[Path], methods: Sequence[str] | None = None, *, native: bool = False
) -> list[ClassSeries]:
    """Every method of classification runs, in the order of runs and methods.

    Args:
        paths: run folders.
        methods: which methods, in this order; default all.
        native: radii at native resolution.

    Raises:
        InputError: a broken run, an unknown method, radii that are not known at native resolution, or radii of
            different spaces that cannot be compared.
    """
    found = []
    for name, folder in _named(paths).items():
        records = list(folder.records())
        done = [record for record in records if record.status == CERTIFIED]
        labels = tuple(record.label for record in done if record.label is not None)
        for method in _methods(folder, [record.certificates for record in done], methods):
            certificates = tuple(record.certificates[method] for record in done)
            found.append(
                ClassSeries(
                    name,
                    method,
                    certificates[0].sigma,
                    tuple(map(_at_native, certificates)) if native else certificates,
                    labels if len(labels) == len(done) else None,
                    tuple(record.clean[method] for record in done),
                    len(records) - len(done),
                )
            )
    return _comparable(found)


def mask_series(
    paths: Sequence[Path], methods: Sequence[str] | None = None, *, native: bool = False
) -> list[MaskSeries]:
    """Every method of segmentation runs; arguments and errors as of :func:`class_series`."""
    found = []
    for name, folder in _named(paths).items():
        records = list(folder.mask_records())
        done = [record for record in records if record.status == CERTIFIED]
        groups = tuple(record.group for record in done if record.group is not None)
        classes = folder.manifest.get("classes")
        for method in _methods(folder, [record.certificates for record in done], methods):
            certificates = tuple(record.certificates[method] for record in done)
            if native:
                _check_native(certificates)
            scores = tuple(record.scores[method] for record in done if method in record.scores)
            found.append(
                MaskSeries(
                    name,
                    method,
                    certificates[0].sigma,
                    certificates,
                    scores if len(scores) == len(done) else (),
                    groups if len(groups) == len(done) else None,
                    tuple(map(str, classes)) if isinstance(classes, list) else (),
                    len(records) - len(done),
                )
            )
    return found if native else _comparable(found)


def panels(series: Sequence[Series], by: str, value: Callable[[Series], T]) -> dict[str, dict[str, T]]:
    """Sort series into panels: one a sigma, a method or a run; curves are named by what tells them apart.

    Raises:
        InputError: an unknown grouping.
    """
    if by not in GROUPINGS:
        raise InputError(f"panels by {by!r:.40} are unknown; use one of {', '.join(GROUPINGS)}")
    keys: dict[str, Callable[[ClassSeries | MaskSeries], str]] = {
        "sigma": lambda one: f"sigma = {one.sigma:g}",
        "method": lambda one: one.method,
        "run": lambda one: one.run,
    }
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(keys[by](one), []).append(one)
    others = [keys[name] for name in ("method", "sigma", "run") if name != by]
    return {title: {name: value(one) for name, one in _told_apart(own, others).items()} for title, own in found.items()}


def _told_apart(series: Sequence[Series], parts: Sequence[Callable[[Series], str]]) -> dict[str, Series]:
    """Names of those parts in which series differ; the first part where there is but one series."""
    telling = [part for part in parts if len({part(one) for one in series}) > 1] or [parts[0]]
    for count in range(1, len(telling) + 1):
        names = [", ".join(part(one) for part in telling[:count]) for one in series]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, series))


def _named(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Run folders by their folder's name, or by as much of the path as tells them apart."""
    if len({path.resolve() for path in paths}) != len(paths):
        raise InputError("a run folder is named twice; name each once")
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return {name: RunFolder.open(path) for name, path in zip(names, paths)}


def _methods(
    folder: RunFolder, certificates: Sequence[Mapping[str, object]], wanted: Sequence[str] | None
) -> list[str]:
    if not certificates:
        raise InputError(f"{folder.path} has no certificate: no image was finished, or every one failed")
    known = [name for name in certificates[0] if all(name in one for one in certificates)]
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise InputError(f"{folder.path} has no method {unknown[0]!r:.60}; it has {', '.join(known)}")
    return known if wanted is None else list(wanted)


def _at_native(certificate: ClassCertificate) -> ClassCertificate:
    """The same certificate with its native radius as its radius."""
    _check_native([certificate])
    native = certificate.native
    return (
        certificate
        if native is None
        else replace(certificate, radius=native.radius, shape=native.shape, space=NATIVE, native=None)
    )


def _native_map(certificate: MaskCertificate) -> NDArray[np.float64]:
    radii, native = certificate.radius_map(), certificate.native
    if native is None or native.norm == 1:
        return radii
    rounded: NDArray[np.float64] = np.nextafter(radii / native.norm, 0)
    return rounded


def _check_native(certificates: Sequence[ClassCertificate | MaskCertificate]) -> None:
    for certificate in certificates:
        if certificate.native_radius is None:
            raise InputError(
                f"the radius of {certificate.item!r:.80} at native resolution is not known; certify with a model that "
                "describes how it prepares images, or with --space native"
            )


def _comparable(series: list[Series]) -> list[Series]:
    spaces = {certificate.space for one in series for certificate in one.certificates}
    if len(spaces) > 1:
        raise InputError(
            "radii at the model's input and at native resolution cannot be compared; add --native to show all of them "
            "at native resolution"
        )
    return series
