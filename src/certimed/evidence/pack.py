"""``pack``: runs in, one folder and one zip out."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from certimed import __version__
from certimed.attacks.page import SandwichPart
from certimed.errors import InputError, require
from certimed.evidence.document import as_pdf, require_weasyprint, test_report
from certimed.evidence.statement import Subject, statement
from certimed.integrity import PACK_SCHEMA, SIGNATURE_SCHEMA, digest, pack_message
from certimed.report.html import write_report
from certimed.report.html.page import PICTURE_BYTES
from certimed.report.series import named
from certimed.runs import RunFolder, as_yaml, redo_command
from certimed.verification import Verdict, verify

RUNS = "runs"
FURTHER = ("page.html", "report.pdf")
"""Files of a pack that do not follow from its runs alone: pictures, fonts and libraries have a part in them."""

KEPT = ("run.json", "certificates.jsonl", "attacks.jsonl")
KEPT_FOLDERS = ("arrays", "attacks")
"""What of a run folder a pack holds: all that its verification reads; no pictures, timings or locks."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Pack:
    """What was written.

    Attributes:
        folder, archive: the pack, and the same as one zip.
        root: digest of all its files; note it elsewhere.
        files: their number.
        signed: whether it is signed.
    """

    folder: Path
    archive: Path
    root: str
    files: int
    signed: bool


def pack(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    sign: str | Path | None = None,
    pdf: bool = True,
    pictures: bool = False,
) -> Pack:
    """Turn finished runs into evidence: one folder, and one zip beside it with equal bytes for equal runs.

    The pack holds the test report (``report.html``, ``report.pdf``), the interactive page (``page.html``), the
    machine-readable statement with its schema, requests and commands to do the runs again, the log of their
    verification, the runs themselves without images, and a manifest of the SHA-256 of every file.

    Args:
        runs: run folders of any kind.
        out: new folder.
        sign: an Ed25519 private key, PEM or OpenSSH's, without passphrase.
        pdf: write the test report as PDF too (extra ``pack``).
        pictures: put small pictures of the images into ``page.html``; images of patients stay out otherwise.

    Raises:
        InputError: a run with a false statement or without certificates, a folder that has content, or a key that
            cannot be used. MissingExtraError: an extra that is needed is not installed.
    """
    folder = Path(out)
    archive = folder.with_name(folder.name + ".zip")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another --out, nothing was overwritten")
    if archive.exists():
        raise InputError(f"{archive} exists; choose another --out, nothing was overwritten")
    key = None if sign is None else _private_key(Path(sign))
    if pdf:
        require_weasyprint()
    found = _folders(runs)
    verdicts = {name: _verified(run) for name, run in found.items()}
    for name, run in found.items():
        _copy(run, folder / RUNS / name)
    subjects = read_subjects(folder)
    written = documents(subjects, verdicts)
    if pdf:
        identifier = hashlib.sha256(written["report.html"]).hexdigest()
        written["report.pdf"] = as_pdf(written["report.html"].decode(), identifier)
    for name, data in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    places = [run.path for run in found.values()] if pictures else [one.folder.path for one in subjects]
    limit = PICTURE_BYTES if pictures else 0
    write_report(places, folder / "page.html", picture_bytes=limit, more=(SandwichPart,))
    root = _seal(folder, key)
    return Pack(folder, _zip(folder, archive), root, sum(p.is_file() for p in folder.rglob("*")), key is not None)


def read_subjects(folder: Path) -> list[Subject]:
    """The runs of a pack, in the order of their names."""
    places = sorted(path for path in (folder / RUNS).iterdir() if path.is_dir())
    return [Subject.of(place.name, RunFolder.open(place)) for place in places]


def documents(subjects: Sequence[Subject], verdicts: Mapping[str, Verdict]) -> dict[str, bytes]:
    """The files of a pack that follow from its runs and this version alone: name to content.

    Args:
        subjects: the runs.
        verdicts: of their verification, by name.
    """
    stated = statement(subjects)
    schema = (files("certimed.evidence") / "statement.schema.json").read_bytes()
    redo = {f"redo/{one.name}.yaml": as_yaml(one.spec).encode() for one in subjects}
    commands = [redo_command(one.name, code=one.spec.model.startswith("python:")) for one in subjects]
    environment = {one.name: one.folder.manifest.get("provenance") for one in subjects}
    return {
        "report.html": test_report(stated, subjects).encode(),
        "statement.json": _json(stated),
        "statement.schema.json": schema,
        "environment.json": _json(environment),
        "verification.json": _json(
            {"certimed": __version__, "runs": [_log(one.name, verdicts[one.name]) for one in subjects]}
        ),
        "redo/commands.sh": ("#!/bin/sh\n" + "\n".join(commands) + "\n").encode(),
        **redo,
        **{f"attacks/{run['name']}.json": _json(run["attacks"]) for run in stated["runs"] if run["attacks"]},
    }


def _folders(runs: Sequence[str | Path]) -> dict[str, RunFolder]:
    if not runs:
        raise InputError("a pack needs at least one run folder; give e.g. runs/plip")
    found = named(runs)
    flat = {name.replace("/", "-").lstrip("."): run for name, run in found.items()}
    if len(flat) != len(found):
        raise InputError("two runs would have one name in the pack; rename one of their folders")
    return flat


def _verified(run: RunFolder) -> Verdict:
    verdict = verify(run.path, allow_incomplete=True)
    if not verdict.ok:
        place, fault = verdict.faults[0]
        raise InputError(f"{run.path} is not evidence: {place}: {fault:.300}; certimed verify {run.path} says all")
    return verdict


def _log(name: str, verdict: Verdict) -> dict[str, Any]:
    kept = ("images", "failed", "certificates", "digest")
    return {"name": name, "true": verdict.ok, **{key: getattr(verdict, key) for key in kept}}


def _copy(run: RunFolder, target: Path) -> None:
    try:
        target.mkdir(parents=True)
        for name in KEPT:
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, target / name)
        for name in KEPT_FOLDERS:
            if (run.path / name).is_dir():
                shutil.copytree(run.path / name, target / name, copy_function=shutil.copyfile)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); choose another --out") from error


def _seal(folder: Path, key: Any) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    root = digest(listed)
    (folder / "manifest.json").write_bytes(_json({"schema": PACK_SCHEMA, "root": root, "files": listed}))
    if key is not None:
        made = {
            "schema": SIGNATURE_SCHEMA,
            "algorithm": "Ed25519",
            "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
            "signature": base64.b64encode(key.sign(pack_message(root))).decode(),
        }
        (folder / "signature.json").write_bytes(_json(made))
    return root


def _zip(folder: Path, archive: Path) -> Path:
    """One zip with the folder's files in order, without times and owners."""
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            target.writestr(entry, path.read_bytes(), compresslevel=9)
    return archive


def _private_key(path: Path) -> Any:
    serialization = require("cryptography.hazmat.primitives.serialization", "pack")
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", "pack")
    try:
        data = path.read_bytes()
        openssh = b"OPENSSH PRIVATE KEY" in data
        load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
        key = load(data, password=None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--sign {path} cannot be read as a private key without passphrase: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InputError(f"--sign {path} is no Ed25519 key; make one with: ssh-keygen -t ed25519 -N '' -f key")
    return key


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, allow_nan=False, ensure_ascii=True) + "\n").encode()
