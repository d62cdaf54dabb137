"""Figures and tables of run folders, each one call: run folders in, one file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from certimed.certificates import MaskCertificate
from certimed.data import MedicalImage
from certimed.engine import DENOISED, Stream, noisy_batches
from certimed.errors import InputError
from certimed.integrity import write_whole
from certimed.noise import NoiseKey
from certimed.report.curves import curve_figure
from certimed.report.forest import forest_figure
from certimed.report.html.pictures import certified_space
from certimed.report.journal import file_format, save, width_in_mm
from certimed.report.panels import ImageExample, MaskExample, image_figure, mask_figure
from certimed.report.series import Series, panels, series
from certimed.report.tables import accuracy_rows, accuracy_table, csv_text, mask_rows, mask_table, telling_radii
from certimed.runs import Record
from certimed.runs.images import Images

if TYPE_CHECKING:
    from certimed.runs import Job

TABLES = (".tex", ".csv")


def draw_curves(
    runs: Sequence[str | Path],
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    by: str = "sigma",
    width: str = "double",
    native: bool = False,
    confidence: float = 0.95,
) -> None:
    """Curves of runs of one kind into a PDF, SVG or PNG, see :func:`certimed.report.curves.curve_figure`.

    Args:
        runs, methods, native: see :func:`certimed.report.series.series`.
        out: the file; its ending says the format.
        by: one panel for each ``"sigma"``, ``"method"`` or ``"run"``.
        width: ``"single"``, ``"double"`` or a number of millimetres.
        confidence: of the bands over images.

    Raises:
        InputError: what cannot be drawn, or a file that cannot be written.
    """
    file_format(Path(out))
    millimetres = width_in_mm(width)
    found = series(runs, methods, native=native)
    save(curve_figure(panels(found, by), width=millimetres, confidence=confidence), Path(out))


def draw_intervals(
    runs: Sequence[str | Path], out: str | Path, methods: Sequence[str] | None = None, *, width: str = "double"
) -> None:
    """Intervals of measurements into a PDF, SVG or PNG, see :func:`certimed.report.forest.forest_figure`.

    Args:
        runs, methods: see :func:`certimed.report.series.series`.
        out: the file; its ending says the format.
        width: ``"single"``, ``"double"`` or a number of millimetres.

    Raises:
        InputError: nothing was measured, or a file that cannot be written.
    """
    file_format(Path(out))
    save(forest_figure(series(runs, methods), width=width_in_mm(width)), Path(out))


def write_table(
    runs: Sequence[str | Path],
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    radii: Sequence[float] | None = None,
    caption: str = "",
    label: str = "",
    native: bool = False,
    confidence: float = 0.95,
) -> None:
    """Results of runs of one kind as LaTeX (booktabs, rounded outwards) or CSV (long form, all digits).

    Args:
        runs, methods, native: see :func:`certimed.report.series.series`.
        out: the file, ``.tex`` or ``.csv``.
        radii: of the columns (CSV: rows); default the published ones up to the largest certified.
        caption, label: of the LaTeX table.
        confidence: of the intervals over images.

    Raises:
        InputError: what has no such table, or a file that cannot be written.
    """
    target = Path(out)
    if target.suffix.lower() not in TABLES:
        raise InputError(f"{target.name} must end in {' or '.join(TABLES)}, which says its format")
    found = series(runs, methods, native=native)
    masks, latex = found[0].masks, target.suffix.lower() == ".tex"
    if masks and (native or radii is not None):
        raise InputError("--native and --radii are of tables of labels; a mask's table has its own radius")
    chosen = [] if masks else list(radii or telling_radii(found))
    if latex:
        made = (
            mask_table(found, confidence=confidence) if masks else accuracy_table(found, chosen, confidence=confidence)
        )
        text = made.latex(caption=caption, label=label)
    else:
        text = csv_text(mask_rows(found, confidence) if masks else accuracy_rows(found, chosen, confidence))
    write_whole(target, lambda stream: stream.write(text))


def draw_images(
    images: Images,
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    items: Sequence[str] | None = None,
    first: int = 4,
    width: str = "double",
) -> None:
    """Some images of a run with what was proved about them, into a PDF, SVG or PNG.

    Args:
        images: the run, and where its images are.
        out: the file; its ending says the format.
        methods: see :func:`certimed.report.series.series`; of labels the first is shown.
        items: ids of the images; default the ``first`` ones.
        width: ``"single"``, ``"double"`` or a number of millimetres.

    Raises:
        InputError: an image that is not in the run or cannot be read, or a file that cannot be written.
    """
    target = Path(out)
    file_format(target)
    millimetres, found = width_in_mm(width), series([images.run], methods)
    one = found[0]
    places = {record.item: index for index, record in enumerate(one.records)}
    if missing := [item for item in items or () if item not in places]:
        raise InputError(
            f"{images.run} has no certificate of an image {missing[0]!r:.80}; give its id as the run has it"
        )
    loaded = images.load(items or list(places)[:first])
    if one.masks:
        rows = [_mask_example(image, {s.label: s.certificates[places[image.id]] for s in found}) for image in loaded]
        save(mask_figure(rows, one.class_names, width=millimetres), target)
    else:
        save(image_figure([_example(one, places[image.id], image) for image in loaded], width=millimetres), target)


def draw_record(job: Job, record: Record, folder: Path) -> list[Path]:
    """One picture for each tau of a segmented image, while its run goes on: image, one noisy copy (and what the
    denoiser makes of it), truth; then the certified mask and radius map of each method.

    Args:
        job: of the run.
        record: of an image without failure.
        folder: of the pictures; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = job.dataset.load(job.dataset.ids.index(record.item))
    prepared = job.prepare(image)
    key = NoiseKey(job.spec.seed, record.item, "evaluation")
    noisy = next(noisy_batches(prepared.pixels, job.engine.law, key, 1, batch_size=1))
    pixels, beside = prepared.pixels, {f"one noisy copy, sigma {job.spec.sigma:g}": noisy[0]}
    if prepared.settings is not None:  # noise is on numbers, of which there is no picture
        pixels, beside = torch.from_numpy(image.pixels), {}
    front: Stream | None = job.engine.streams.get(DENOISED)
    if front is not None and job.denoiser is not None:
        with torch.inference_mode():
            beside["denoised in one step"] = job.denoiser.at(job.spec.sigma).eval()(noisy)[0]  # type: ignore[operator]
    by_tau: dict[float, dict[str, MaskCertificate]] = {}
    for certificate in record.certificates.values():
        if isinstance(certificate, MaskCertificate):  # measurements may stand beside them
            by_tau.setdefault(certificate.tau, {})[certificate.method] = certificate
    drawn = []
    number = job.dataset.ids.index(record.item)
    for tau, own in by_tau.items():
        example = MaskExample(pixels, prepared.truth, own, beside)
        path = folder / f"{number:03d}-sigma-{job.spec.sigma:g}{f'-tau-{tau!r}' * (len(by_tau) > 1)}.png"
        width = 45.0 * (1 + len(beside) + (prepared.truth is not None) + 2 * len(own))
        save(mask_figure([example], job.class_names, width=width), path, dpi=150)
        drawn.append(path)
    return drawn


def _example(one: Series[Any], place: int, image: MedicalImage) -> ImageExample:
    certificate, label = one.certificates[place], one.records[place].label
    truth = None if label is None else one.class_name(label)
    return ImageExample(torch.from_numpy(image.pixels), certificate, one.class_name(certificate.prediction), truth)


def _mask_example(image: MedicalImage, certificates: dict[str, MaskCertificate]) -> MaskExample:
    pixels, truth = certified_space(image, next(iter(certificates.values())))
    return MaskExample(torch.from_numpy(pixels), truth, certificates)
