"""A calibration: what scores of labelled images prove about sets, or masks, of new ones; one small JSON file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from certimed.certificates import SetClaim, shown
from certimed.certificates.fields import Fields
from certimed.certificates.words import EXCHANGEABLE
from certimed.errors import InputError
from certimed.integrity import digest, strict_json, write_whole
from certimed.noise import NoiseLaw, law_from_dict
from certimed.runs.folder import MANIFEST
from certimed.statistics import SCORE_NAMES, images_needed, quantile_index, robust_level

CALIBRATION_SCHEMA = "certimed/calibration/1"
SAME = ("sigma", "noise", "space", "size", "templates", "tuning", "output", "normalise", "speed")
"""Fields of a request in which a run must agree with its calibration."""


@dataclass(frozen=True)
class Calibration:
    """Scores of calibration images, and the thresholds that they prove.

    Attributes:
        kind: ``"set"``: sets of classes.
        score: of the classes, one of :data:`certimed.statistics.SCORE_NAMES`.
        alpha: probability with which a set may miss the true class, under attack.
        radii: L2, rising; each has a threshold of its own.
        class_conditional: whether every class has its own thresholds, and alpha holds within each class.
        labels: class of each unit.
        scores: of the true class on the one noisy copy of each unit, in the same order.
        values: pixels times channels of the largest image.
        variation: what is paid for the noise law's distance from the exact one, see
            :mod:`certimed.statistics.conformal`.
        content: content ids of all images of the calibration data, sorted: none may be a test image.
        group: pattern that reads an image's group off its id, None: groups are those the data names, if any.
        groups: digests of all groups, sorted: no test image may be of one; empty where images are the units.
        left_out: images that are no unit, by cause.
        run: model, methods, data and request as in a run's manifest.
    """

    kind: str
    score: str
    alpha: float
    radii: tuple[float, ...]
    class_conditional: bool
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    values: int
    variation: float
    content: tuple[str, ...]
    group: str | None
    groups: tuple[str, ...]
    left_out: dict[str, int]
    run: dict[str, Any]

    def __post_init__(self) -> None:
        if self.kind != SetClaim.kind or self.score not in SCORE_NAMES:
            raise InputError(f"a calibration of kind {self.kind!r:.40} and score {self.score!r:.40} is unknown")
        if len(self.labels) != len(self.scores) or not set(self.labels) <= set(range(self.num_classes)):
            raise InputError(f"{len(self.labels)} labels and {len(self.scores)} scores are not of one calibration")

    @property
    def m(self) -> int:
        """Units: images, or groups of which one image each was drawn."""
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """K."""
        found = self.run.get("classes")
        return len(found) if isinstance(found, list) else 0

    @property
    def request(self) -> dict[str, Any]:
        """The request that scored the calibration images, as data."""
        found = self.run.get("request")
        return dict(found) if isinstance(found, dict) else {}

    @cached_property
    def content_set(self) -> frozenset[str]:
        """The content ids, to look one up."""
        return frozenset(self.content)

    @property
    def law(self) -> NoiseLaw:
        """The noise."""
        return law_from_dict(self.run["law"])

    @property
    def method(self) -> dict[str, Any]:
        """The one method, as manifests record it."""
        (found,) = self.run["methods"]
        return dict(found)

    def levels(self) -> tuple[float, ...]:
        """For each radius: the level at which its threshold is chosen."""
        return tuple(robust_level(self.alpha, radius, self.law.sigma, self.variation) for radius in self.radii)

    @cached_property
    def thresholds(self) -> tuple[tuple[float, ...], ...]:
        """For each radius and class: the largest score that is in the set.

        Raises:
            InputError: too few images (of a class); the message says how many would do.
        """
        found = []
        for level in self.levels():
            if not self.class_conditional:
                own = sorted(self.scores)
                found.append((own[quantile_index(self.m, level) - 1],) * self.num_classes)
                continue
            row = []
            for label in range(self.num_classes):
                own = sorted(score for score, its in zip(self.scores, self.labels) if its == label)
                row.append(own[index_of_class(len(own), level, self.run["classes"][label]) - 1])
            found.append(tuple(row))
        return tuple(found)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that is recorded; certificates carry it."""
        return digest(self._recorded())

    def _recorded(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "run"}
        lists = {name: list(value) for name, value in parts.items() if isinstance(value, tuple)}
        thresholds = [list(row) for row in self.thresholds]
        return {"schema": CALIBRATION_SCHEMA, **parts, **lists, "thresholds": thresholds, "run": self.run}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, what it proves and assumes in words last."""
        return {**self._recorded(), "statement": self.statement()}

    @classmethod
    def from_dict(cls, data: object) -> Calibration:
        """Inverse of :meth:`to_dict`; InputError names what is wrong, thresholds that its scores do not give too."""
        fields = Fields(data, "calibration")
        fields.expect("schema", CALIBRATION_SCHEMA)
        counts = Fields(fields.mapping("left_out"), "images left out")
        found = cls(
            kind=fields.string("kind"),
            score=fields.string("score"),
            alpha=fields.number("alpha"),
            radii=fields.numbers("radii"),
            class_conditional=fields.boolean("class_conditional"),
            labels=fields.integers("labels"),
            scores=fields.numbers("scores"),
            values=fields.integer("values"),
            variation=fields.number("variation"),
            content=_texts(fields, "content"),
            group=fields.optional_string("group"),
            groups=_texts(fields, "groups"),
            left_out={name: counts.integer(name) for name in counts.data},
            run=fields.mapping("run"),
        )
        if fields.get("thresholds") != [list(row) for row in found.thresholds]:
            raise InputError("the thresholds of the calibration are not those that its scores give; calibrate again")
        return found

    def save(self, path: str | Path) -> Path:
        """Write the JSON file."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        write_whole(Path(path), lambda stream: stream.write(text))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote, or the calibration that a run folder holds.

        Raises:
            InputError: there is none, or a broken one.
        """
        place = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
        try:
            found = strict_json(place.read_text(encoding="utf-8"), str(place))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the calibration {path} cannot be read ({error}); make one: certimed calibrate"
            ) from error
        return cls.from_dict(found.get("calibration") if Path(path).is_dir() else found)

    def check_run(self, request: Mapping[str, Any], methods: list[dict[str, Any]], classes: tuple[str, ...]) -> None:
        """Refuse a run that differs from what was calibrated.

        Args:
            request: of the run, as data.
            methods: as its manifest records them.
            classes: their names.

        Raises:
            InputError: names the field, and both values.
        """
        told: list[tuple[str, Any, Any]] = [(name, self.request.get(name), request.get(name)) for name in SAME]
        was, now = (dict(one.get("data") or {}).get("reading") for one in (self.request, request))
        told += [("reading", was, now)]
        told += [("alpha", self.alpha, request.get("alpha")), ("number of methods", 1, len(methods))]
        told += [("model", self.method["identity"], methods[0]["identity"])]
        told += [("classes", list(self.run["classes"]), list(classes))]
        for name, was, now in told:
            if was != now:
                raise InputError(f"{name} {now!r:.80} is not the calibration's {was!r:.80}; calibrate anew")

    def group_of(self, item: str, named: str | None) -> str | None:
        """The digest of an image's group, None where it has none."""
        return group_digest(group_name(self.group, item, named))

    def statement(self) -> str:
        """What thresholds from these images are good for, and on what assumption."""
        units = "groups, one image of each" if self.groups else "images"
        within = ", within each class" if self.class_conditional else ""
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        return (
            f"{self.m} calibration {units}, one noisy copy each (Gaussian, sigma {self.law.sigma:g}; score "
            f"{self.score.upper()}). A set of one new image misses its true class with probability at most "
            f"{shown(self.alpha, 'upper', digits=3)}{within}, over calibration images, the new image and noise, "
            f"whatever an attack of L2 norm below the radius does (radii {radii}, each by itself). {EXCHANGEABLE}"
        )


def index_of_class(m: int, level: float, name: str) -> int:
    """Which sorted score of a class is its threshold; InputError names the class that has too few images."""
    try:
        return quantile_index(m, level) if m else quantile_index(1, 0.0)
    except InputError:
        needed = images_needed(level)
        raise InputError(
            f"class {name} has {m} calibration images, too few at level {level:.6g}: "
            + (f"{needed} are needed of every class" if needed else "no number is enough; ask for a smaller radius")
        ) from None


def group_name(pattern: str | None, item: str, named: str | None) -> str | None:
    """Group of an image: what the pattern's first bracket finds in its id, or what the data names."""
    if pattern is None:
        return named
    found = re.search(pattern, item)
    if found is None:
        raise InputError(f"--group {pattern!r:.80} finds nothing in {item!r:.120}; write a pattern that fits every id")
    return found.group(1)


def group_digest(name: str | None) -> str | None:
    """A group's name, hashed: calibrations hold no patient's id."""
    return None if name is None else hashlib.sha256(f"certimed-group\0{name}".encode()).hexdigest()


def check_pattern(pattern: str | None) -> None:
    """Raise InputError unless it is a regular expression with one bracket."""
    try:
        good = pattern is None or re.compile(pattern).groups == 1
    except re.error:
        good = False
    if not good:
        raise InputError(f"--group {pattern!r:.80} is no regular expression with one bracket, e.g. '-([0-9]+)-'")


def digest_of(calibration: Mapping[str, Any]) -> str:
    """What :attr:`Calibration.digest` gives, of a calibration's JSON."""
    return digest({name: value for name, value in calibration.items() if name != "statement"})


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    found = fields.get(name)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"field {name!r} of the calibration must be a list of strings")
    return tuple(found)
