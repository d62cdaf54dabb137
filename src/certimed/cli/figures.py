"""The work behind ``certimed figure``: run folders in, one file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from certimed.certificates import NATIVE, PROMPT_FROZEN
from certimed.data import MedicalImage
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, ClassificationSummary, MaskSummary
from certimed.report.curves import accuracy_figure, share_figure
from certimed.report.html.sources import find_pictures, open_runs
from certimed.report.journal import file_format, save, width_in_mm
from certimed.report.mask_tables import mask_latex, mask_rows
from certimed.report.panels import ImageExample, MaskExample, image_figure, mask_figure
from certimed.report.results import CLASSIFY, ClassSeries, MaskSeries, class_series, mask_series, task_of
from certimed.report.results import panels as sorted_panels
from certimed.report.tables import accuracy_latex, accuracy_rows, csv_text
from certimed.runs import RunFolder
from certimed.runs.segmentation import prepare

TABLES = (".tex", ".csv")


def names(text: str | None) -> list[str] | None:
    """``--method``: names by commas, or None for all."""
    return None if text is None else [name.strip() for name in text.split(",")]


def curve(
    runs: Sequence[Path],
    target: Path,
    methods: Sequence[str] | None,
    *,
    by: str,
    width: str,
    native: bool,
    confidence: float,
) -> None:
    """Curves of runs of one task into a figure file."""
    file_format(target)
    millimetres = width_in_mm(width)
    if task_of(runs) == CLASSIFY:
        series = class_series(runs, methods, native=native)
        figure = accuracy_figure(
            sorted_panels(series, by, lambda one: one.curve()),
            width=millimetres,
            confidence=confidence,
            where=_where({c.space for one in series for c in one.certificates}),
        )
    else:
        masks = mask_series(runs, methods, native=native)
        spaces = {NATIVE} if native else {c.space for one in masks for c in one.certificates}
        figure = share_figure(
            sorted_panels(masks, by, lambda one: one.radius_maps(native=native)),
            width=millimetres,
            confidence=confidence,
            where=_where(spaces),
        )
    save(figure, target)


def _where(spaces: set[str]) -> str:
    return "[0, 1] units, native resolution" if spaces == {NATIVE} else "[0, 1] units"


def table(
    runs: Sequence[Path],
    target: Path,
    methods: Sequence[str] | None,
    *,
    radii: Sequence[float] | None,
    caption: str,
    label: str,
    native: bool,
    confidence: float,
) -> None:
    """A LaTeX or CSV table of runs of one task."""
    if target.suffix.lower() not in TABLES:
        raise InputError(f"{target.name} must end in {' or '.join(TABLES)}, which says its format")
    latex = target.suffix.lower() == ".tex"
    if task_of(runs) == CLASSIFY:
        series = class_series(runs, methods, native=native)
        summaries, marks = _accuracy(series, radii or _telling_radii(series), confidence)
        if latex:
            text = accuracy_latex(summaries, caption=caption, label=label, marks=marks)
        else:
            text = csv_text(accuracy_rows(summaries))
    else:
        if native or radii is not None:
            raise InputError("--native and --radii are of classification tables; a mask's table has its own radius")
        found = _masks(mask_series(runs, methods), confidence)
        text = mask_latex(found, caption=caption, label=label) if latex else csv_text(mask_rows(found))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror})") from error


def _telling_radii(series: Sequence[ClassSeries]) -> list[float]:
    """The published radii, up to the first at which nothing is certified any more."""
    largest = max(certificate.radius for one in series for certificate in one.certificates)
    below = sum(radius < largest for radius in PUBLISHED_RADII)
    return list(PUBLISHED_RADII[: below + 1])


def _accuracy(
    series: Sequence[ClassSeries], radii: Sequence[float], confidence: float
) -> tuple[dict[tuple[float, str], ClassificationSummary], dict[str, str]]:
    """Summaries by sigma and method (and run, where that alone tells them apart), and LaTeX behind frozen methods."""
    several = len({(one.sigma, one.method) for one in series}) < len(series)
    summaries, marks = {}, {}
    for one in sorted(series, key=lambda one: one.sigma):
        title = f"{one.run}: {one.method}" if several else one.method
        summaries[one.sigma, title] = one.summary(radii, confidence)
        if any(certificate.scope == PROMPT_FROZEN for certificate in one.certificates):
            marks[title] = "$^*$"
    return summaries, marks


def _masks(series: Sequence[MaskSeries], confidence: float) -> dict[tuple[str, float, float], MaskSummary]:
    several = len({(one.method, one.sigma) for one in series}) < len(series)
    found = {}
    for one in sorted(series, key=lambda one: (one.method, one.sigma)):
        if (summary := one.summary(confidence)) is not None:
            title = f"{one.run}: {one.method}" if several else one.method
            found[title, one.sigma, one.certificates[0].radius] = summary
    if not found:
        raise InputError("no run has scores against true masks; certify a data set with masks")
    return found


@dataclass(frozen=True)
class Images:
    """Where the images of a run are read from: the manifest's place, unless another is named."""

    run: Path
    data: Path | None = None
    masks: Path | None = None
    labels: Path | None = None
    split: str | None = None

    def load(self, items: Sequence[str]) -> list[MedicalImage]:
        """The images of these ids.

        Raises:
            InputError: one cannot be found or read.
        """
        (run,) = open_runs([self.run], verify=False)
        pictures = find_pictures(run, items, self.data, labels=self.labels, masks=self.masks, split=self.split)
        loaded = []
        for item in items:
            image = pictures.load(item)
            if image is None:
                note = pictures.note or "it cannot be read"
                raise InputError(f"the image {item!r:.80} of {self.run} cannot be shown: {note}")
            loaded.append(image)
        return loaded


def panels(
    images: Images, target: Path, methods: Sequence[str] | None, *, items: Sequence[str] | None, first: int, width: str
) -> None:
    """Some images of a run with what was proved about them, into a figure file."""
    file_format(target)
    millimetres, folder = width_in_mm(width), RunFolder.open(images.run)
    if task_of([images.run]) == CLASSIFY:
        figure = image_figure(_class_examples(images, folder, methods, items, first), width=millimetres)
    else:
        series = mask_series([images.run], methods)
        examples = _mask_examples(images, series, items, first)
        figure = mask_figure(examples, series[0].class_names, width=millimetres)
    save(figure, target)


def _class_examples(
    images: Images, folder: RunFolder, methods: Sequence[str] | None, items: Sequence[str] | None, first: int
) -> list[ImageExample]:
    """Examples of the first method asked for."""
    (series, *_) = class_series([images.run], methods)
    labels = series.labels or (None,) * len(series.certificates)
    classes = folder.manifest.get("classes")
    words = [str(name) for name in classes] if isinstance(classes, list) else []
    places = {certificate.item: index for index, certificate in enumerate(series.certificates)}

    def name(index: int | None) -> str | None:
        return None if index is None else words[index] if index < len(words) else f"class {index}"

    return [
        ImageExample(
            torch.from_numpy(image.pixels),
            series.certificates[places[image.id]],
            name(series.certificates[places[image.id]].prediction) or "",
            name(labels[places[image.id]]),
        )
        for image in images.load(_chosen(items, list(places), first, images.run))
    ]


def _mask_examples(
    images: Images, series: Sequence[MaskSeries], items: Sequence[str] | None, first: int
) -> list[MaskExample]:
    places = {certificate.item: index for index, certificate in enumerate(series[0].certificates)}
    examples = []
    for image in images.load(_chosen(items, list(places), first, images.run)):
        found = {one.method: one.certificates[places[image.id]] for one in series}
        channels, *size = series[0].certificates[places[image.id]].shape
        pixels, truth = prepare(image, 1 if channels == 1 else None, (size[0], size[1]))
        examples.append(MaskExample(pixels, truth, found))
    return examples


def _chosen(items: Sequence[str] | None, known: Sequence[str], first: int, run: Path) -> Sequence[str]:
    missing = [item for item in items or () if item not in known]
    if missing:
        raise InputError(f"{run} has no certificate of an image {missing[0]!r:.80}; give its id as the run has it")
    return items or known[:first]
