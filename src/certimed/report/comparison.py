"""Two runs on the same images and the same noise: what the second gained and lost, image by image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certimed.certificates import shown
from certimed.errors import InputError
from certimed.integrity import settings_of
from certimed.metrics import PUBLISHED_RADII, mean_interval
from certimed.metrics.segmentation import DICE_LOW, FOREGROUND, SHARE_CERTIFIED, WHOLE_IMAGE, score_columns
from certimed.report.series import Series, series
from certimed.report.tables import DASH, Column, Row, Table, telling_radii
from certimed.runs import RunFolder
from certimed.statistics import difference_interval, radius_ceiling

ACCURACY = "certified accuracy"
SHARE = "certified"
_SAME = ("task", "sigma", "noise", "alpha", "seed", "space", "n0", "target", "vary")
_SHOWN = 6


@dataclass(frozen=True)
class Compared:
    """One figure of both runs.

    Attributes:
        method, against: the certificates' labels in the first run and in the second.
        metric: what is compared.
        where: the radius, or the class.
        before, after: means over the images, failed ones with 0.
        low, high: interval of ``after - before`` over the population the images were drawn from, at a confidence that
            holds for all figures of the comparison together; NaN where fewer than two groups leave it unknown.
        gained, lost: images on which the second run is better, and worse.
        images, groups: compared images, and independent groups (patients, sequences) among them.
    """

    method: str
    against: str
    metric: str
    where: str
    before: float
    after: float
    low: float
    high: float
    gained: int
    lost: int
    images: int
    groups: int

    @property
    def difference(self) -> float:
        """Of the means."""
        return self.after - self.before


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        before, after: the run folders.
        rows: one a method and radius, or method and class.
        confidence: of all intervals together.
        margin: a loss up to this is none.
        changed: settings that differ, by name, with both values.
        series: the first run's, for tables.
    """

    before: Path
    after: Path
    rows: tuple[Compared, ...]
    confidence: float
    margin: float
    changed: Mapping[str, tuple[Any, Any]]
    series: tuple[Series[Any], ...]

    @property
    def losses(self) -> tuple[Compared, ...]:
        """Figures that fell by more than the margin, beyond what the choice of images explains."""
        return tuple(row for row in self.rows if row.high < -self.margin)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; an unknown interval is null."""
        rows = [asdict(row) | {"difference": row.difference} for row in self.rows]
        return {
            "before": str(self.before),
            "after": str(self.after),
            "confidence": self.confidence,
            "margin": self.margin,
            "changed": {name: list(pair) for name, pair in self.changed.items()},
            "lost": bool(self.losses),
            "rows": [{name: _known(value) for name, value in row.items()} for row in rows],
        }

    def table(self, most: int | None = None) -> Table:
        """For people, in per cent; of labels at most ``most`` radii of those that either run reaches."""
        telling = {f"r={radius:g}" for radius in telling_radii(self.series, most)}
        chosen = [row for row in self.rows if row.where in telling or not row.where.startswith("r=")]
        kept = [row for row in self.rows if row in chosen or row in self.losses]
        columns = [Column("method", left=True), Column("of", left=True)]
        columns += [Column(name) for name in ("before", "after", "difference", "gained", "lost")]
        rows = []
        for row in kept:
            name = row.method if row.method == row.against else f"{row.method}: {row.against}"
            span = DASH if math.isnan(row.low) else f"{_signed(row.low, 'lower')} to {_signed(row.high, 'upper')}"
            cells = [name, row.where, _cent(row.before), _cent(row.after), _signed(row.difference, "nearest")]
            cells += [str(row.gained), str(row.lost)]
            rows.append(Row(self.series[0], name, tuple(cells), ("", "", "", "", span, "", "")))
        first = self.rows[0]
        which = f"{first.images} images" + ("" if first.groups == first.images else f" of {first.groups} groups")
        notes = (
            f"On the same {which} with the same noise; gained, lost: images on which the second run is better, worse. "
            f"Below each difference its interval over the population the images were drawn from; all {len(self.rows)} "
            f"that were compared hold together with {100 * self.confidence:g} % confidence.",
        )
        return Table(f"{first.metric} (%), before and after", tuple(columns), tuple(rows), notes)

    def verdict(self) -> str:
        """One sentence."""
        losses = self.losses
        allowed = "" if self.margin == 0 else f" of more than {100 * self.margin:g} points"
        if losses:
            named = ", ".join(f"{row.against} at {row.where}" for row in losses[:_SHOWN])
            more = f" and {len(losses) - _SHOWN} more" if len(losses) > _SHOWN else ""
            return f"a loss{allowed} is shown: {named}{more}"
        if any(math.isnan(row.high) for row in self.rows):
            return "nothing is shown: one image or group has no interval"
        worst = min(row.low for row in self.rows)
        return f"no loss{allowed} is shown; a loss of {_cent(max(0.0, -worst), 'upper')} points is not ruled out"


def compare(
    before: str | Path,
    after: str | Path,
    *,
    method: str | None = None,
    against: str | None = None,
    radii: Sequence[float] | None = None,
    confidence: float = 0.95,
    margin: float = 0.0,
) -> Comparison:
    """Compare two finished runs, paired: every image with itself under the same noise.

    Of labels: certified accuracy (without labels the share certified) at each radius. Of masks: the guaranteed Dice of
    each class but the first and their mean (without true masks the share of pixels certified). Failed images count
    with 0 in their run. Each interval has the confidence that Bonferroni's correction over all figures needs:
    :func:`certimed.statistics.difference_interval` for labels of independent images, the bootstrap over images or
    groups of :func:`certimed.metrics.mean_interval` for the rest.

    Args:
        before, after: run folders.
        method: label or method of the first run; default all that both runs have.
        against: of the second run; default ``method``.
        radii: of certified accuracy; default the published ones that so many samples can reach at this sigma and alpha.
        confidence: that all intervals hold together.
        margin: a fall of a figure up to this, a share, is no loss.

    Raises:
        InputError: runs on other images, under other noise or of another guarantee (sigma, alpha, target); unfinished
            runs; runs of measurements alone; no common method; an impossible confidence or margin.
    """
    if not (0 < confidence < 1 and 0 <= margin < 1):
        raise InputError(f"confidence={confidence} and margin={margin} must lie in (0, 1) and [0, 1)")
    folders = (RunFolder.open(before), RunFolder.open(after))
    _check(*folders)
    pairs = _pairs(series([before]), series([after]), method, against)
    items = sorted(folders[0].status())
    chosen = _within_reach(pairs) if radii is None else radii
    found = [part for one, other in pairs for part in _values(one, other, items, chosen)]
    level = 1 - (1 - confidence) / len(found)
    rows = tuple(_row(*part, level) for part in found)
    return Comparison(
        folders[0].path, folders[1].path, rows, confidence, margin, _changed(*folders), tuple(sum(pairs, ()))
    )


Pair = tuple[Series[Any], Series[Any]]
Values = tuple[Pair, str, str, NDArray[np.float64], NDArray[np.float64], "list[str] | None"]


def _check(one: RunFolder, other: RunFolder) -> None:
    """Refuse what is no pair."""
    for folder in (one, other):
        section = folder.manifest.get("shard") or folder.manifest.get("data") or {}
        missing = int(section.get("images") or 0) - len(folder.status())
        if missing > 0:
            raise InputError(f"{folder.path} lacks {missing} images; finish it with certimed certify --resume first")
    first, second = (folder.manifest.get("request") or {} for folder in (one, other))
    for name in _SAME:
        was, now = first.get(name), second.get(name)
        if was != now:
            raise InputError(
                f"{one.path} and {other.path} are no pair: {name} is {json.dumps(was)} and {json.dumps(now)}; compare "
                "runs that differ in their model or methods only"
            )
    if one.classes != other.classes:
        raise InputError(f"{one.path} and {other.path} are no pair: their classes differ")
    devices = [_provenance(folder, "device").partition(":")[0] for folder in (one, other)]
    if devices[0] != devices[1]:
        raise InputError(
            f"{one.path} and {other.path} are no pair: {devices[0]} and {devices[1]} draw other noise; certify both on "
            "one kind of device"
        )
    if set(one.status()) != set(other.status()) or _data(one) != _data(other):
        raise InputError(f"{one.path} and {other.path} are no pair: they certify other images, labels or pixels")
    shapes = [dict(_shapes(folder)) for folder in (one, other)]
    for item, shape in shapes[0].items():
        if shape != shapes[1].get(item, shape):
            raise InputError(
                f"{one.path} and {other.path} are no pair: the noise on {item} has the shapes {shape} and "
                f"{shapes[1][item]}; certify both with --space native"
            )


def _data(folder: RunFolder) -> Any:
    return (folder.manifest.get("data") or {}).get("identity")


def _provenance(folder: RunFolder, name: str) -> Any:
    return (folder.manifest.get("provenance") or {}).get(name) or ""


def _shapes(folder: RunFolder) -> Iterator[tuple[str, list[int]]]:
    """Item and shape of the certified space."""
    for _, line in folder.lines():
        data = json.loads(line)
        for certificate in data["certificates"][:1]:
            yield data["item"], certificate["shape"]


def _changed(one: RunFolder, other: RunFolder) -> dict[str, tuple[Any, Any]]:
    """What was asked for otherwise, and whether the model is another one."""
    found = {}
    first, second = (settings_of(folder.manifest).get("request") or {} for folder in (one, other))
    first, second = (
        part | {"model": (folder.manifest.get("request") or {}).get("model")}
        for part, folder in ((first, one), (second, other))
    )
    for name in [*first, *(name for name in second if name not in first)]:
        if first.get(name) != second.get(name):
            found[name] = (first.get(name), second.get(name))
    versions = [dict(_provenance(folder, "versions") or {}) for folder in (one, other)]
    for name in versions[0]:
        if name in versions[1] and versions[0][name] != versions[1][name]:
            found[f"version of {name}"] = (versions[0][name], versions[1][name])
    models = [str((folder.manifest.get("model") or {}).get("identity")) for folder in (one, other)]
    if models[0] != models[1]:
        found["model identity"] = (models[0][:12], models[1][:12])
    return found


def _pairs(
    first: Sequence[Series[Any]], second: Sequence[Series[Any]], method: str | None, against: str | None
) -> list[Pair]:
    kept = [[one for one in side if not one.measured] for side in (first, second)]
    if not all(kept):
        raise InputError("these are runs of measurements, which have no certified accuracy or Dice to compare")
    if method is None and against is not None:
        raise InputError(f"against={against!r:.60} names the method of the second run; name the first one's too")
    if method is None:
        by_label = {other.label: other for other in kept[1]}
        pairs = [(one, by_label[one.label]) for one in kept[0] if one.label in by_label]
    else:
        chosen = [
            [one for one in side if name in (one.label, one.method)]
            for side, name in zip(kept, (method, against or method))
        ]
        pairs = list(zip(*chosen)) if len(chosen[0]) == len(chosen[1]) else []
    if not pairs:
        names = [", ".join(one.label for one in side) for side in kept]
        raise InputError(f"no method is asked for that both runs have: {names[0]}; {names[1]}; name one of each")
    return pairs


def _within_reach(pairs: Sequence[Pair]) -> list[float]:
    """Known from the requests alone, so that no interval pays for a radius that no image could have."""
    specs = [one.spec for pair in pairs for one in pair]
    ceiling = max(float(radius_ceiling(spec.cap, spec.alpha, spec.sigma)) for spec in specs)
    return [radius for radius in PUBLISHED_RADII if radius <= ceiling]


def _values(one: Series[Any], other: Series[Any], items: Sequence[str], radii: Sequence[float]) -> Iterator[Values]:
    """Metric, place and value of each image, in both runs; failed images have the value 0."""
    sides = [_masks(side) if side.masks else _labels(side, radii) for side in (one, other)]
    groups = _groups(one, items)
    for key in [key for key in sides[0] if key in sides[1]]:
        own, its = (np.array([side[key].get(item, 0.0) for item in items]) for side in sides)
        yield (one, other), *key, own, its, groups


def _labels(one: Series[Any], radii: Sequence[float]) -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    metric = SHARE if one.labels is None else ACCURACY
    for record, certificate in zip(one.records, one.certificates):
        right = not certificate.abstained and record.label in (None, certificate.prediction)
        for radius in radii:
            found.setdefault((metric, f"r={radius:g}"), {})[record.item] = float(right and certificate.radius > radius)
    return found


def _masks(one: Series[Any]) -> dict[tuple[str, str], dict[str, float]]:
    items = [record.item for record in one.records]
    if not one.scores:
        return {(SHARE, "pixels"): dict(zip(items, one.tally.shares))}
    classes = len(one.scores[0].per_class[DICE_LOW])
    names = [one.class_name(index) for index in range(classes)]
    columns = score_columns(one.scores, names if len(set(names)) == classes else [f"class {i}" for i in range(classes)])
    wanted = [(name, DICE_LOW) for name, metric in columns if metric == DICE_LOW and name in names[1:]]
    wanted += [(FOREGROUND, DICE_LOW)] if classes > 2 else []
    return {
        (metric, name): dict(zip(items, map(float, columns[name, metric])))
        for name, metric in wanted or [(WHOLE_IMAGE, SHARE_CERTIFIED)]
    }


def _groups(one: Series[Any], items: Sequence[str]) -> list[str] | None:
    """Patient or sequence of each image; None where one is not known, or each image is its own."""
    known = {record.item: record.group for record in (*one.records, *one.failures)}
    found = [known.get(item) for item in items]
    named = [group for group in found if group is not None]
    return named if len(named) == len(found) and len(set(named)) < len(named) else None


def _row(
    pair: Pair,
    metric: str,
    where: str,
    own: NDArray[np.float64],
    its: NDArray[np.float64],
    groups: list[str] | None,
    level: float,
) -> Compared:
    change = its - own
    kept = ~np.isnan(change)  # a class that the truth lacks is left out in both, where that was asked for
    gained, lost, images = int((change > 0).sum()), int((change < 0).sum()), int(kept.sum())
    # Means of numbers from 0 to 1 have an interval: the differences are put there, and back.
    spread = mean_interval((change + 1) / 2, groups, confidence=level)
    low, high = 2 * spread.low - 1, 2 * spread.high - 1
    if metric in (ACCURACY, SHARE) and not pair[0].masks and groups is None and images:
        low, high = difference_interval(gained, lost, images, level)
    means = (float(own[kept].mean()), float(its[kept].mean())) if images else (float("nan"),) * 2
    labels = (pair[0].label, pair[1].label)
    return Compared(*labels, metric, where, *means, low, high, gained, lost, images, spread.groups)


def _cent(value: float, side: Any = "nearest") -> str:
    return DASH if math.isnan(value) else shown(value, side, places=1, scale=100)


def _signed(value: float, side: Any) -> str:
    text = _cent(value, side)
    return f"+{text}" if value >= 0 else text


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
