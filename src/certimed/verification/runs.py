"""Is a run folder whole, unchanged, and of one piece?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.integrity import SETTINGS_DIGEST, ids_digest, line_holds, manifest_fault, run_digest, strict_json
from certimed.verification.classes import class_faults
from certimed.verification.masks import mask_faults, setting_faults
from certimed.verification.shapes import CLASS_RECORD, MASK_RECORD, shape_faults

MANIFEST = "run.json"
LINES = "certificates.jsonl"
_FROZEN_METHODS = ("zero-shot", "both")
_SETTINGS = ("n0", "sigma", "bound", "seed", "correction", "k_fwer", "space")
_VERSIONS = ("certimed", "torch", "numpy", "scipy")


@dataclass
class RunCheck:
    """What is gathered while the lines of a run are read.

    Attributes:
        manifest: content of run.json.
        items: status of every item seen.
        digests: digest of the current line of every item.
        certificates: certificates checked.
        models: model identity of each method, from its first certificate.
    """

    folder: Path
    manifest: dict[str, Any]
    items: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    certificates: int = 0
    models: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the whole run."""
        return run_digest(str(self.manifest.get(SETTINGS_DIGEST)), self.digests.values())

    @property
    def expected(self) -> int | None:
        """Images this folder is meant to hold."""
        found = self._meant("images")
        return found if isinstance(found, int) else None

    def _meant(self, name: str) -> Any:
        section = self.manifest.get("shard") or self.manifest.get("data")
        return section.get(name) if isinstance(section, dict) else None


Fault = tuple[str, str]
"""Where, and what is false."""


def open_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; InputError if there is none that can be read."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / MANIFEST} cannot be read: {error}") from error
    manifest = strict_json(text, str(folder / MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("schema") != "certimed/run/1":
        raise InputError(f"{folder / MANIFEST} is not a manifest of schema certimed/run/1")
    return manifest


def run_faults(check: RunCheck, *, allow_incomplete: bool) -> Iterator[Fault]:
    """Every false line of a run, in the order of the files."""
    fault = manifest_fault(check.manifest)
    if fault is not None:
        yield MANIFEST, fault
    yield from ((MANIFEST, fault) for fault in _manifest_shape(check.manifest))
    try:
        with (check.folder / LINES).open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                yield from ((f"{LINES} line {number}", fault) for fault in _line_faults(check, line))
    except (OSError, UnicodeDecodeError) as error:
        yield LINES, f"it cannot be read ({error})"
        return
    yield from ((LINES, fault) for fault in _whole_faults(check, allow_incomplete))


def _manifest_shape(manifest: dict[str, Any]) -> Iterator[str]:
    for name in ("settings", "data", "provenance", "model"):
        if not isinstance(manifest.get(name), dict):
            yield f"{name} must be an object"
    if not isinstance(manifest.get("classes"), list):
        yield "classes must be a list"
    shard = manifest.get("shard")
    if shard is not None and not (isinstance(shard, dict) and isinstance(shard.get("images"), int)):
        yield "shard must be an object with its number of images"


def _line_faults(check: RunCheck, line: str) -> Iterator[str]:
    if not line.endswith("\n"):
        yield "the line is unfinished (a run that was stopped; resume it)"
        return
    line = line[:-1]
    try:
        data = strict_json(line, "the line")
    except InputError as error:
        yield str(error)
        return
    if not line_holds(line, str(check.manifest.get(SETTINGS_DIGEST))):
        yield "it was changed after it was written, or belongs to another run (sha256 does not match)"
    masks = check.manifest.get("task") == "segment"
    faults = list(shape_faults(data, MASK_RECORD if masks else CLASS_RECORD))
    if faults:
        yield from faults
        return
    yield from _record_faults(check, data, masks)
    check.items[data["item"]] = data["status"]
    check.digests[data["item"]] = data["sha256"]


def _record_faults(check: RunCheck, data: dict[str, Any], masks: bool) -> Iterator[str]:
    item, failed = data["item"], data["status"] == "failed"
    if check.items.get(item) == "certified":
        yield f"item {item!r:.120} comes twice"
    if failed != (data["reason"] is not None) or failed == bool(data["certificates"]):
        yield f"status {data['status']!r} does not belong to its reason and certificates"
        return
    if failed:
        return
    classes = check.manifest.get("classes")
    names = len(classes) if isinstance(classes, list) else 0
    if not masks:
        yield from _answer_faults(data, names)
    methods = _methods(check.manifest)
    if methods is not None and set(methods) != set(data["certificates"]):
        yield f"it has certificates for {sorted(data['certificates'])}, the run is of {methods}"
    for method, certificate in data["certificates"].items():
        check.certificates += 1
        if masks:
            where = _arrays_path(item, method)
            if data["arrays"].get(method) != where:
                yield f"{method}: its arrays are named {data['arrays'].get(method)!r:.80}, not {where}"
            faults = list(mask_faults(certificate, check.folder / where))
        else:
            faults = list(class_faults(certificate))
        yield from (f"{method}: {fault}" for fault in faults)
        if isinstance(certificate, dict):
            yield from (f"{method}: {fault}" for fault in _belongs(check, method, item, certificate, names))


def _methods(manifest: dict[str, Any]) -> list[str] | None:
    prompts = manifest.get("prompts")
    found = manifest.get("methods", prompts.get("methods") if isinstance(prompts, dict) else None)
    return sorted(str(name) for name in found) if isinstance(found, list | dict) else None


def _answer_faults(data: dict[str, Any], names: int) -> Iterator[str]:
    if data["label"] is not None and data["label"] >= names:
        yield f"label {data['label']} is none of the {names} classes"
    if set(data["clean"]) != set(data["certificates"]):
        yield "clean predictions and certificates are of different methods"
    if any(value >= names for value in data["clean"].values()):
        yield f"a clean prediction is none of the {names} classes"


def _belongs(check: RunCheck, method: str, item: str, certificate: dict[str, Any], names: int) -> Iterator[str]:
    """Does a certificate agree with its record and with the manifest?"""
    if certificate.get("item") != item:
        yield f"it is about {certificate.get('item')!r:.120}, its line about {item!r:.120}"
    settings = check.manifest.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    masks = check.manifest.get("task") == "segment"
    for name in (*_SETTINGS, *(() if settings.get("budget") else ("n",)), *(() if masks else ("alpha", "budget"))):
        if name in settings and name in certificate and certificate[name] != settings[name]:
            yield f"{name}={certificate[name]!r} is not the run's {name}={settings[name]!r}"
    if masks:
        yield from setting_faults(method, certificate, settings)
    counts = certificate.get("counts")
    held = len(counts) if isinstance(counts, list) else certificate.get("num_classes")
    if held != names:
        yield f"it counts {held} classes, the run has {names}"
    if method in _FROZEN_METHODS and certificate.get("scope") != "prompt frozen at x":
        yield f"scope {certificate.get('scope')!r:.40} is not what method {method!r} can claim (prompt frozen at x)"
    yield from _provenance_faults(check, method, certificate.get("provenance"))


def _provenance_faults(check: RunCheck, method: str, own: Any) -> Iterator[str]:
    run = check.manifest.get("provenance")
    if not isinstance(own, dict) or not isinstance(run, dict):
        return
    model = own.get("model")
    ids = check.manifest.get("model_ids")
    wanted = ids.get(method) if isinstance(ids, dict) else check.models.setdefault(method, model)
    if model != wanted:
        yield f"model {model!r:.80} is not the {wanted!r:.80} of method {method!r} in this run"
    if str(own.get("device")).partition(":")[0] != str(run.get("device")).partition(":")[0]:
        yield f"device {own.get('device')!r:.40} is not the run's {run.get('device')!r:.40}"
    if "dtype" in run and not str(own.get("dtype")).startswith(str(run["dtype"])):
        yield f"dtype {own.get('dtype')!r:.40} is not the run's {run['dtype']!r:.40}"
    mine, its = own.get("versions"), run.get("versions")
    if isinstance(mine, dict) and isinstance(its, dict):
        for name in _VERSIONS:
            if mine.get(name) != its.get(name):
                yield f"{name} {mine.get(name)!r:.40} is not the run's {its.get(name)!r:.40}"


def _whole_faults(check: RunCheck, allow_incomplete: bool) -> Iterator[str]:
    expected, found = check.expected, len(check.items)
    if expected is None:
        yield "the manifest does not say how many images the run has"
    elif found > expected:
        yield f"it holds {found} images, the run has {expected}"
    elif found < expected:
        if not allow_incomplete:
            yield f"{expected - found} of {expected} images are missing"
    elif check._meant("ids_sha256") not in (None, ids_digest(check.items)):
        yield "its images are not those the run was started with (ids_sha256 does not match)"


def _arrays_path(item: str, method: str) -> str:
    return f"arrays/{hashlib.sha256(json.dumps([item, method]).encode()).hexdigest()[:24]}.npz"
