"""The hook by which a kind of result comes onto the page: one part, one template, one row in ``page.PARTS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from certimed.certificates import NATIVE, Certificate
from certimed.report.html.numbers import percent, plain
from certimed.report.html.pictures import Budget
from certimed.report.html.sources import Run
from certimed.report.html.words import METHODS
from certimed.report.sentences import Sentence, in_short
from certimed.report.series import Series
from certimed.runs.images import Pictures

if TYPE_CHECKING:
    from certimed.report.html.masks import MaskReader


@dataclass(frozen=True)
class Line:
    """One series of one run on the page.

    Attributes:
        key: short name inside the page.
        style: number of its colour.
        run: its run.
        of: the series.
        several: whether the page has several runs, so that a label alone tells nothing apart.
    """

    key: str
    style: int
    run: Run
    of: Series[Any]
    several: bool = False

    @property
    def name(self) -> str:
        """The label, marked where its scope is narrower; tells the series of one run apart."""
        return plain(self.of.name, 80)

    @property
    def short(self) -> str:
        """The label with its noise level."""
        return f"{self.name} · sigma {self.sigma}"

    @property
    def title(self) -> str:
        """What no other series of the page is called: the label with its noise level, and its run where there are
        several."""
        return f"{self.short} · {self.run.name}" if self.several else self.short

    @property
    def sigma(self) -> str:
        """Noise level as shown."""
        return f"{self.of.sigma:g}"

    @property
    def why(self) -> str:
        """What the method is, where the project has words for it."""
        return METHODS.get(self.of.kind, "")

    def read(self) -> Sequence[Certificate[Any]]:
        """Its certificates; of those whose arrays are read from disk, the first alone."""
        return [self.of.first] if self.of.masks else self.of.certificates


@dataclass(frozen=True)
class Material:
    """What the parts of a page are made of, read once.

    Attributes:
        runs: the run folders.
        lines: their series, in the order of runs and labels.
        pictures: the images of each run, by its number.
        budget: bytes that the page may still spend on pictures.
        masks: what was read of the pixels of each run of masks, by its number.
    """

    runs: Sequence[Run]
    lines: Sequence[Line]
    pictures: Mapping[int, Pictures]
    budget: Budget
    masks: Mapping[int, MaskReader]

    def of(self, *kinds: str) -> list[Line]:
        """The series whose claims are of these kinds."""
        return [line for line in self.lines if line.of.first.claim.kind in kinds]


class Part:
    """One part of the page: what a kind of result adds to it.

    A kind of result comes onto the page by a subclass, its template, which sees the part as ``part``, and a row in
    :data:`certimed.report.html.page.PARTS`. Everything but :meth:`of` has a default.

    Attributes:
        template: file in ``report/templates``.
        contents: id and words of each section, for the table of contents.
        lines, runs: its series, and those of each run.
        scripts: files in ``report/templates`` that the part needs besides ``common.js``.
        comparable: whether the radii of its series can be compared with each other.
        pictures: number of images that it shows.
    """

    template: ClassVar[str]
    contents: ClassVar[tuple[tuple[str, str], ...]]
    scripts: ClassVar[tuple[str, ...]] = ()
    comparable: bool = True
    pictures: int = 0

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        self.runs = by_run(lines)

    @classmethod
    def of(cls, material: Material) -> Part | None:
        """The part, or None where the page has nothing of its kind."""
        raise NotImplementedError

    def headlines(self) -> dict[int, Sentence]:
        """One sentence a run, by the run's number."""
        return {own[0].run.index: in_short([line.of for line in own]) for own in by_run(self.lines)}

    def samples(self) -> list[str]:
        """How samples decided, in sentences."""
        return []

    def notes(self) -> list[str]:
        """What a person should know before reading on, in sentences."""
        return []

    def worked(self) -> list[dict[str, Any]]:
        """Radii, drawn; see :func:`certimed.report.html.pictures.worked_example`."""
        return []

    def data(self) -> dict[str, Any]:
        """Data for the page's scripts, by the id of the element that holds it."""
        return {}


def by_run(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each run."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.run.index, []).append(line)
    return list(found.values())


def run_title(own: Sequence[Line]) -> str:
    """A run with its noise level."""
    return f"{own[0].run.name}, sigma {own[0].sigma}" + ", at native resolution" * (own[0].of.space == NATIVE)


def grey_levels(lines: Sequence[Line]) -> float | None:
    """RMS grey levels of radius 1, where all inputs have one size."""
    values = {one.units().values for line in lines for one in line.read() if one.about.settings is None}
    return 255 / values.pop() ** 0.5 if len(values) == 1 else None


def shares(parts: Sequence[tuple[str, str, float]], total: float) -> list[dict[str, Any]]:
    """The pieces of a bar, from (kind, name, count); certified ones are rounded down."""
    return [
        {
            "kind": kind,
            "name": name,
            "share": count / total,
            "text": percent(count / total, side="lower" if kind in ("right", "certified") else "nearest"),
        }
        for kind, name, count in parts
        if count
    ]
