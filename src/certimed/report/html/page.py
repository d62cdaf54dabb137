"""``write_report``: run folders in, one HTML file out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from certimed import __version__
from certimed.certificates import Certificate, ClassClaim, IntervalClaim
from certimed.data import IntensityReport
from certimed.errors import InputError, require
from certimed.integrity import write_whole
from certimed.report.html import numbers, words
from certimed.report.html.classes import ClassPart, Line
from certimed.report.html.masks import MaskPart, MaskReader
from certimed.report.html.measured import MeasurePart
from certimed.report.html.numbers import plain
from certimed.report.html.pictures import Budget
from certimed.report.html.sources import Run, open_runs
from certimed.report.series import Series, series_of
from certimed.runs import CERTIFIED, Record
from certimed.runs.images import Pictures, find_pictures

PICTURE_BYTES = 24_000_000
"""Most of a page that pictures may take; what does not fit is listed without."""

_SCRIPTS = ("common.js", "charts.js", "gallery.js", "viewer.js", "forests.js")


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
    opened = open_runs(runs, verify=verify)
    where = {"path": data, "labels": labels, "masks": masks, "split": split}
    found = {run.index: find_pictures(run.folder, run.folder.status(), **where) for run in opened}
    context, notes = _context(opened, found, Budget(picture_bytes))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("certimed.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(numbers, name) for name in ("down", "percent", "plain")}
    html = environment.get_template("report.html.j2").render(context).encode("utf-8", "backslashreplace").decode()
    write_whole(Path(out), lambda stream: stream.write(html))
    images = sum(len(run.folder.status()) for run in opened)
    return Report(Path(out), len(html.encode()), images, context["pictures"], tuple(notes))


def _context(runs: Sequence[Run], found: Mapping[int, Pictures], budget: Budget) -> tuple[dict[str, Any], list[str]]:
    lines: list[Line] = []
    failed: list[tuple[str, str, str]] = []
    readers = {run.index: MaskReader(run, found[run.index], budget) for run in runs if run.spec.masks}
    for run in runs:
        reader = readers.get(run.index)
        own, lost = _read(run, reader)
        failed += [(run.name, plain(one.item), plain(one.reason or "no reason given")) for one in lost]
        for index, one in enumerate(own):
            key = reader.keys[one.label] if reader is not None and one.masks else f"r{run.index}m{index}"
            lines.append(Line(key, index, run, replace(one, class_names=run.class_names)))
    shapes, sizes = [line for line in lines if line.of.masks], [line for line in lines if line.of.measured]
    labels = [line for line in lines if not line.of.masks and not line.of.measured]
    if not lines:
        raise InputError("no image of these runs has a certificate; there is nothing to report")
    classes = ClassPart(labels, found, budget) if labels else None
    masks = MaskPart(shapes, readers) if shapes else None
    measured = MeasurePart(sizes) if sizes else None
    notes = [f"{run.name}: {plain(note)}" for run in runs if (note := found[run.index].note) is not None]
    notes += [
        f"{reader.run.name}: The truth of {reader.strangers} images is not the one the run was scored with; it is not "
        "shown for them."
        for reader in readers.values()
        if reader.strangers
    ]
    reports = {line.run.name: line.of.intensities for line in lines}
    notes += [f"{name}: {plain(warning)}." for name, report in reports.items() for warning in report.warnings]
    if budget.refused:
        notes.append(f"{budget.refused} pictures were left out to keep the page small; every image is listed.")
    certificates = [c for line in lines for c in ([line.of.first] if line.of.masks else line.of.certificates)]
    shown = sum("base" in entry.get("layers", {}) for reader in readers.values() for entry in reader.entries)
    scripts = [_asset(name) for name in _SCRIPTS]
    context = {
        "runs": runs,
        "settings": [_settings(run) for run in runs],
        "classes": classes,
        "masks": masks,
        "measured": measured,
        "forests": None if measured is None else numbers.embedded_json(measured.data()),
        "gallery": None if classes is None else numbers.embedded_json(classes.gallery.data),
        "viewer": None if masks is None else numbers.embedded_json(masks.viewer()),
        "worked": [one for part in (classes, masks) if part for one in part.worked],
        "limits": words.limits(certificates, comparable=classes is None or classes.comparable),
        "failed": failed,
        "notes": notes,
        "methods": {line.of.label: line.why for line in lines if line.why},
        "version": __version__,
        "css": _asset("page.css"),
        "scripts": scripts,
        "policy": _policy(scripts),
        "pictures": shown + (0 if classes is None else classes.gallery.pictures),
        "facts": _facts(certificates, shapes, reports),
    }
    faults = [f"{run.name}: {run.checked}" for run in runs if run.faults]
    return context, faults + notes


def _read(run: Run, reader: MaskReader | None) -> tuple[list[Series[Any]], list[Record]]:
    """The series of a run, and its failed images, in one pass."""
    failed: list[Record] = []

    def seen(record: Record) -> None:
        if record.status != CERTIFIED:
            failed.append(record)
        elif reader is not None:
            reader(record)

    return series_of(run.name, run.folder, seen=seen), failed


def _facts(
    certificates: Sequence[Certificate[Any]], masks: Sequence[Line], reports: Mapping[str, IntensityReport]
) -> dict[str, Any]:
    """The settings that the explanation names."""
    labels = [c for c in certificates if c.claim.kind == ClassClaim.kind]
    samples = []
    if labels:
        samples.append(f"For labels, {words.copies((c.n0 for c in labels), (c.n for c in labels))}.")
    if masks:
        sizes = (n for line in masks for n in line.of.tally.sizes)
        said = words.copies((line.of.first.n0 for line in masks), sizes)
        samples.append(f"For masks, {said} in each pixel; the test accounts for all pixels of an image at once.")
    ranges = [c for c in certificates if c.claim.kind == IntervalClaim.kind]
    if ranges:
        counts = sorted({c.n for c in ranges})
        between = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        samples.append(
            f"For measurements, the number is read off the mask of each of {between} noisy copies. What holds is their "
            "median: it is the median under noise that must be reported."
        )
    return {
        "sigmas": sorted({c.sigma for c in certificates}),
        "risks": [numbers.risk(alpha) for alpha in sorted({c.alpha for c in certificates})],
        "samples": samples,
        "where": words.where(c.space for c in certificates),
        "reading": [f"{name}: intensities: {plain(report.line)}." for name, report in reports.items()],
        "unstable": words.unstable(c for c in certificates if c.claim.kind != IntervalClaim.kind),
    }


def _settings(run: Run) -> dict[str, Any]:
    """The settings of a run as rows of text."""
    data, ran, manifest = run.section("data"), run.section("provenance"), run.folder.manifest
    rows: list[tuple[str, Any]] = [("model identity (SHA-256)", run.section("model").get("identity"))]
    for name, value in run.section("request").items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{name}: {key}" if key else name, one) for key, one in inner]
    rows += [(f"identity of method {one['name']}", one.get("identity")) for one in run.folder.methods]
    rows += [("denoiser (SHA-256)", manifest.get("denoiser")), ("images", data.get("images"))]
    rows += [("data identity (SHA-256)", data.get("identity")), ("shard", manifest.get("shard"))]
    rows += [("device", ran.get("device_name")), ("arithmetic", ran.get("dtype"))]
    versions = ran.get("versions")
    rows += [("versions", ", ".join(f"{a} {b}" for a, b in versions.items()))] if isinstance(versions, dict) else []
    rows += [("created", manifest.get("created")), ("settings digest (SHA-256)", manifest.get("settings_sha256"))]
    shown = [(plain(name, 80), _value(value)) for name, value in rows if value not in (None, "", [], {})]
    return {"run": run, "rows": shown, "digest": run.folder.digest()}


def _value(value: Any) -> str:
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 400)


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
