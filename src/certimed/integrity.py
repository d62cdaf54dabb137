"""Digests that make edits visible: of a manifest, of a line of a run, of a whole run. Standard library only.

Writers and the verifier share these functions and nothing else: what they compute is defined here, in bytes.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import IO, Any, TypeVar

from certimed.errors import InputError

T = TypeVar("T")

RUN_SCHEMA = "certimed/run/2"
PACK_SCHEMA = "certimed/pack/1"
SIGNATURE_SCHEMA = "certimed/signature/1"
SETTINGS_DIGEST = "settings_sha256"
MANIFEST_DIGEST = "sha256"

VOLATILE = (
    "created",
    "local",
    "shard",
    SETTINGS_DIGEST,
    MANIFEST_DIGEST,
    "model.name",
    "request.model",
    "request.denoiser",
    "request.methods",
    "request.device",
    "request.batch_size",
    "request.data.path",
    "request.data.labels",
    "request.data.masks",
    "data.source",
    "data.stat",
    "data.ignored_files",
    "provenance.device_name",
    "provenance.versions.python",
)
"""Parts of a manifest that may differ between machines and shards of one run; everything else is a setting."""

BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
)
"""What reading a damaged zip of arrays raises (RuntimeError: an encrypted or unknown member; MemoryError: a size)."""

_MARK = ', "sha256": "'
_HEX = 64
_LONGEST_INTEGER = 40


_PART = ".part"


def write_whole(path: Path, write: Callable[[IO[str]], T]) -> T:
    """Write a whole file or leave what was there: a temporary file beside it, synced, then renamed.

    Args:
        path: the file.
        write: writes the content to a text stream; what it returns is returned.

    Raises:
        InputError: the file cannot be written.
    """
    part = path.with_name(path.name + _PART)
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            result = write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror})") from error
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return result


def strict_json(text: str, what: str) -> Any:
    """Parse JSON that two parsers cannot read differently: no repeated keys, no NaN, no infinity, no huge integers.

    Raises:
        InputError: the text is not such JSON; the message begins with ``what``.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{what} is not valid JSON: {reason}") from error


def canonical(value: Any) -> bytes:
    """One spelling of a JSON value: sorted keys, no spaces, ASCII, every bit of a float."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """Hex SHA-256 of :func:`canonical`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def pack_message(root: str) -> bytes:
    """What is signed of a pack: its schema and the digest of all its files."""
    return f"{PACK_SCHEMA}\n{root}\n".encode()


def ids_digest(ids: Iterable[str]) -> str:
    """Hex SHA-256 of a set of item ids, whatever their order."""
    return digest(sorted(ids))


def settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a manifest that must be equal for two runs to be parts of one: all but :data:`VOLATILE`.

    Of the device only its kind counts: ``cuda:1`` draws the same noise as ``cuda:0``.
    """
    settings: dict[str, Any] = deepcopy(dict(manifest))
    for path in VOLATILE:
        *parents, last = path.split(".")
        place: Any = settings
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(last, None)
    provenance = settings.get("provenance")
    if isinstance(provenance, dict) and isinstance(provenance.get("device"), str):
        provenance["device"] = provenance["device"].partition(":")[0]
    return settings


def seal_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its two digests: of its settings, and of all of it."""
    sealed = {name: value for name, value in manifest.items() if name not in (SETTINGS_DIGEST, MANIFEST_DIGEST)}
    sealed[SETTINGS_DIGEST] = digest(settings_of(sealed))
    sealed[MANIFEST_DIGEST] = digest(sealed)
    return sealed


def manifest_fault(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with the digests of a manifest, in words; None if they hold."""
    if seal_manifest(manifest) == dict(manifest):
        return None
    if manifest.get(SETTINGS_DIGEST) != digest(settings_of(manifest)):
        return "its settings are not those the run was started with (settings_sha256 does not match)"
    return "it was changed after it was written (sha256 does not match)"


def seal_line(content: str, settings_digest: str) -> str:
    """A JSON object of one line with its digest added as last field ``sha256``.

    The digest covers the bytes before it and the settings of the run, so a line cannot be moved to another run.
    """
    head = content[:-1]
    return f'{head}{_MARK}{_line_digest(head, settings_digest)}"}}'


def line_digest(line: str) -> str | None:
    """The digest a line carries, or None if it carries none in the right place."""
    begin, end = len(line) - len(_MARK) - _HEX - 2, len(line) - 2
    if begin < 1 or not line.endswith('"}') or line[begin : begin + len(_MARK)] != _MARK:
        return None
    return line[begin + len(_MARK) : end]


def line_holds(line: str, settings_digest: str) -> bool:
    """Whether a line is, byte for byte, one that :func:`seal_line` made for these settings."""
    carried = line_digest(line)
    return carried is not None and carried == _line_digest(line[: len(line) - len(_MARK) - _HEX - 2], settings_digest)


def run_digest(settings_digest: str, line_digests: Iterable[str]) -> str:
    """Hex SHA-256 of a whole run, whatever the order of its lines: equal for one run and for its merged shards."""
    return digest([settings_digest, sorted(line_digests)])


def _line_digest(head: str, settings_digest: str) -> str:
    # A digest that was tampered with may hold what no encoding has: it fits no line, and is no reason to fail.
    return hashlib.sha256(f"{settings_digest}\n{head}".encode(errors="surrogatepass")).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r:.80} comes twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.20} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)
