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
from certimed.certificates import IntervalClaim
from certimed.errors import InputError, require
from certimed.integrity import write_whole
from certimed.report.html import numbers, words
from certimed.report.html.classes import ClassPart
from certimed.report.html.masks import MaskPart, MaskReader
from certimed.report.html.measured import MeasurePart
from certimed.report.html.numbers import plain, plain_lines
from certimed.report.html.part import Line, Material, Part
from certimed.report.html.pictures import Budget
from certimed.report.html.sources import Run, open_runs
from certimed.report.html.varied import SettingsPart
from certimed.report.html.volumes import VolumePart
from certimed.report.series import series_of
from certimed.runs import CERTIFIED, Record, as_yaml, redo_command
from certimed.runs.images import Pictures, find_pictures

PICTURE_BYTES = 24_000_000
"""Most of a page that pictures may take; what does not fit is listed without."""

PARTS: tuple[type[Part], ...] = (ClassPart, MaskPart, VolumePart, MeasurePart, SettingsPart)
"""The parts of the page in their order; what a run has nothing of is left out."""


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
    more: Sequence[type[Part]] = (),
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
        more: parts from rooms that stand below this one, after :data:`PARTS`.

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
    context, notes = _context(opened, found, Budget(picture_bytes), (*PARTS, *more))
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
    return Report(
        Path(out), len(html.encode()), images, sum(part.pictures for part in context["page_parts"]), tuple(notes)
    )


def _context(
    runs: Sequence[Run], found: Mapping[int, Pictures], budget: Budget, kinds: Sequence[type[Part]]
) -> tuple[dict[str, Any], list[str]]:
    readers = {run.index: MaskReader(run, found[run.index], budget) for run in runs if run.spec.masks}
    lines, failed = _lines(runs, readers)
    if not lines:
        raise InputError("no image of these runs has a certificate; there is nothing to report")
    parts = [part for kind in kinds if (part := kind.of(Material(runs, lines, found, budget, readers))) is not None]
    worked = [one for part in parts for one in part.worked()]
    reports = {line.run.name: line.of.intensities for line in lines}
    notes = [f"{run.name}: {plain(note)}" for run in runs if (note := found[run.index].note) is not None]
    notes += [note for part in parts for note in part.notes()]
    notes += [f"{name}: {plain(warning)}." for name, report in reports.items() for warning in report.warnings]
    if budget.refused:
        notes.append(f"{budget.refused} pictures were left out to keep the page small; every image is listed.")
    certificates = [c for line in lines for c in line.read()]
    scripts = [_asset(name) for name in dict.fromkeys(["common.js", *(name for one in parts for name in one.scripts)])]
    context = {
        "runs": runs,
        "about": [_about(run, parts) for run in runs],
        "page_parts": parts,
        "data": {name: numbers.embedded_json(data) for part in parts for name, data in part.data().items()},
        "worked": worked,
        "limits": words.limits(certificates, comparable=all(part.comparable for part in parts)),
        "failed": failed,
        "notes": notes,
        "methods": _methods(lines),
        "answers": words.ANSWERS,
        "version": __version__,
        "css": _asset("page.css"),
        "scripts": scripts,
        "policy": _policy(scripts),
        "facts": {
            "sigmas": sorted({c.sigma for c in certificates}),
            "risks": [numbers.risk(alpha) for alpha in sorted({c.alpha for c in certificates})],
            "samples": [sentence for part in parts for sentence in part.samples()],
            "where": words.where(c.space for c in certificates),
            "reading": [f"{name}: intensities: {plain(report.line)}." for name, report in reports.items()],
            "unstable": words.unstable(c for c in certificates if c.claim.kind != IntervalClaim.kind),
        },
    }
    faults = [f"{run.name}: {run.checked}" for run in runs if run.faults]
    return context, faults + notes


def _lines(runs: Sequence[Run], readers: Mapping[int, MaskReader]) -> tuple[list[Line], list[tuple[str, str, str]]]:
    """The series of all runs, and the images that failed as run, image and reason, in one pass over the records."""
    lines: list[Line] = []
    failed: list[tuple[str, str, str]] = []
    for run in runs:
        reader = readers.get(run.index)

        def seen(record: Record, run: Run = run, reader: MaskReader | None = reader) -> None:
            if record.status != CERTIFIED:
                failed.append((run.name, plain(record.item), plain(record.reason or "no reason given")))
            elif reader is not None:
                reader(record)

        for index, one in enumerate(series_of(run.name, run.folder, seen=seen)):
            key = reader.keys[one.label] if reader is not None and one.masks else f"r{run.index}m{index}"
            lines.append(Line(key, index, run, replace(one, class_names=run.class_names), len(runs) > 1))
    return lines, failed


def _methods(lines: Sequence[Line]) -> dict[str, str]:
    """What each method is; a label that means different things in different runs is told apart by its run."""
    whys: dict[str, set[str]] = {}
    for line in lines:
        whys.setdefault(line.of.label, set()).add(line.why)
    return {(line.of.label if len(whys[line.of.label]) == 1 else line.title): line.why for line in lines if line.why}


def _about(run: Run, parts: Sequence[Part]) -> dict[str, Any]:
    """A run with the sentence of each part that has one about it, its settings, and how to do it again."""
    said = [sentence for part in parts if (sentence := part.headlines().get(run.index)) is not None]
    redo = redo_command(run.folder.path.name, code=run.spec.model.startswith("python:"))
    return {**_settings(run), "sentences": said, "yaml": plain_lines(as_yaml(run.spec)), "redo": plain(redo)}


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
