"""Is an evidence pack what its digests, its signature and its runs say?"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import InputError, require
from certimed.integrity import PACK_SCHEMA, SIGNATURE_SCHEMA, digest, pack_message, strict_json
from certimed.verification.runs import Fault
from certimed.verification.verify import Verdict, verify

MANIFEST, SIGNATURE, STATEMENT, RUNS = "manifest.json", "signature.json", "statement.json", "runs"
_HEX = 64


@dataclass
class PackCheck:
    """What is gathered while a pack is read.

    Attributes:
        folder: the pack.
        root: digest of all its files, recomputed.
        files: number of files that are as they were packed.
        signed_by: fingerprint of the key that signed it (SHA-256 of the raw public key), where it is signed.
        key_checked: whether that is the key which was asked for.
    """

    folder: Path
    root: str = ""
    files: int = 0
    signed_by: str | None = None
    key_checked: bool = False


def is_pack(folder: Path) -> bool:
    """Whether a folder calls itself a pack; every run folder has another manifest."""
    return (folder / MANIFEST).is_file()


def pack_faults(check: PackCheck, key: Path | None, expect: str | None) -> Iterator[Fault]:
    """Files changed, missing or added; another root digest than expected; a signature that does not hold.

    Args:
        check: filled in on the way.
        key: the public key that must have signed the pack, as PEM or in OpenSSH's format.
        expect: the root digest as it was noted elsewhere.
    """
    manifest = _read(check.folder / MANIFEST)
    if manifest.get("schema") != PACK_SCHEMA:
        raise InputError(f"{check.folder / MANIFEST} is of schema {manifest.get('schema')!r:.80}, not {PACK_SCHEMA!r}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(v, str) and len(v) == _HEX for v in files.values()):
        yield MANIFEST, "it lists no files with their SHA-256"
        return
    check.root = digest(files)
    if set(manifest) != {"schema", "root", "files"} or manifest.get("root") != check.root:
        yield MANIFEST, "its root is not the digest of the files it lists"
    if expect is not None and expect.strip().lower() != check.root:
        yield MANIFEST, f"its root is {check.root}, not the expected {expect.strip()[:80]}"
    found = _files(check.folder)
    yield from ((name, "it is missing") for name in sorted(set(files) - set(found)))
    yield from ((name, "it was not packed") for name in sorted(set(found) - set(files)))
    for name in sorted(set(found) & set(files)):
        if found[name].is_symlink() or hashlib.sha256(found[name].read_bytes()).hexdigest() != files[name]:
            yield name, "it was changed after it was packed (SHA-256 differs)"
        else:
            check.files += 1
    yield from _signature_faults(check, key)


def run_folders(check: PackCheck) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder of each run that the statement names, and what the statement sums up of it; InputError where it names a
    run that no pack can hold."""
    statement = _read(check.folder / STATEMENT)
    runs = statement.get("runs")
    for one in runs if isinstance(runs, list) else []:
        name, summary = one.get("name"), one.get("summary")
        if not isinstance(name, str) or not isinstance(summary, dict) or "/" in name or name.startswith("."):
            raise InputError(f"{check.folder / STATEMENT} names a run {name!r:.80} that no pack can hold")
        yield check.folder / RUNS / name, summary


def fingerprint(public: Any) -> str:
    """Hex SHA-256 of a raw Ed25519 public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def public_key(path: Path) -> Any:
    """An Ed25519 public key of a file, PEM or OpenSSH's; InputError for anything else."""
    serialization = require("cryptography.hazmat.primitives.serialization", "pack")
    try:
        data = path.read_bytes()
        load: Callable[[bytes], Any] = serialization.load_pem_public_key
        if data.lstrip().startswith(b"ssh-"):
            load = serialization.load_ssh_public_key
        return check_ed25519(load(data), path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a public key: {error}") from error


def check_ed25519(key: Any, path: Path) -> Any:
    """The key; InputError unless it is an Ed25519 one."""
    if "ed25519" not in type(key).__name__.lower():
        raise InputError(f"{path} is no Ed25519 key; make one with: ssh-keygen -t ed25519 -N '' -f key")
    return key


def _signature_faults(check: PackCheck, key: Path | None) -> Iterator[Fault]:
    path = check.folder / SIGNATURE
    if not path.is_file():
        if key is not None:
            yield SIGNATURE, f"the pack is not signed, and {key} was to have signed it"
        return
    data = _read(path)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", "pack")
    invalid = require("cryptography.exceptions", "pack").InvalidSignature
    if data.get("schema") != SIGNATURE_SCHEMA or set(data) != {"schema", "algorithm", "public_key", "signature"}:
        yield SIGNATURE, f"it is no signature of schema {SIGNATURE_SCHEMA}"
        return
    try:
        own = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(data["public_key"], validate=True))
        own.verify(base64.b64decode(data["signature"], validate=True), pack_message(check.root))
    except (ValueError, TypeError, invalid):
        yield SIGNATURE, "it is not of these files: the signature does not hold"
        return
    check.signed_by = fingerprint(own)
    if key is not None:
        check.key_checked = fingerprint(public_key(key)) == check.signed_by
        if not check.key_checked:
            yield SIGNATURE, f"another key than {key} made it (its fingerprint is {check.signed_by})"


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: path for name, path in found.items() if name not in (MANIFEST, SIGNATURE)}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = strict_json(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold an object with named fields")
    return data


@dataclass(frozen=True)
class PackVerdict:
    """What :func:`verify_pack` found.

    Attributes:
        path: the pack.
        faults: false statements as (where, what), at most 20 a run; empty if all hold.
        files: files that are as they were packed.
        verdicts: of its runs, by name.
        root: the digest of all files.
        signed_by: fingerprint of the key that signed it, or None.
        key_checked: whether that is the key that was asked for.
    """

    path: Path
    faults: tuple[Fault, ...]
    files: int
    verdicts: dict[str, Verdict]
    root: str
    signed_by: str | None
    key_checked: bool

    @property
    def ok(self) -> bool:
        """Whether everything that was checked is true."""
        return not self.faults


def verify_pack(path: str | Path, *, key: str | Path | None = None, expect: str | None = None) -> PackVerdict:
    """Check an evidence pack: every file's digest, the root, the signature, and every statement of every run in it.

    Needs no model and no data. Whoever changes a file and writes all digests anew is found by the signature, or by the
    root noted elsewhere; what follows from the counts of the runs is recomputed in any case.

    Args:
        path: the folder of the pack.
        key: the public key that must have signed it, as PEM or in OpenSSH's format.
        expect: its root digest, as it was noted elsewhere when the pack was made.

    Raises:
        InputError: there is no pack, or the key cannot be read. MissingExtraError: mpmath, or for a signature
            cryptography, is not installed.
    """
    check = PackCheck(Path(path))
    faults = list(pack_faults(check, None if key is None else Path(key), expect))
    verdicts: dict[str, Verdict] = {}
    if (check.folder / STATEMENT).is_file():
        for folder, noted in run_folders(check):
            found = verify(folder, expect=str(noted.get("digest")), allow_incomplete=noted.get("complete") is not True)
            faults += [(f"{folder.name}: {where}", what) for where, what in found.faults]
            counted = {"certified": found.images - found.failed, "failed": found.failed}
            wrong = [name for name, count in counted.items() if noted.get(name) != count]
            faults += [(STATEMENT, f"{folder.name} has {counted[name]} {name} images, not so many") for name in wrong]
            verdicts[folder.name] = found
    if not verdicts:
        faults.append((STATEMENT, "it names no run"))
    return PackVerdict(
        check.folder, tuple(faults), check.files, verdicts, check.root, check.signed_by, check.key_checked
    )
