"""A run on disk: ``run.json`` (everything needed to redo it) and ``certificates.jsonl`` (append-only)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.runs.records import ClassRecord

MANIFEST = "run.json"
CERTIFICATES = "certificates.jsonl"
SCHEMA = "certimed/run/1"


class RunFolder:
    """Handle of one run folder.

    Use :meth:`create` for a new run and :meth:`open` to read one. A line is on disk (flushed and synced) when
    :meth:`append` returns, so a stop loses at most the image in flight.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(cls, path: str | Path, manifest: dict[str, Any]) -> RunFolder:
        """Make a new run folder and write its manifest.

        Raises:
            InputError: the folder has content already, or cannot be written.
        """
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not empty; choose another --out, nothing was overwritten")
        content = {"schema": SCHEMA, **manifest}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / MANIFEST, json.dumps(content, indent=2, allow_nan=False) + "\n")
            (folder / CERTIFICATES).touch()
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
        return cls(folder, content)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Read an existing run folder; raises InputError if it is none."""
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError as error:
            raise InputError(f"{folder} is no run folder: it has no {MANIFEST}") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{folder / MANIFEST} cannot be read: {error}") from error
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            raise InputError(f"{folder / MANIFEST} is not a manifest of schema {SCHEMA}")
        return cls(folder, manifest)

    def append(self, record: ClassRecord) -> None:
        """Add one line and make it durable before returning.

        Raises:
            InputError: the disk is full or the folder cannot be written any more.
        """
        try:
            with (self.path / CERTIFICATES).open("a", encoding="utf-8") as stream:
                stream.write(record.to_json() + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise InputError(
                f"{self.path / CERTIFICATES} cannot be written ({error.strerror}); what was certified before is kept"
            ) from error

    def records(self) -> Iterator[ClassRecord]:
        """All lines, in the order they were written; raises InputError naming the first line that is broken."""
        path = self.path / CERTIFICATES
        try:
            with path.open(encoding="utf-8") as stream:
                for number, line in enumerate(stream, 1):
                    try:
                        yield ClassRecord.from_json(line)
                    except InputError as error:
                        raise InputError(f"{path} line {number}: {error}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or leave what was there: a temporary file beside it, synced, then renamed."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
