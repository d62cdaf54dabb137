"""``certimed verify --resample`` for masks: load model and data again and redraw some images' noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from certimed.acceleration import Acceleration
from certimed.cli import inputs, segment
from certimed.cli.console import out, printable
from certimed.data import ReadOptions
from certimed.errors import InputError
from certimed.runs import DENOISED, PLAIN, MaskRecord, MaskSettings, RunFolder
from certimed.runs.segmentation import prepare
from certimed.throughput import AUTO, settled
from certimed.verification.resampling import MaskComparison, choose, compare_masks

if TYPE_CHECKING:
    from certimed.cli.resampling import Sources


def compare_run(folder: RunFolder, m: int, salt: str, sources: Sources) -> bool:
    """Redraw ``m`` images of a segmentation run, print each comparison; returns whether all are consistent."""
    if m < 1:
        raise InputError(f"--resample {m} redraws nothing; use 1 or more")
    redraw = _redrawer(folder.manifest, sources)
    certified = [item for item, (_, status) in folder.status().items() if status == "certified"]
    chosen = set(choose(sorted(certified), m, salt))
    found = [one for record in folder.mask_records() if record.item in chosen for one in redraw(record)]
    for one in found:
        _print(one)
    equal = sum(one.equal for one in found)
    out.print(f"redrawn with salt {printable(salt)}: {equal} of {len(found)} masks are equal", highlight=False)
    if equal < len(found) and all(one.consistent for one in found):
        out.print(
            "The others pass a consistency test (Fisher's exact test for each pixel, times the pixels, level 1e-6): it "
            "can show that counts do not belong together, not that they do. On the same kind of device with the same "
            "library versions all must be equal.",
            highlight=False,
        )
    return all(one.consistent for one in found)


def _print(one: MaskComparison) -> None:
    verdict = "equal"
    if not one.equal:
        word = "consistent" if one.consistent else "[bold red]false[/]"
        verdict = f"{word}, p={one.p_value:.2g} ({one.moved} of {one.pixels} pixels differ)"
    out.print(f"{printable(one.item)} {printable(one.method)}: {verdict}", highlight=False)


def _redrawer(manifest: Mapping[str, Any], sources: Sources) -> Callable[[MaskRecord], list[MaskComparison]]:
    """Build models and data as the manifest describes them, from what the verifier names."""
    settings, job = _job(manifest, sources)
    smoothed = segment.mask_certifier(job, settings).smoothed
    positions = {item: index for index, item in enumerate(job.dataset.ids)}

    def redraw(record: MaskRecord) -> list[MaskComparison]:
        if record.item not in positions:
            raise InputError(
                f"{record.item!r:.80} of this run is not in {job.dataset.source}; name the run's data with --data"
            )
        pixels, _ = prepare(
            job.dataset.load(positions[record.item]), segment.channels_of(job), settings.size, settings.space
        )
        found = []
        for method, segmenter in smoothed.items():
            certificates = {name: record.certificates[name] for name in settings.names([method])}
            # Certificates at several taus are of the same samples: one draw serves them all.
            first = next(iter(certificates.values()))
            drawn = segmenter.redraw(pixels, first, batch_size=settled(settings.batch_size))
            found += [
                compare_masks(record.item, name, own.n, (own.mask, own.agreement), drawn)
                for name, own in certificates.items()
            ]
        return found

    return redraw


def _job(manifest: Mapping[str, Any], sources: Sources) -> tuple[MaskSettings, segment.Job]:
    try:
        recorded = {name: _tuples(manifest["settings"][name]) for name in MaskSettings.__dataclass_fields__}
        recorded["acceleration"] = Acceleration(**recorded["acceleration"])
        if recorded["batch_size"] == AUTO:
            recorded["batch_size"] = int(manifest["local"]["batch_size"])
        settings = segment.checked(MaskSettings(**recorded))
        names, classes = [str(name) for name in manifest["methods"]], [str(name) for name in manifest["classes"]]
        methods = [method for method in (PLAIN, DENOISED) if set(settings.names([method])) <= set(names)]
        reading = ReadOptions(**{name: _tuples(value) for name, value in manifest["data"]["reading"].items()})
        identities = (manifest["model"]["identity"], manifest["denoiser"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"run.json lacks what --resample needs ({error}); it was written by another version"
        ) from error
    source = inputs.Source(
        path=inputs.needed("--data", sources.data, "xrays/"),
        classes=sources.classes,
        labels=sources.labels,
        split=sources.split,
        reading=reading,
    )
    job = segment.prepare(
        model=inputs.needed("--model", sources.model, "smp:FOLDER"),
        denoiser=inputs.needed("--denoiser", sources.denoiser, "ddpm/") if DENOISED in methods else None,
        methods=",".join(methods),
        dataset=source.open(),
        limit=None,
        device=sources.device,
        class_names=classes,
        output=sources.output,
        allow_code=sources.allow_code,
    )
    for what, own, its in zip(("model", "denoiser"), (job.segmenter.identity, job.denoiser_id), identities):
        if own != its:
            raise InputError(f"the {what} is not the one of this run: it is {own!s:.80}, the run's is {its!s:.80}")
    return settings, job


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
