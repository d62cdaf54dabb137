"""Is a run folder whole, unchanged, of one piece, and what its request says?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.integrity import (
    RUN_SCHEMA,
    SETTINGS_DIGEST,
    ids_digest,
    line_holds,
    manifest_fault,
    run_digest,
    strict_json,
)
from certimed.verification.certificates import certificate_faults
from certimed.verification.intervals import request_faults
from certimed.verification.laws import GRID_STEPS, NAMED
from certimed.verification.masks import arrays_name
from certimed.verification.native import place_faults
from certimed.verification.settings import varied_faults, without_reach
from certimed.verification.shapes import MANIFEST, METHOD, RECORD, REQUEST, SHARD, shape_faults

NAME = "run.json"
LINES = "certificates.jsonl"
FROZEN_KINDS = ("zero-shot", "both", "test-time-lora")
"""Kinds of methods that tune a part on the image and hold it fixed: their certificates cannot be end-to-end."""

_EMPTY = ("one", "zero", "skip")


@dataclass
class RunCheck:
    """What is gathered while the lines of a run are read.

    Attributes:
        manifest: content of run.json.
        items: status of every item seen.
        digests: digest of the current line of every item.
        certificates: certificates checked.
        versions: version of each library, reader and decoder, as the first certificate that names it says.
    """

    folder: Path
    manifest: dict[str, Any]
    items: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    certificates: int = 0
    versions: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the whole run."""
        return run_digest(str(self.manifest.get(SETTINGS_DIGEST)), self.digests.values())

    def part(self, name: str) -> dict[str, Any]:
        """A section of the manifest; empty where it is none."""
        found = self.manifest.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for."""
        return self.part("request")

    @property
    def classes(self) -> int:
        """Number of classes."""
        found = self.manifest.get("classes")
        return len(found) if isinstance(found, list) else 0

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Methods by name."""
        found = self.manifest.get("methods")
        known = found if isinstance(found, list) else []
        return {one["name"]: one for one in known if isinstance(one, dict) and isinstance(one.get("name"), str)}

    @property
    def taus(self) -> list[Any]:
        """The taus of a run of masks, and None for what has none: classes, and measurements beside masks."""
        found = self.part("request").get("target", {})
        taus = found.get("taus") if isinstance(found, dict) else None
        masks = taus if isinstance(taus, list) and self.request.get("task") in ("mask", "interval") else []
        return masks if self.request.get("task") == "mask" else [*masks, None]

    @property
    def mask_taus(self) -> list[Any]:
        """The taus of masks."""
        return [tau for tau in self.taus if tau is not None]

    def meant(self, name: str) -> Any:
        """What the manifest says of the images that this folder is meant to hold."""
        return (self.part("shard") or self.part("data")).get(name)


Fault = tuple[str, str]
"""Where, and what is false."""


def open_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; InputError if there is none that can be read, or of another schema."""
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    manifest = strict_json(text, str(path))
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != RUN_SCHEMA:
        raise InputError(f"{path} is of schema {schema!r:.80}, and this version reads {RUN_SCHEMA!r}; certify again")
    found: dict[str, Any] = manifest
    return found


def run_faults(check: RunCheck, *, allow_incomplete: bool) -> Iterator[Fault]:
    """Every false line of a run, in the order of the files."""
    fault = manifest_fault(check.manifest)
    if fault is not None:
        yield NAME, fault
    yield from ((NAME, fault) for fault in _manifest_faults(check))
    try:
        with (check.folder / LINES).open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                yield from ((f"{LINES} line {number}", fault) for fault in _line_faults(check, line))
    except (OSError, UnicodeDecodeError) as error:
        yield LINES, f"it cannot be read ({error})"
        return
    yield from ((LINES, fault) for fault in _whole_faults(check, allow_incomplete))


def _manifest_faults(check: RunCheck) -> Iterator[str]:
    manifest, request = check.manifest, check.request
    for part, wanted in ((manifest, MANIFEST), (request, REQUEST)):
        known = {name: value for name, value in part.items() if name in wanted}
        yield from shape_faults(known, wanted)
    methods = manifest.get("methods")
    for one in methods if isinstance(methods, list) else []:
        yield from (f"methods: {fault}" for fault in shape_faults(one, METHOD))
        yield from _entry_faults(one if isinstance(one, dict) else {})
    if isinstance(methods, list) and len(check.methods) != len(methods):
        yield "two methods have one name"
    if isinstance(request.get("target"), dict):
        yield from _target_faults(request["target"], str(request.get("task")))
    classes = manifest.get("classes")
    if isinstance(classes, list) and len({str(name) for name in classes}) != len(classes):
        yield "two classes have one name"
    if "shard" in manifest:
        faults = list(shape_faults(manifest["shard"], SHARD))
        yield from (f"shard: {fault}" for fault in faults or _shard_faults(check))


def _entry_faults(one: dict[str, Any]) -> Iterator[str]:
    name = f"method {one.get('name')!r:.80}"
    if one.get("kind") in FROZEN_KINDS and one.get("scope") == "end-to-end":
        yield f"{name} is tuned on the image and held fixed; it cannot be end-to-end"
    if (one.get("kind") == "adapted") != (one.get("adapter") is not None):
        yield f"{name} is of kind {one.get('kind')!r:.40} and its adapter is {one.get('adapter')!r:.80}"
    if one.get("adapter") is not None and one.get("adapter") == one.get("identity"):
        yield f"{name} has the identity of its adapter alone, not of model and adapter"


def _target_faults(target: dict[str, Any], task: str) -> Iterator[str]:
    if task == "classes":
        if target.get("bound") not in ("one-sided", "two-sided", "best"):
            yield f"the bound {target.get('bound')!r:.40} is unknown"
        return
    taus = target.get("taus")
    if task == "interval" and taus == []:
        return
    if not isinstance(taus, list) or not taus or not all(isinstance(tau, float) and 0.5 <= tau < 1 for tau in taus):
        yield f"taus must be numbers from 0.5 to below 1, not {taus!r:.80}"
    elif len(set(taus)) != len(taus):
        yield f"a tau comes twice in {taus!r:.80}"


def _shard_faults(check: RunCheck) -> Iterator[str]:
    """Sorted ids are dealt out in turn, so the number of images of each shard follows from the number of all."""
    shard, total = check.part("shard"), check.part("data").get("images")
    if shard["index"] > shard["count"]:
        yield f"there is no shard {shard['index']} of {shard['count']}"
    elif isinstance(total, int):
        dealt = max(0, math.ceil((total - shard["index"] + 1) / shard["count"]))
        if shard["images"] != dealt:
            yield f"{shard['index']} of {shard['count']} holds {dealt} of {total} images, not {shard['images']}"
    if shard["count"] == 1 and shard["ids_sha256"] != check.part("data").get("ids_sha256"):
        yield "the only shard has other images than the data"


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
    faults = list(shape_faults(data, RECORD))
    if faults:
        yield from faults
        return
    yield from _record_faults(check, data)
    check.items[data["item"]] = data["status"]
    check.digests[data["item"]] = data["sha256"]


def _record_faults(check: RunCheck, data: dict[str, Any]) -> Iterator[str]:
    item, failed = data["item"], data["status"] == "failed"
    if check.items.get(item) == "certified":
        yield f"item {item!r:.120} comes twice"
    if failed != (data["reason"] is not None) or failed == bool(data["certificates"]):
        yield f"status {data['status']!r} does not belong to its reason and certificates"
        return
    if data["label"] is not None and data["label"] >= check.classes:
        yield f"label {data['label']} is none of the {check.classes} classes"
    if failed:
        if data["clean"] or data["scores"] or data["place"]:
            yield "it failed, and has clean predictions, scores or a place in the patient"
        return
    if data["place"] is not None:
        yield from (f"place: {fault}" for fault in place_faults(data["place"], data["certificates"]))
    yield from _answer_faults(check, data)
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    for certificate in data["certificates"]:
        check.certificates += 1
        method, tau = _key(certificate)
        where = f"{method!s:.80}" if tau is None else f"{method!s:.80}, tau {tau}"
        arrays = None
        if tau is not None and isinstance(method, str) and isinstance(tau, float):
            arrays = check.folder / arrays_name(item, method, tau)
        faults = list(certificate_faults(certificate, arrays))
        if isinstance(certificate, dict) and not faults:
            faults = list(_belongs(check, item, certificate))
            if (method, tau) in found:
                faults.append("it has two certificates")
            found[method, tau] = certificate
        yield from (f"{where}: {fault}" for fault in faults)
    if len(found) == len(data["certificates"]):
        yield from _set_faults(check, data, found)


def _key(certificate: Any) -> tuple[Any, Any]:
    """Method and tau of a certificate, as far as they can be read."""
    if not isinstance(certificate, dict):
        return None, None
    claim = certificate.get("claim")
    return certificate.get("method"), claim.get("tau") if isinstance(claim, dict) else None


def _set_faults(check: RunCheck, data: dict[str, Any], found: dict[tuple[Any, Any], dict[str, Any]]) -> Iterator[str]:
    """Is there one certificate for each method and tau, all of one image, those of one method of the same samples?"""
    wanted = {(method, tau) for method in check.methods for tau in check.taus}
    if set(found) != wanted:
        yield f"it has certificates for {sorted(map(str, found))}, the run is of {sorted(map(str, wanted))}"
        return
    first = next(iter(found.values()))
    for certificate in found.values():
        for name in ("shape", "placement", "native"):
            mine, its = (one[name] and one[name]["geometry"] if name == "native" else one[name] for one in
                         (certificate, first))  # fmt: skip
            if mine != its:
                yield f"its certificates are of images of different {'geometry' if name == 'native' else name}"
        if without_reach(certificate) != without_reach(first):
            yield "its certificates are of images of different settings"
        for name in ("pixels", "intensity", "decoders"):
            if certificate["provenance"][name] != first["provenance"][name]:
                yield f"its certificates are of images with different {name}"
    labels = set()
    for (method, tau), certificate in found.items():
        if tau is None:
            continue
        labels.add(method if len(check.mask_taus) == 1 else f"{method}, tau {tau:g}")
        other = found[method, check.taus[0]]
        same = (
            certificate["claim"].get("arrays_sha256") == other["claim"].get("arrays_sha256"),
            certificate["samples"]["stop"] == other["samples"]["stop"],
            [look[0] for look in certificate["samples"]["looks"]] == [look[0] for look in other["samples"]["looks"]],
        )
        if not all(same):
            yield f"{method}: the certificates of its taus are of different samples"
    some = any(one["claim"].get("threshold") and one["claim"]["share_certified"] for one in found.values())
    if first["samples"]["stop"]["kind"] == "answered" and first["kind"] == "mask" and not some and len(found) == 1:
        yield "it was answered, and no pixel is certified"
    if check.mask_taus:
        yield from _score_faults(data, labels, check.classes)


def _answer_faults(check: RunCheck, data: dict[str, Any]) -> Iterator[str]:
    wanted = set(check.methods) if check.request.get("task") == "classes" else set()
    if set(data["clean"]) != wanted:
        yield f"clean predictions are of {sorted(data['clean'])}, not of {sorted(wanted)}"
    if any(value >= check.classes for value in data["clean"].values()):
        yield f"a clean prediction is none of the {check.classes} classes"
    if not check.mask_taus and data["scores"]:
        yield "what is no mask has no scores"


_ORDERED = (
    ("guaranteed Dice", "certified Dice (published)"),
    ("guaranteed Dice", "best-case Dice"),
    ("guaranteed IoU", "certified IoU (published)"),
    ("guaranteed IoU", "best-case IoU"),
    ("guaranteed IoU", "guaranteed Dice"),
)


def _score_faults(data: dict[str, Any], labels: set[str], classes: int) -> Iterator[str]:
    """Scores need the truth, which is not here; these are checked to be possible."""
    if data["scores"] and set(data["scores"]) != labels:
        yield f"scores are of {sorted(data['scores'])}, not of {sorted(labels)}"
        return
    for label, scores in data["scores"].items():
        per_class = scores.get("per_class") if isinstance(scores, dict) else None
        whole = scores.get("whole") if isinstance(scores, dict) else None
        if not isinstance(per_class, dict) or not isinstance(whole, dict) or scores.get("empty") not in _EMPTY:
            yield f"scores of {label!r:.80} lack their fields"
            continue
        rows = list(per_class.values())
        numbers = [one for row in rows if isinstance(row, list) for one in row if one is not None]
        if not all(isinstance(row, list) and len(row) == classes for row in rows):
            yield f"scores of {label!r:.80} are not of {classes} classes"
        elif not all(_share(one) for one in [*numbers, *whole.values()]):
            yield f"scores of {label!r:.80} are no shares from 0 to 1"
        elif any(
            low is not None and high is not None and low > high + 1e-12
            for less, more in _ORDERED
            for low, high in zip(per_class.get(less, []), per_class.get(more, []))
        ) or whole.get("certified accuracy", 0) > whole.get("best-case accuracy", 1):
            yield f"scores of {label!r:.80} have a lower bound above an upper one"


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _belongs(check: RunCheck, item: str, certificate: dict[str, Any]) -> Iterator[str]:
    """Does a certificate, sound in itself, agree with its record and with the manifest?"""
    request, samples, claim = check.request, certificate["samples"], certificate["claim"]
    kind, task = certificate["kind"], request.get("task")
    if kind != task and not (kind == "mask" and task == "interval" and check.mask_taus):
        yield f"it is of kind {kind!r}, the run's task is {task!r:.40}"
        return
    if certificate["item"] != item:
        yield f"it is about {certificate['item']!r:.120}, its line about {item!r:.120}"
    law = {"name": NAMED.get(str(request.get("noise"))), "sigma": request.get("sigma")}
    law |= {"k": GRID_STEPS} if request.get("noise") == "grid" else {}
    for name, mine, its in (
        ("seed", certificate["seed"], request.get("seed")),
        ("space", certificate["space"], request.get("space")),
        ("n0", samples["n0"], 0 if kind == "interval" else request.get("n0")),
        ("budget", samples["budget"], request.get("budget")),
        ("law", certificate["law"], law),
        ("total alpha", certificate["alpha"]["total"], request.get("alpha")),
    ):
        if mine != its:
            yield f"{name}={mine!r:.80} is not the run's {name}={its!r:.80}"
    target = request.get("target")
    target = target if isinstance(target, dict) else {}
    if kind == "classes":
        yield from _differs("bound", claim["bound"], target.get("bound"))
        yield from _differs("number of classes", len(claim["counts"]), check.classes)
        taus = 1
    elif kind == "interval":
        yield from request_faults(claim, target)
        taus = 1
    else:
        yield from _differs("correction", claim["correction"], target.get("correction"))
        yield from _differs("number of classes", claim["num_classes"], check.classes)
        taus = len(check.mask_taus)
    yield from varied_faults(certificate, request)
    share, chosen = certificate["alpha"], certificate["chosen_from"]
    of, why = (taus, "taus") if taus > 1 else (len(chosen), "methods") if chosen else (1, "alone")
    if (share["of"], share["why"]) != (of, why):
        yield f"its alpha is shared {share['why']!r} by {share['of']}, the run's is shared {why!r} by {of}"
    if samples["stop"]["kind"] == "interrupted":
        yield "it was interrupted, which no image of a run is"
    shape = check.part("model").get("input_shape")
    if shape is not None and certificate["space"] == "model input" and certificate["shape"] != shape:
        yield f"shape {certificate['shape']} is not the {shape!r:.80} of the run's model"
    yield from _method_faults(check, certificate)
    yield from _provenance_faults(check, certificate["provenance"])


def _differs(name: str, mine: Any, its: Any) -> Iterator[str]:
    if mine != its:
        yield f"{name} {mine!r:.40} is not the run's {its!r:.40}"


def _method_faults(check: RunCheck, certificate: dict[str, Any]) -> Iterator[str]:
    """A method's *kind* decides what its certificates may cover, whatever it is called."""
    method = check.methods.get(certificate["method"])
    if method is None:
        yield f"the run has no method {certificate['method']!r:.80}"
        return
    if certificate["scope"] != method.get("scope"):
        yield f"scope {certificate['scope']!r} is not the {method.get('scope')!r:.40} of its method"
    if method.get("kind") in FROZEN_KINDS and certificate["scope"] == "end-to-end":
        yield f"a method of kind {method.get('kind')!r} cannot be end-to-end"
    if (method.get("kind") == "split") != (certificate["views"] is not None):
        yield f"views={certificate['views']} do not belong to a method of kind {method.get('kind')!r:.40}"
    model = certificate["provenance"]["model"]
    if model != method.get("identity"):
        yield f"model {model!r:.80} is not the {method.get('identity')!r:.80} of its method"


def _provenance_faults(check: RunCheck, own: dict[str, Any]) -> Iterator[str]:
    run, speed = check.part("provenance"), check.request.get("speed")
    if own["device"].partition(":")[0] != str(run.get("device")).partition(":")[0]:
        yield f"device {own['device']!r:.40} is not the run's {run.get('device')!r:.40}"
    precision = speed.get("precision") if isinstance(speed, dict) else None
    if precision is not None and own["dtype"].split()[0].strip(",") != precision:
        yield f"dtype {own['dtype']!r:.40} is not the {precision!r:.40} that was requested"
    engine = speed.get("engine") if isinstance(speed, dict) else None
    if engine is not None and own["dtype"].partition(",")[0].partition(" in ")[2] != (
        "" if engine in ("torch", "compile") else engine
    ):
        yield f"dtype {own['dtype']!r:.40} is not that of engine {engine!r:.40}, which was requested"
    if "dtype" in run and own["dtype"].split()[0].strip(",") != str(run["dtype"]).split()[0].strip(","):
        yield f"dtype {own['dtype']!r:.40} is not the run's {run['dtype']!r:.40}"
    named = run.get("versions")
    named = named if isinstance(named, dict) else {}
    for part in ("versions", "decoders"):
        for name, version in own[part].items():
            if name == "python":  # shards may run under several
                continue
            first = check.versions.setdefault((part, name), version)
            its = named.get(name, first) if part == "versions" else first
            if version != its:
                yield f"{name} {version!r:.40} is not the run's {its!r:.40}"
    missing = {name for name in ("certimed", "torch", "numpy", "scipy") if name not in own["versions"]}
    if missing:
        yield f"it does not say the version of {', '.join(sorted(missing))}"


def _whole_faults(check: RunCheck, allow_incomplete: bool) -> Iterator[str]:
    expected, found = check.meant("images"), len(check.items)
    if isinstance(expected, bool) or not isinstance(expected, int):
        yield "the manifest does not say how many images the run has"
    elif found > expected:
        yield f"it holds {found} images, the run has {expected}"
    elif found < expected:
        if not allow_incomplete:
            yield f"{expected - found} of {expected} images are missing"
    elif check.meant("ids_sha256") != ids_digest(check.items):
        yield "its images are not those the run was started with (ids_sha256 does not match)"
