"""``write_report``: run folders in, one HTML file out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from certimed import __version__
from certimed.errors import InputError, require
from certimed.report.html import numbers, words
from certimed.report.html.classes import ClassPart, read_class_run
from certimed.report.html.masks import MaskPart
from certimed.report.html.pictures import Budget
from certimed.report.html.sources import CLASSIFY, Pictures, Run, find_pictures, open_runs
from certimed.report.html.viewer import MaskRun, read_mask_run, viewer_data

PICTURE_BYTES = 24_000_000
"""Most of a page that pictures may take; what does not fit is listed without."""

_SCRIPTS = ("common.js", "charts.js", "gallery.js", "viewer.js")


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: the HTML file.
        size: its bytes.
        images: images of all runs, failed ones included.
        pictures: how many of them have a picture in it.
        notes: why pictures are missing, or what is not sure; false statements found in the runs.
    """

    path: Path
    size: int
    images: int
    pictures: int
    notes: tuple[str, ...]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    verify: bool = True,
    picture_bytes: int = PICTURE_BYTES,
) -> Report:
    """Write one self-contained HTML page about one or several run folders.

    The page needs no network and no other file. All text of a run (class names, image ids, reasons) is escaped; its
    security policy forbids every script but its own and every address but data inside it.

    Args:
        runs: run folders, of either task.
        out: the file; replaced if it exists.
        data: where the images are now; default: where the runs read them, if they are still there.
        labels, masks, split: as for :func:`certimed.data.open_dataset`, with ``data``.
        verify: recompute every statement of the runs first (extra ``verify``); without, their seals are checked.
        picture_bytes: most bytes of pictures in the page.

    Returns:
        what was written, and what a person should know about it.

    Raises:
        InputError: no run folder, a broken one, nothing certified in any of them, or a file that cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = require("jinja2", "report")
    target = Path(out)
    opened = open_runs([Path(run) for run in runs], verify=verify)
    where = {"labels": labels, "masks": masks}
    places = {name: None if value is None else Path(value) for name, value in where.items()}
    found = {
        run.index: find_pictures(
            run, run.folder.status(), None if data is None else Path(data), split=split, **places
        )
        for run in opened
    }  # fmt: skip
    context, notes = _context(opened, found, Budget(picture_bytes))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("certimed.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(numbers, name) for name in ("down", "percent", "plain")}
    html = environment.get_template("report.html.j2").render(context).encode("utf-8", "backslashreplace")
    _write(target, html)
    images = sum(len(run.folder.status()) for run in opened)
    return Report(target, len(html), images, context["pictures"], tuple(notes))


def _context(runs: Sequence[Run], found: Mapping[int, Pictures], budget: Budget) -> tuple[dict[str, Any], list[str]]:
    class_runs = [read_class_run(run) for run in runs if run.task == CLASSIFY]
    mask_runs = [read_mask_run(run, found[run.index], budget) for run in runs if run.task != CLASSIFY]
    classes = ClassPart(class_runs, dict(found), budget) if any(run.series for run in class_runs) else None
    masks = MaskPart([one for run in mask_runs for one in run.series]) if any(run.series for run in mask_runs) else None
    if classes is None and masks is None:
        raise InputError("no image of these runs has a certificate; there is nothing to report")
    notes = [f"{run.name}: {note}" for run in runs if (note := found[run.index].note) is not None]
    notes += [f"{run.run.name}: {note}" for run in mask_runs for note in run.notes]
    if budget.refused:
        notes.append(f"{budget.refused} pictures were left out to keep the page small; every image is listed.")
    gallery = None if classes is None else classes.gallery
    viewer = viewer_data(mask_runs) if masks is not None else None
    failed = [(run.run.name, *entry) for run in class_runs for entry in run.failed]
    failed += [(run.run.name, *entry) for run in mask_runs for entry in run.failed]
    scripts = [_asset(name) for name in _SCRIPTS]
    context = {
        "runs": runs,
        "settings": [_settings(run) for run in runs],
        "classes": classes,
        "masks": masks,
        "gallery": None if gallery is None else numbers.embedded_json(gallery.data),
        "viewer": None if viewer is None else numbers.embedded_json(viewer),
        "worked": [*(classes.worked if classes else []), *(run.worked for run in mask_runs if run.worked)],
        "limits": _limits(classes, masks),
        "failed": failed,
        "notes": notes,
        "methods": words.METHODS,
        "version": __version__,
        "css": _asset("page.css"),
        "scripts": scripts,
        "policy": _policy(scripts),
        "pictures": _count_pictures(gallery.data["images"] if gallery else [], mask_runs),
        "facts": _facts(classes, masks),
    }
    faults = [f"{run.name}: {run.checked}" for run in runs if run.faults]
    return context, faults + notes


def _limits(classes: ClassPart | None, masks: MaskPart | None) -> list[tuple[str, str]]:
    certificates: list[Any] = [c for one in (classes.series if classes else []) for c in one.certificates]
    certificates += [one.example for one in (masks.series if masks else [])]
    return words.limits(
        {one.scope for one in certificates},
        {one.space for one in certificates},
        {one.alpha for one in certificates},
        comparable=classes is None or classes.comparable,
    )


def _facts(classes: ClassPart | None, masks: MaskPart | None) -> dict[str, Any]:
    """The settings that the explanation names."""
    labels: list[Any] = [c for one in (classes.series if classes else []) for c in one.certificates]
    shapes: list[Any] = [one.example for one in (masks.series if masks else [])]
    samples = []
    if labels:
        samples.append(f"For labels, {words.copies((c.n0 for c in labels), (c.n for c in labels))}.")
    if masks is not None:
        sizes = (n for one in masks.series for n in one.sizes)
        said = words.copies((c.n0 for c in shapes), sizes)
        samples.append(f"For masks, {said} in each pixel; the test accounts for all pixels of an image at once.")
    every = labels + shapes
    return {
        "sigmas": sorted({c.sigma for c in every}),
        "alphas": sorted({c.alpha for c in every}),
        "samples": samples,
        "where": words.where(c.space for c in every),
    }


def _count_pictures(images: Sequence[Mapping[str, Any]], mask_runs: Sequence[MaskRun]) -> int:
    masks = sum("base" in entry.get("layers", {}) for run in mask_runs for entry in run.entries)
    return masks + sum("thumb" in image for image in images)


def _settings(run: Run) -> dict[str, Any]:
    """The settings of a run as rows of text."""
    model, data, ran = run.section("model"), run.section("data"), run.section("provenance")
    rows = [("model", model.get("name")), ("model identity (SHA-256)", model.get("identity"))]
    rows += [(name, value) for name, value in run.section("settings").items() if value is not None]
    if run.task == CLASSIFY:
        rows += [("captions", "; ".join(str(text) for text in run.manifest.get("templates") or []))]
        rows += [(f"prompts: {name}", value) for name, value in run.section("prompts").items() if value is not None]
    rows += [("denoiser (SHA-256)", run.manifest.get("denoiser")), ("images", data.get("images"))]
    rows += [("data identity (SHA-256)", data.get("identity")), ("shard", run.manifest.get("shard"))]
    rows += [("device", ran.get("device_name")), ("arithmetic", ran.get("dtype"))]
    versions = ran.get("versions")
    rows += [("versions", ", ".join(f"{a} {b}" for a, b in versions.items()))] if isinstance(versions, dict) else []
    rows += [
        ("created", run.manifest.get("created")),
        ("settings digest (SHA-256)", run.manifest.get("settings_sha256")),
    ]
    shown = [(numbers.plain(name, 80), _value(value)) for name, value in rows if value not in (None, "", [], {})]
    return {"run": run, "rows": shown, "digest": run.folder.digest()}


def _value(value: Any) -> str:
    return numbers.plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 400)


def _asset(name: str) -> str:
    return (files("certimed.report") / "templates" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise InputError(f"--out {path} cannot be written ({error.strerror}); choose another place") from error
    finally:
        part.unlink(missing_ok=True)
