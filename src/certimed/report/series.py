"""Run folders as what figures, tables and pages are made of: one series for each certificate label of each run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

from certimed.certificates import (
    CHOSEN_AT_X,
    FROZEN_AT_X,
    NATIVE,
    TOO_FEW_SAMPLES,
    UNSTABLE,
    AnyCertificate,
    Certificate,
    ClassCertificate,
    IntervalCertificate,
    MaskCertificate,
    certificate_from_dict,
)
from certimed.data import IntensityReport
from certimed.data.records import Intensity
from certimed.errors import InputError
from certimed.metrics import (
    PUBLISHED_RADII,
    ClassificationSummary,
    MaskScores,
    MaskSummary,
    mean_interval,
    per_class_rows,
    summarise,
    summarise_masks,
    with_failed,
)
from certimed.report.profiles import RadiusProfile
from certimed.runs import CERTIFIED, Record, RunFolder, RunSpec
from certimed.runs.record import arrays_name

GROUPINGS = ("sigma", "method", "run")
MARKS = {FROZEN_AT_X: "*", CHOSEN_AT_X: "†"}
"""What stands behind the name of a series whose certificates say less than end-to-end ones."""

MARK_WORDS = {
    "*": "proved for the prompt frozen at x, not for the pipeline that tuned it on the image",
    "†": "chosen at x: picked by hindsight, image by image; nothing is proved about the pipeline that picks",
}

C = TypeVar("C", bound=Certificate[Any])


@dataclass(frozen=True)
class Curve:
    """Shares of images (or pixels) certified at some radii.

    Attributes:
        values: at each radius.
        low, high: the band over images; empty where it is not known.
    """

    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Shares of one series of masks.

    Attributes:
        shares: of pixels certified, one an image.
        few, unstable: pixels abstained by cause, of all ``pixels`` of the images that did not fail.
        foreground: pixels answered as another class than the first, and how many of them are certified.
        sizes: numbers of estimation samples drawn.
        certified: pixels certified as each class.
    """

    shares: tuple[float, ...]
    pixels: int
    few: int
    unstable: int
    foreground: tuple[int, int]
    sizes: frozenset[int]
    certified: tuple[int, ...]


@dataclass(frozen=True)
class Series(Generic[C]):
    """The certificates of one label (a method; of masks, at one tau) of one run.

    Attributes:
        run: the run's name, unique among those shown.
        path: the run folder.
        spec: its request.
        label: tells the series of a run apart.
        kind: what the method does, by the manifest; see :class:`certimed.runs.MethodEntry`.
        certificates: one an image that did not fail; those of masks are read from disk each time, as the masks of a
            data set need not fit into memory.
        first: the first of them.
        records: the images in the same order, without certificates.
        failures: the images without a certificate.
        class_names: in the order of the scores.
        native: whether radii are those at native resolution.
    """

    run: str
    path: Path
    spec: RunSpec
    label: str
    kind: str
    certificates: Sequence[C]
    first: C
    records: tuple[Record, ...]
    failures: tuple[Record, ...]
    class_names: tuple[str, ...]
    native: bool = False
    scopes: frozenset[str] = frozenset()

    @property
    def masks(self) -> bool:
        """Whether masks were certified."""
        return isinstance(self.first, MaskCertificate)

    @property
    def measured(self) -> bool:
        """Whether measurements were certified."""
        return isinstance(self.first, IntervalCertificate)

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.first.method

    @property
    def sigma(self) -> float:
        """Noise level."""
        return self.first.sigma

    @property
    def space(self) -> str:
        """Where radii live."""
        return NATIVE if self.native else self.first.space

    @property
    def failed(self) -> int:
        """Number of images without a certificate; they count as wrong, see :func:`certimed.metrics.with_failed`."""
        return len(self.failures)

    @property
    def images(self) -> int:
        """Number of images, failed ones included."""
        return len(self.records) + self.failed

    @property
    def marks(self) -> str:
        """Marks of what the certificates do not cover."""
        return "".join(mark for scope, mark in MARKS.items() if scope in self.scopes)

    @property
    def name(self) -> str:
        """The label with its marks, for people."""
        return self.label + self.marks

    @property
    def labels(self) -> tuple[int, ...] | None:
        """True classes of the images that did not fail; None where one is not known."""
        return _all(record.label for record in self.records)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Patient or sequence of every image, failed ones last; None where one is not known."""
        return _all(record.group for record in (*self.records, *self.failures))

    @property
    def scores(self) -> tuple[MaskScores, ...]:
        """Scores of masks against the truth, one an image; empty where an image has none."""
        return _all(record.scores.get(self.label) for record in self.records) or ()

    @property
    def intensities(self) -> IntensityReport:
        """How the images were placed in [0, 1], as recorded; InputError for a record this version does not know."""
        report = IntensityReport()
        for record in self.records:
            if record.intensity is not None:
                report.add(record.item, Intensity.from_json(record.intensity))
        return report

    def class_name(self, index: int) -> str:
        """Name of a class; its number where the manifest names none."""
        return self.class_names[index] if 0 <= index < len(self.class_names) else f"class {index}"

    def accuracy(
        self, radii: Sequence[float] = PUBLISHED_RADII, confidence: float = 0.95, *, labelled: bool = True
    ) -> ClassificationSummary:
        """Of labels, see :func:`certimed.metrics.summarise`; without ``labelled`` as if none had a label."""
        clean = _all(record.clean.get(self.method) for record in self.records)
        labels = self.labels if labelled else None
        return summarise(self.certificates, labels, clean, radii=radii, confidence=confidence, failed=self.failed)  # type: ignore[arg-type]

    def per_class(self, radii: Sequence[float]) -> list[dict[str, Any]]:
        """Of labels, see :func:`certimed.metrics.per_class_rows`; empty without labels."""
        if self.labels is None:
            return []
        lost = [record.label for record in self.failures if record.label is not None]
        names = [self.class_name(index) for index in range(1 + max(*self.labels, *lost, 0))]
        return per_class_rows(self.certificates, self.labels, names, radii=radii, failed=lost)  # type: ignore[arg-type]

    def dice(self, confidence: float = 0.95) -> MaskSummary | None:
        """Of masks, see :func:`certimed.metrics.summarise_masks`; None without truth."""
        if not self.scores:
            return None
        names = [self.class_name(index) for index in range(self.first.claim.num_classes)]
        # Two classes of one name must not share a row.
        unique = names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names)]
        return summarise_masks(
            self.scores, groups=self.groups, class_names=unique, confidence=confidence, failed=self.failed
        )

    @cached_property
    def profiles(self) -> tuple[RadiusProfile, ...]:
        """Of masks: what each image's radius map keeps at every radius."""
        return tuple(RadiusProfile.of(one, native=self.native) for one in self.certificates)  # type: ignore[arg-type]

    @cached_property
    def tally(self) -> Tally:
        """Of masks: shares of pixels."""
        shares, causes, front, sizes = [], {TOO_FEW_SAMPLES: 0, UNSTABLE: 0}, np.zeros(2, dtype=np.int64), set()
        pixels, certified = 0, np.zeros(self.first.num_classes, dtype=np.int64)  # type: ignore[attr-defined]
        one: Any
        for one in self.certificates:
            shares.append(one.share_certified)
            pixels += one.pixels
            for cause, count in one.abstention().items():
                causes[cause] += count
            front += [np.count_nonzero(one.mask), np.count_nonzero((one.mask > 0) & one.certified)]
            certified += np.bincount(one.mask[one.certified], minlength=len(certified))
            sizes.add(one.n)
        foreground, of_classes = (int(front[0]), int(front[1])), tuple(certified.tolist())
        few, unstable = causes[TOO_FEW_SAMPLES], causes[UNSTABLE]
        return Tally(tuple(shares), pixels, few, unstable, foreground, frozenset(sizes), of_classes)

    @cached_property
    def largest(self) -> float:
        """The largest radius of any image (of masks: of any pixel); 0 where nothing is proved."""
        if self.masks:
            return max((float(one.radii[-1]) for one in self.profiles if len(one.radii)), default=0.0)
        return max(one.radius for one in self.certificates)

    def curve(self, radii: Sequence[float], confidence: float = 0.95, *, labelled: bool = True) -> Curve:
        """Of labels: certified accuracy (without labels: share certified) with radius above r, for each r. Of masks:
        mean share of pixels whose radius is above r, in the radius maps, which hold for all radii at once."""
        if not self.masks:
            found = self.accuracy(radii, confidence, labelled=labelled)
            if found.certified_accuracy is None or found.intervals is None:
                return Curve(found.certified_share)
            low, high = zip(*found.intervals)
            return Curve(found.certified_accuracy, low, high)
        columns = [
            with_failed((one.share(np.nextafter(r, np.inf)) for one in self.profiles), self.failed) for r in radii
        ]
        means = [mean_interval(column, self.groups, confidence=confidence) for column in columns]
        values = tuple(mean.mean for mean in means)
        if any(np.isnan(mean.low) for mean in means):
            return Curve(values)
        return Curve(values, tuple(mean.low for mean in means), tuple(mean.high for mean in means))


@dataclass(frozen=True)
class Stored(Sequence[C]):
    """Certificates of one label, read from the run folder each time they are asked for."""

    folder: Path
    lines: Sequence[str] = field(repr=False)
    label: str
    scopes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> C: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[C]: ...
    def __getitem__(self, index: int | slice) -> C | Sequence[C]:
        if isinstance(index, slice):
            return replace(self, lines=self.lines[index])
        data = json.loads(self.lines[index])
        arrays = self.folder / arrays_name(data["item"], data["method"], data["claim"]["tau"])
        return certificate_from_dict(data, arrays)  # type: ignore[return-value]


def series(
    paths: Sequence[str | Path], methods: Sequence[str] | None = None, *, native: bool = False
) -> list[Series[Any]]:
    """Every certificate label of runs of one kind, in the order of runs and methods.

    Args:
        paths: run folders.
        methods: which methods, or labels, in this order; default all.
        native: radii at native resolution.

    Raises:
        InputError: no run, one named twice, runs of several kinds, a broken run, an unknown method, radii that are not
            known at native resolution, or radii of different spaces that cannot be compared.
    """
    folders = named(paths)
    kinds = {folder.task for folder in folders.values()}
    if len(kinds) != 1:
        raise InputError(f"the runs are of {', '.join(sorted(kinds)) or 'no'} kinds; show runs of one kind together")
    found = []
    for name, folder in folders.items():
        if not (own := series_of(name, folder, methods, native=native)):
            raise InputError(f"{folder.path} has no certificate: no image was finished, or every one failed")
        found += own
    spaces = {one.space for one in found}
    if len(spaces) > 1:
        raise InputError(
            "radii at the model's input and at native resolution cannot be compared; add --native to show all of them "
            "at native resolution"
        )
    return found


def series_of(
    name: str,
    folder: RunFolder,
    methods: Sequence[str] | None = None,
    *,
    native: bool = False,
    seen: Callable[[Record], None] = lambda record: None,
) -> list[Series[Any]]:
    """The series of one run, from one pass over its records; none where no image has a certificate.

    Args:
        name: what the run is called.
        folder: the run.
        methods, native: see :func:`series`.
        seen: called with each record while its arrays are in memory.
    """
    spec = RunSpec.from_dict(folder.manifest.get("request"))
    records: list[Record] = []
    failures: list[Record] = []
    by_label: dict[str, list[Any]] = {}
    for record in folder.records():
        seen(record)
        if record.status != CERTIFIED:
            failures.append(record)
            continue
        for label, certificate in record.certificates.items():
            _check_native(certificate, native)
            own = by_label.setdefault(label, [])
            own.append(
                json.dumps(certificate.to_dict()) if own and isinstance(own[0], MaskCertificate) else certificate
            )
        records.append(replace(record, certificates={}))
    kinds = {str(entry["name"]): str(entry.get("kind", entry["name"])) for entry in folder.methods}
    found = []
    for label in _labels(folder, by_label, len(records), methods):
        first, *rest = by_label[label]
        kind = kinds.get(first.method, first.method)
        parts: dict[str, Any] = {"records": tuple(records), "failures": tuple(failures)}
        if isinstance(first, MaskCertificate):
            lines = [json.dumps(first.to_dict()), *rest]
            scopes = frozenset({first.scope, *(json.loads(line)["scope"] for line in rest)})
            parts |= {"certificates": Stored[Any](folder.path, lines, label), "first": first, "scopes": scopes}
        else:
            if native and isinstance(first, IntervalCertificate):
                raise InputError("the radii of intervals are those asked for; leave native radii to their certificates")
            shown = tuple(at_native(one) if native else one for one in by_label[label])
            parts |= {"certificates": shown, "first": shown[0], "scopes": frozenset(one.scope for one in shown)}
        found.append(Series(name, folder.path, spec, label, kind, class_names=folder.classes, native=native, **parts))
    return found


def panels(series: Sequence[Series[C]], by: str) -> dict[str, dict[str, Series[C]]]:
    """Sort series into panels: one a sigma, a method or a run; series are named by what tells them apart.

    Raises:
        InputError: an unknown grouping, or measurements alone, which have intervals and no curves.
    """
    series = [one for one in series if not one.measured]
    if not series:
        raise InputError("a run of measurements has intervals and no curves; read its table, page or export")
    if by not in GROUPINGS:
        raise InputError(f"panels by {by!r:.40} are unknown; use one of {', '.join(GROUPINGS)}")
    keys: dict[str, Callable[[Series[C]], str]] = {
        "sigma": lambda one: f"sigma = {one.sigma:g}",
        "method": lambda one: one.label,
        "run": lambda one: one.run,
    }
    found: dict[str, list[Series[C]]] = {}
    for one in series:
        found.setdefault(keys[by](one), []).append(one)
    others = [keys[name] for name in ("method", "sigma", "run") if name != by]
    return {title: dict(zip(_told_apart(own, others), own)) for title, own in found.items()}


def titles(series: Sequence[Series[Any]], *, by_method: bool = False) -> list[str]:
    """A name for each row of a table whose rows also say sigma: the method, and the run where that alone tells.

    Args:
        series: of the table.
        by_method: leave out what a label adds to its method, as where all rows are of one kind.
    """
    names = [one.method if by_method else one.label for one in series]
    several = len({(one.sigma, name) for one, name in zip(series, names)}) < len(series)
    return [f"{one.run}: {name}" if several else name for one, name in zip(series, names)]


def named(paths: Sequence[str | Path]) -> dict[str, RunFolder]:
    """Run folders by their folder's name, or by as much of the path as tells them apart.

    Raises:
        InputError: no run folder, or the same one twice.
    """
    places = [Path(path).resolve() for path in paths]
    if len(set(places)) != len(places):
        raise InputError("a run folder is named twice; name each once")
    for length in range(1, max((len(place.parts) for place in places), default=1) + 1):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            break
    return {name: RunFolder.open(path) for name, path in zip(names, paths)}


def _told_apart(series: Sequence[Series[Any]], parts: Sequence[Callable[[Series[Any]], str]]) -> list[str]:
    """Names of those parts in which series differ; the first part where there is but one series."""
    telling = [part for part in parts if len({part(one) for one in series}) > 1] or [parts[0]]
    for count in range(1, len(telling) + 1):
        names = [", ".join(part(one) for part in telling[:count]) for one in series]
        if len(set(names)) == len(names):
            break
    return names


def _labels(
    folder: RunFolder, certificates: Mapping[str, Sequence[Any]], images: int, wanted: Sequence[str] | None
) -> list[str]:
    """Labels that every image has; a method's name stands for all its labels."""
    known = {label: own[0].method for label, own in certificates.items() if len(own) == images}
    if wanted is None or not images:
        return list(known)
    found = []
    for name in wanted:
        own = [label for label, method in known.items() if name in (label, method)]
        if not own:
            raise InputError(f"{folder.path} has no method {name!r:.60}; it has {', '.join(known)}")
        found += own
    return list(dict.fromkeys(found))


def at_native(certificate: ClassCertificate) -> ClassCertificate:
    """The same certificate with its native radius as its radius."""
    native = certificate.native
    if native is None:
        return certificate
    claim, about = replace(certificate.claim, radius=native.radius), replace(certificate.about, shape=native.shape)
    return replace(certificate, claim=claim, about=replace(about, space=NATIVE), native=None)


def by_kind(series: Sequence[Series[Any]]) -> list[list[Series[Any]]]:
    """The series of one kind of certificates each, in order."""
    found: dict[str, list[Series[Any]]] = {}
    for one in series:
        found.setdefault(one.first.claim.kind, []).append(one)
    return list(found.values())


def _check_native(certificate: AnyCertificate, native: bool) -> None:
    if native and certificate.native_radius is None:
        raise InputError(
            f"the radius of {certificate.item!r:.80} at native resolution is not known; certify with a model that "
            "describes how it prepares images, or with --space native"
        )


def _all(values: Any) -> tuple[Any, ...] | None:
    """All of them, or None where one is None."""
    found = tuple(values)
    return None if None in found or not found else found
