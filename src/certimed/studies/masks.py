"""Certified segmentation (Laousy et al., MICCAI 2023) on a published data set, with and without a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from certimed.engine import DENOISED, PLAIN
from certimed.errors import InputError
from certimed.runs import DataSpec, MaskTarget, RunSpec, Silent, Watcher
from certimed.studies.mask_presets import (
    PROTOCOL,
    SegmentationPreset,
    SegmentationProtocol,
    segmentation_preset,
)
from certimed.studies.splits import cvc_sequence, split_images
from certimed.studies.study import Study, run_study

SPLITS = ("published", "leak-free")


def segmentation(
    dataset: str,
    model: str,
    data: str | Path,
    out: str | Path,
    *,
    denoiser: str | None = None,
    protocol: SegmentationProtocol = PROTOCOL,
    split: str = "published",
    images: int | None = None,
    output: str | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 1,
    allow_code: bool = False,
    watcher: Watcher | None = None,
) -> Study:
    """Certify the test part at every sigma, write run folders and the table.

    Called again with the same arguments, it goes on where it stopped.

    Args:
        dataset: name of a preset, see :func:`certimed.studies.segmentation_preset`.
        model: see :func:`certimed.segmenters.load_segmenter`.
        data: folder of the data set.
        out: folder of the study.
        denoiser: in front of the network, as a second method.
        protocol: the published settings, or what was changed of them with :func:`dataclasses.replace`.
        split: ``"published"`` or ``"leak-free"``.
        images: the first so many test images only.
        output: what the network returns, where its files do not say.
        seed: of all noise.
        device, workers, allow_code, watcher: see :func:`certimed.runs.execute`.

    Raises:
        InputError: a setting that is unknown, a folder in another layout, or a study made with other settings.
    """
    preset = segmentation_preset(dataset)
    watch = watcher or Silent()
    spec = RunSpec(
        model=model,
        data=replace(test_part(preset, Path(data), split, watch), limit=images),
        target=MaskTarget((protocol.tau,), protocol.correction),
        methods=(PLAIN,) if denoiser is None else (PLAIN, DENOISED),
        budget=protocol.n,
        n0=protocol.n0,
        alpha=protocol.alpha,
        seed=seed,
        denoiser=denoiser,
        size=preset.size,
        output=output,
        device=device,
    )
    study = run_study(
        {f"sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in protocol.sigmas},
        out,
        workers=workers,
        allow_code=allow_code,
        watcher=watch,
    )
    caption = f"{preset.title}: certified segmentation, {split} split, foreground mean over images."
    study.write_tables(out, caption=caption, label=f"tab:{preset.name}")
    return study


def test_part(preset: SegmentationPreset, root: Path, split: str, watch: Watcher | None = None) -> DataSpec:
    """The test images of a published data set with their masks, named one by one.

    Raises:
        InputError: an unknown split, or a layout that does not fit; the sentence says what was expected and found.
    """
    if split not in SPLITS:
        raise InputError(f"split {split} is unknown; use one of {', '.join(SPLITS)}")
    images, masks = (str(_subfolder(root, names, preset)) for names in (preset.images, preset.masks))
    source = DataSpec(images, preset.class_names, masks=masks)
    ids = source.open().ids
    if len(ids) != preset.images_expected and watch is not None:
        watch.note(f"{preset.title} has {preset.images_expected} images; here are {len(ids)}")
    rule = preset.published_split if split == "published" else preset.leak_free_split
    groups = [cvc_sequence(item) for item in ids] if rule.by == "sequence" else None
    chosen = split_images(ids, rule, groups).test
    own = None if groups is None else tuple(str(groups[index]) for index in chosen)
    return replace(source, items=tuple(ids[index] for index in chosen), groups=own)


def _subfolder(root: Path, names: Sequence[str], preset: SegmentationPreset) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = ", ".join(sorted(path.name for path in root.iterdir())[:12]) if root.is_dir() else "no such folder"
    raise InputError(
        f"the data folder {root} has no folder {' or '.join(names)}: expected for {preset.name} are images and masks "
        f"of the same names in {' or '.join(preset.images)} and {' or '.join(preset.masks)}; found {found}"
    )
