"""The work behind ``certimed reproduce segmentation``: method by sigma, in the paper's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from certimed.cli import segment
from certimed.cli.console import out, printable
from certimed.data import DEFAULT_READ, Dataset, open_dataset
from certimed.errors import InputError
from certimed.presets import SEGMENTATION_PROTOCOL, SegmentationPreset, cvc_sequence, segmentation_preset, split_images
from certimed.report.mask_tables import mask_latex, mask_rows
from certimed.report.tables import csv_text
from certimed.runs import FAILED, MaskRecord, MaskSettings, RunFolder
from certimed.statistics import radius_from_lower

SPLITS = ("published", "leak-free")


def reproduce(
    *,
    dataset: str,
    model: str,
    denoiser: str | None,
    data_root: Path,
    folder: Path,
    split: str,
    sigmas: Sequence[float] | None,
    n: int | None,
    limit: int | None,
    output: str | None,
    device: str,
    seed: int,
    allow_code: bool = False,
) -> int:
    """Certify the test part at every sigma, print the table, write it as CSV and LaTeX; returns the failed images."""
    preset = segmentation_preset(dataset)
    protocol = SEGMENTATION_PROTOCOL
    test = open_test_part(preset, data_root, split)
    job = segment.prepare(
        model=model,
        denoiser=denoiser,
        methods=None,
        dataset=test,
        limit=limit,
        device=device,
        class_names=preset.class_names,
        num_classes=len(preset.class_names),
        output=output,
        allow_code=allow_code,
    )
    settings = segment.checked(
        MaskSettings(
            sigma=protocol.sigmas[0],
            n0=protocol.n0,
            n=n or protocol.n,
            tau=protocol.tau,
            alpha=protocol.alpha,
            correction=protocol.correction,
            seed=seed,
            size=preset.size,
        )
    )
    runs: dict[float, list[MaskRecord]] = {}
    for sigma in sigmas or protocol.sigmas:
        runs[sigma] = _certify(job, replace(settings, sigma=sigma), folder / f"sigma-{sigma:g}")
    segment.print_masks(runs, job, settings)
    write_tables(runs, job, settings, preset, split, folder)
    out.print(f"table.csv, table.tex and a run folder for each sigma are in {printable(str(folder))}", highlight=False)
    return sum(record.status == FAILED for records in runs.values() for record in records)


def open_test_part(preset: SegmentationPreset, root: Path, split: str) -> Dataset:
    """The test images of a published data set with their masks.

    Raises:
        InputError: a layout that does not fit; the sentence says what was expected and what was found.
    """
    images, masks = (_subfolder(root, names, preset) for names in (preset.images, preset.masks))
    whole = open_dataset(images, masks=masks, classes=preset.class_names, options=DEFAULT_READ)
    if len(whole) != preset.images_expected:
        out.print(f"{preset.title} has {preset.images_expected} images; here are {len(whole)}", highlight=False)
    rule = preset.published_split if split == "published" else preset.leak_free_split
    groups = [cvc_sequence(item) for item in whole.ids] if rule.by == "sequence" else None
    part = whole.subset(split_images(whole.ids, rule, groups).test)
    if groups is None:
        return part
    return replace(part, items=tuple(replace(item, group=str(cvc_sequence(item.id))) for item in part.items))


def _subfolder(root: Path, names: Sequence[str], preset: SegmentationPreset) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = ", ".join(sorted(path.name for path in root.iterdir())[:12]) if root.is_dir() else "no such folder"
    raise InputError(
        f"--data-root {root} has no folder {' or '.join(names)}: expected for {preset.name} are images and masks of "
        f"the same names in {' or '.join(preset.images)} and {' or '.join(preset.masks)}; found {found}"
    )


def _certify(job: segment.Job, settings: MaskSettings, folder: Path) -> list[MaskRecord]:
    """One run folder a sigma, gone on with where it exists."""
    about = segment.manifest(job, settings)
    with RunFolder.create_or_resume(folder, about) as target:
        segment.certify(job, settings, target)
        return list(target.mask_records())


def write_tables(
    runs: dict[float, list[MaskRecord]],
    job: segment.Job,
    settings: MaskSettings,
    preset: SegmentationPreset,
    split: str,
    folder: Path,
) -> None:
    """``table.csv`` (long form: every class and metric with its interval) and ``table.tex`` (method by sigma)."""
    radius = {sigma: float(radius_from_lower(settings.taus[0], sigma)) for sigma in runs}
    found = {
        (method, sigma, radius[sigma]): segment.summarise(done, method, job.class_names)
        for method in job.methods
        for sigma, records in runs.items()
        if (done := [record for record in records if method in record.scores])
    }
    if not found:
        return
    (folder / "table.csv").write_text(csv_text(mask_rows(found)), encoding="utf-8")
    caption = f"{preset.title}: certified segmentation, {split} split, foreground mean over images."
    table = mask_latex(found, caption=caption, label=f"tab:{preset.name}")
    (folder / "table.tex").write_text(table, encoding="utf-8")
