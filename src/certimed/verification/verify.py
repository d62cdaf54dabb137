"""``verify``: one path in, a verdict out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from certimed.errors import InputError
from certimed.integrity import SETTINGS_DIGEST, strict_json
from certimed.verification.attacks import attack_faults
from certimed.verification.certificates import certificate_faults
from certimed.verification.runs import Fault, RunCheck, open_manifest, run_faults

SCHEMA = "certimed/certificate/2"
_MOST = 20


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` found.

    Attributes:
        path: what was checked.
        faults: false statements as (where, what), in the order of the files, at most 20; empty if all hold.
        images: images of the run, 1 for a single certificate.
        failed: images without certificates among them.
        certificates: certificates whose every number was recomputed.
        digest: of a run, what :meth:`certimed.runs.RunFolder.digest` gives; None for a single certificate.
    """

    path: Path
    faults: tuple[Fault, ...]
    images: int
    failed: int
    certificates: int
    digest: str | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that was checked is true."""
        return not self.faults


def verify(path: str | Path, *, expect: str | None = None, allow_incomplete: bool = False) -> Verdict:
    """Recompute every statement of a run folder, its attacks included, or of one certificate file, from its counts.

    The bounds are computed anew with exact rational recursions and 50-digit quantiles; needs no model, no data and no
    GPU. ``docs/verify.md`` lists what is caught and what cannot be.

    Args:
        path: a run folder, or a certificate's JSON (of a mask: with its npz beside it).
        expect: the run's digest as it was noted elsewhere when the run was finished; catches any later change at all.
        allow_incomplete: take missing images for images not done yet.

    Raises:
        InputError: there is nothing at the path that can be checked, or it is of another schema.
            MissingExtraError: mpmath is not installed.
    """
    target = Path(path)
    if target.is_dir():
        return _verify_run(target, expect, allow_incomplete)
    if expect is not None:
        raise InputError(f"--expect is the digest of a run, and {target} is a single file; leave it out")
    faults = tuple(islice(_file_faults(target), _MOST))
    return Verdict(target, faults, 1, 0, 1)


def _verify_run(folder: Path, expect: str | None, allow_incomplete: bool) -> Verdict:
    check = RunCheck(folder, open_manifest(folder))
    # Everything is read even after the last fault that is kept: the digest needs every line.
    faults: list[Fault] = []
    settings, noise = str(check.manifest.get(SETTINGS_DIGEST)), check.request.get("noise")
    for fault in chain(run_faults(check, allow_incomplete=allow_incomplete), attack_faults(folder, settings, noise)):
        if len(faults) < _MOST:
            faults.append(fault)
    if expect is not None and expect.strip().lower() != check.digest:
        faults.append(("the run", f"its digest is {check.digest}, not the expected {expect.strip()[:80]}"))
    failed = sum(status == "failed" for status in check.items.values())
    return Verdict(folder, tuple(faults), len(check.items), failed, check.certificates, check.digest)


def _file_faults(path: Path) -> Iterator[Fault]:
    if not path.exists():
        raise InputError(f"there is no run folder or certificate {path}; name a run's folder or a certificate's .json")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    try:
        data = strict_json(text, path.name)
    except InputError as error:
        yield path.name, str(error)
        return
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} is neither a run folder nor a certificate that this version reads: its schema is {schema!r:.80}, "
            f"not {SCHEMA!r}"
        )
    arrays = path.with_suffix(".npz") if data.get("kind") == "mask" else None
    yield from ((path.name, fault) for fault in certificate_faults(data, arrays))
