"""One sentence a run that cannot mislead: what holds of the fewest comes first, and what is not proved is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from certimed.budgets import Fixed, LookBudget, parse_budget
from certimed.certificates import END_TO_END, SETTINGS, ClassClaim, IntervalClaim, MaskClaim, shown
from certimed.metrics.measured import interval_rows
from certimed.metrics.segmentation import DICE_LOW, FOREGROUND
from certimed.report.series import Series
from certimed.report.tables import bound, per_cent

_MOST = 3
_NARROWER = "; what is proved of a part held fixed, or of a method chosen, at the image (marked * or †) is not counted"


@dataclass(frozen=True)
class Sentence:
    """What a reader must know who reads one sentence.

    Attributes:
        text: the sentence, without its full stop.
        alarm: it says that nothing, or nothing that matters, is proved.
    """

    text: str
    alarm: bool = False


def in_short(series: Sequence[Series[Any]]) -> Sentence:
    """The sentence of one run, from its series of one kind of certificates; a kind without words of its own is told by
    how many images have something proved."""
    return SENTENCES.get(series[0].first.claim.kind, _any)(series)


def join(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _change(one: Series[Any]) -> str:
    """What an attacker may do, in a word."""
    return "change of the settings" if one.space == SETTINGS else "change"


def _any(series: Sequence[Series[Any]]) -> Sentence:
    counted, narrower = _whole(series)
    counts = [sum(not one.abstained for one in own.certificates) for own in counted]
    most = f"{counts[0]}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    text = f"Something is proved about {most} of {_images(series[0].images)}, under every {_change(series[0])} shorter"
    return Sentence(f"{text} than the radius of each{narrower}", not max(counts))


def _whole(series: Sequence[Series[Any]]) -> tuple[Sequence[Series[Any]], str]:
    """The series that cover the whole pipeline, where there is one, and what is to be said of the others."""
    found = [one for one in series if one.scopes <= {END_TO_END}]
    return (found, _NARROWER) if found and len(found) < len(series) else (series, "")


def _labels(series: Sequence[Series[Any]]) -> Sentence:
    counted, narrower = _whole(series)
    labels, images = series[0].labels, series[0].images
    proved = [_proved(one) for one in counted]
    counts = [len(own) for own in proved]
    what = "answered correctly, and provably" if labels else "given an answer that provably"
    if not max(counts):
        right = "the right answer" if labels else "an answer"
        return Sentence(f"Not one of {_images(images)} has {right} with a proved radius{narrower}", True)
    stays = "stay so" if labels else "stays the same"
    spread = (
        f"{counts[0]} of {_images(images)} ({per_cent(counts[0] / images, side='lower')} %)"
        if min(counts) == max(counts)
        else f"Between {min(counts)} ({counted[counts.index(min(counts))].name}) and {max(counts)} "
        f"({counted[counts.index(max(counts))].name}) of {_images(images)}"
    )
    radii = [c.radius for own in proved for c in own]
    text = f"{spread} are {what} {stays} under every {_change(series[0])} shorter than their radius (median "
    text += f"{shown(median(radii), 'lower', places=3)})"
    if labels:
        wrong = [sum(not c.abstained for c in one.certificates) - count for one, count in zip(counted, counts)]
        most = f"{max(wrong)}" if min(wrong) == max(wrong) else f"{min(wrong)} to {max(wrong)}"
        text += f"; {most} more are proved to stay wrong" if max(wrong) else ""
    else:
        text += "; whether it is right is not known"
    return Sentence(text + _lost(series[0], proved) + narrower)


def _proved(one: Series[Any]) -> list[Any]:
    """Certificates that prove something, and where labels are known, of the right class."""
    labels = one.labels or [c.prediction for c in one.certificates]
    return [c for c, label in zip(one.certificates, labels) if not c.abstained and c.prediction == label]


def _lost(one: Series[Any], proved: Sequence[Sequence[Any]]) -> str:
    """Classes of which no image is rightly certified by any method."""
    known = {record.label for record in (*one.records, *one.failures) if record.label is not None}
    lost = sorted(known - {c.prediction for own in proved for c in own}) if one.labels else []
    return f"; of {join([one.class_name(index) for index in lost])} not one image is" if lost else ""


def _masks(series: Sequence[Series[Any]]) -> Sentence:
    counted, narrower = _whole(series)
    found = [_Kept.of(one) for one in counted]
    if not any(one.front for one in found):
        dice = "" if found[0].dice is None else " and its guaranteed Dice is 0"
        share = min(sum(one.tally.shares) / one.images for one in counted)
        background = f"the {per_cent(share, side='lower')} % of all pixels that are proved are of the background"
        return Sentence(f"Nothing of the foreground is proved{dice}: {background}{narrower}", True)
    told = found
    if len(found) > _MOST:
        ordered = sorted(found, key=lambda one: (one.dice or 0.0, one.front))
        told = [ordered[0], ordered[-1]]
    clauses = [one.clause(before, named=len(series) > 1) for before, one in zip([None, *told], told)]
    between = f"; {len(found) - 2} more series lie between" if len(found) > _MOST else ""
    nothing = found[0].dice is not None and not any(one.dice for one in found)
    return Sentence("; ".join(clauses) + between + narrower, nothing)


@dataclass(frozen=True)
class _Kept:
    """What is guaranteed of the masks of a series: mean Dice of the foreground (None without truth), and the share of
    the pixels answered as foreground that is certified."""

    of_series: Series[Any]
    dice: float | None
    front: float

    @classmethod
    def of(cls, one: Series[Any]) -> _Kept:
        answered, kept = one.tally.foreground
        found = one.dice()
        dice = None if found is None else found[FOREGROUND, DICE_LOW].mean
        return cls(one, dice, kept / answered if answered else 0.0)

    def clause(self, before: _Kept | None, *, named: bool) -> str:
        """What holds, in a sentence's words; short where one stands before it."""
        radius, front = shown(self.of_series.first.radius, "lower", places=3), per_cent(self.front, side="lower")
        name = f" ({self.of_series.name})" if named else ""
        dice = "" if self.dice is None else bound(self.dice, "lower")
        if before is not None:
            same = before.of_series.first.radius == self.of_series.first.radius
            return f"{'' if same else f'shorter than {radius}: '}{f'at least {dice}, ' if dice else ''}{front} %{name}"
        mean = f"the foreground's mean Dice is at least {dice}, and " if dice else ""
        whose = "of the pixels answered as foreground are proved to keep their class"
        return f"Under every {_change(self.of_series)} shorter than {radius} {mean}{front} % {whose}{name}"


def _intervals(series: Sequence[Series[Any]]) -> Sentence:
    parts, finite = [], 0
    for one in series:
        rows = [row for row in interval_rows(one.certificates) if row["radius"] == one.first.radii[-1]]
        for row in rows:
            finite += row["finite"]
            name = row["measurement"] if len(series) == 1 else f"{row['measurement']} ({one.name})"
            if not row["finite"]:
                parts.append(f"no interval of {name} has two ends")
                continue
            unit = f" {row['unit']}" if row["unit"] else ""
            text = f"{name} of {row['finite']} of {_images(one.images)} stays in an interval"
            text += f" {shown(row['width'], 'upper', digits=3)}{unit} wide (mean; mean value {row['median']:.4g}{unit})"
            if row["threshold"] is not None:
                text += f", proved below {row['threshold']:g} for {row['below']}, above it for {row['above']}"
            parts.append(text)
    radius = shown(series[0].first.radii[-1], "lower", digits=4)
    return Sentence(
        f"Under every {_change(series[0])} shorter than {radius}, as a median under noise: {'; '.join(parts)}",
        not finite,
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


SENTENCES: dict[str, Callable[[Sequence[Series[Any]]], Sentence]] = {
    ClassClaim.kind: _labels,
    MaskClaim.kind: _masks,
    IntervalClaim.kind: _intervals,
}
"""Kind of certificates to the sentence of a run."""


def clumps(series: Sequence[Series[Any]]) -> list[str]:
    """Why radii clump at some values, one sentence a budget: medians and histograms show it, and not the images."""
    said = []
    for one in series:
        budget = parse_budget(one.first.budget)
        radii = budget.reported_radii if isinstance(budget, LookBudget) else ()
        if radii:
            asked = "on which side of the radius " if len(radii) == 1 else "between which of the radii "
            listed = join([f"{radius:g}" for radius in radii])
            said.append(
                f"Radii clump: the budget {budget} stops as soon as it is known {asked}{listed} an image lies, and "
                "proves little more. Medians and histograms show this grid; the true radii are at least as large."
            )
        elif isinstance(budget, Fixed) and one.first.claim.kind == ClassClaim.kind:
            most = max(c.radius for c in one.certificates)
            ceiling = sum(c.radius == most for c in one.certificates if not c.abstained)
            if ceiling > 1:
                said.append(
                    f"Radii end at {shown(most, 'lower', places=3)} for {ceiling} images of {one.name}: {budget.n} "
                    "samples that all agree prove no more; more samples may."
                )
    return list(dict.fromkeys(said))
