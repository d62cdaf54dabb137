"""A run on disk: ``run.json`` (everything needed to redo it) and ``certificates.jsonl`` (append-only)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from certimed.errors import InputError
from certimed.integrity import (
    RUN_SCHEMA,
    SETTINGS_DIGEST,
    line_digest,
    run_digest,
    seal_line,
    seal_manifest,
    strict_json,
    write_whole,
)
from certimed.runs.lock import LOCK, FolderLock
from certimed.runs.manifest import check_same_run
from certimed.runs.record import CERTIFIED, FAILED, Record
from certimed.runs.sharding import Shard

MANIFEST = "run.json"
CERTIFICATES = "certificates.jsonl"
TIMING = "timing.jsonl"
ATTACKS = "attacks.jsonl"
PERTURBATIONS = "attacks"
_PART = ".part"  # what a killed write of the manifest leaves


class RunFolder:
    """Handle of one run folder.

    Use :meth:`create` for a new run, :meth:`resume` to go on with one, :meth:`open` to read one. The first two hold the
    folder's lock until :meth:`close` (or the end of the process). A line is on disk (flushed and synced) when
    :meth:`append` returns, so a stop, however hard, loses at most the image in flight.

    Attributes:
        path: the folder.
        manifest: content of ``run.json``.
        repaired: bytes of an unfinished last line that :meth:`resume` cut off; 0 after a clean stop.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], lock: FolderLock | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.repaired = 0
        self._lock = lock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {'writable' if self._lock else 'read only'})"

    @classmethod
    def create(
        cls, path: str | Path, manifest: Mapping[str, Any], *, shard: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Make a new run folder, lock it and write its manifest.

        Args:
            path: new or empty folder.
            manifest: plain JSON types; see ``docs/runs.md`` for the names the verifier knows.
            shard: for a part of a run, :meth:`Shard.section`.

        Raises:
            InputError: the folder has content already, is locked, or cannot be written.
        """
        folder = Path(path)
        content = {"schema": RUN_SCHEMA, **manifest}
        if shard is not None:
            content["shard"] = dict(shard)
        content = seal_manifest(json.loads(json.dumps(content, allow_nan=False)))
        try:
            if not _is_new(folder):
                raise InputError(f"{folder} exists and is not empty; choose another --out, nothing was overwritten")
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder)
            if not _is_new(folder):
                raise InputError(f"{folder} was filled by another process just now; choose another --out")
            (folder / CERTIFICATES).touch()
            text = json.dumps(content, indent=2, allow_nan=False) + "\n"
            write_whole(folder / MANIFEST, lambda stream: stream.write(text))
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
        return cls(folder, content, lock)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Read an existing run folder; raises InputError if it is none."""
        folder = Path(path)
        try:
            text = (folder / MANIFEST).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{folder} is not a run folder: it has no {MANIFEST}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{folder / MANIFEST} cannot be read: {error}") from error
        manifest = strict_json(text, str(folder / MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("schema") != RUN_SCHEMA:
            raise InputError(f"{folder / MANIFEST} is not a manifest of schema {RUN_SCHEMA}")
        return cls(folder, manifest)

    @classmethod
    def resume(
        cls, path: str | Path, manifest: Mapping[str, Any], *, shard: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Lock an existing run folder to go on with it, and cut off a line that a hard stop left unfinished.

        Args:
            path: the run folder.
            manifest: what the run would be started with now.
            shard: as in :meth:`create`.

        Raises:
            InputError: no run folder, locked by another process, a manifest that was edited, or a changed setting,
                model or data set, which is named with its old and new value.
        """
        found = cls.open(path)
        check_same_run(found.path / MANIFEST, found.manifest, {"schema": RUN_SCHEMA, **manifest})
        was, now = _shard_name(found.manifest.get("shard")), _shard_name(shard)
        if was != now:
            raise InputError(f"{found.path} holds {was} and cannot go on with {now}; repeat --shard as it was")
        found._lock = FolderLock(found.path)
        try:
            found.repaired = cut_torn_line(found.path / CERTIFICATES)
            cut_torn_line(found.path / TIMING)
        except OSError as error:
            found.close()
            raise InputError(f"{found.path} cannot be written ({error.strerror}); check its permissions") from error
        return found

    def close(self) -> None:
        """Release the lock; the folder can still be read through this handle."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def task(self) -> str:
        """Kind of the certificates: ``"classes"`` or ``"mask"``; InputError if the manifest is malformed."""
        request = self.manifest.get("request")
        task = request.get("task") if isinstance(request, dict) else None
        if not isinstance(task, str):
            raise InputError(f"{self.path / MANIFEST} does not say what was asked for; restore the file")
        return task

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        found = self.manifest.get("classes")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def methods(self) -> list[dict[str, Any]]:
        """The methods as the manifest records them: name, kind, scope, identity."""
        found = self.manifest.get("methods")
        if not isinstance(found, list) or not all(isinstance(one, dict) and "name" in one for one in found):
            raise InputError(f"{self.path / MANIFEST} does not list its methods; restore the file")
        return found

    @property
    def shard(self) -> Shard | None:
        """Which part of a run this folder holds, or None for a whole run; InputError if the manifest is malformed."""
        section = self.manifest.get("shard")
        if section is None:
            return None
        try:
            return Shard(int(section["index"]), int(section["count"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path / MANIFEST} names no shard that exists; restore the file") from error

    def append(self, record: Record) -> None:
        """Add one line and make it durable before returning.

        Raises:
            InputError: the disk is full or the folder cannot be written any more; the unfinished line is taken back.
                The handle was opened for reading, or closed.
        """
        line = seal_line(record.to_json(), self.manifest[SETTINGS_DIGEST])
        checks = {"one_answer": record.checks} if record.checks else {}
        seen = {"clean_pixels": list(record.clean_pixels)} if record.clean_pixels else {}
        timing = json.dumps({"item": record.item, "seconds": round(record.seconds, 6), **seen, **checks})
        self.append_lines([line], [timing])

    def append_lines(self, lines: list[str], timings: list[str]) -> None:
        """Add sealed lines and their timings as they are; errors as :meth:`append`."""
        if self._lock is None:
            raise InputError(f"{self.path} is open for reading only; use RunFolder.resume to go on with it")
        try:
            # Timing first: were the process killed in between, the image is done again and its later timing counts.
            append_whole(self.path / TIMING, timings, durable=False)
            append_whole(self.path / CERTIFICATES, lines, durable=True)
        except OSError as error:
            raise InputError(
                f"{self.path / CERTIFICATES} cannot be written ({error.strerror}); what was certified before is kept"
            ) from error

    def lines(self) -> Iterator[tuple[int, str]]:
        """Number (from 1) and text of every line as it was written; raises InputError if the file cannot be read."""
        path = self.path / CERTIFICATES
        try:
            with path.open(encoding="utf-8", newline="\n") as stream:
                for number, line in enumerate(stream, 1):
                    yield number, line.removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    def status(self) -> dict[str, tuple[int, str]]:
        """Line number and status (``"certified"`` or ``"failed"``) of every item; its last line counts.

        Raises:
            InputError: names the first broken line.
        """
        found: dict[str, tuple[int, str]] = {}
        for number, line in self.lines():
            try:
                data = json.loads(line)
                found[data["item"]] = (number, data["status"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{self.path / CERTIFICATES} line {number} is broken; restore the file from a copy"
                ) from error
        return found

    def finished(self, *, retry_failed: bool = False) -> set[str]:
        """Items that need no work: certified, and unless ``retry_failed`` also failed ones."""
        wanted = (CERTIFIED,) if retry_failed else (CERTIFIED, FAILED)
        return {item for item, (_, status) in self.status().items() if status in wanted}

    def records(self) -> Iterator[Record]:
        """The record of every item, in the order written; a failure that was retried gives way to its later line.

        Raises:
            InputError: names the first broken line.
        """
        status = self.status()
        current = {number: item for item, (number, _) in status.items()}
        seconds, seen = self.timings(), self.clean_pixels()
        for number, line in self.lines():
            if number not in current:
                continue
            try:
                item = current[number]
                record = Record.from_json(line, self.path, seconds.get(item, 0.0), seen.get(item, ()))
            except InputError as error:
                raise InputError(f"{self.path / CERTIFICATES} line {number}: {error}") from error
            yield record

    def timings(self) -> dict[str, float]:
        """Seconds spent on each item, where known. No evidence: unreadable lines are passed over."""
        found: dict[str, float] = {}
        for item, data in self.beside().items():
            with suppress(ValueError, KeyError, TypeError, OverflowError):
                seconds = float(data["seconds"])
                if math.isfinite(seconds):
                    found[item] = seconds
        return found

    def clean_pixels(self) -> dict[str, tuple[int, ...]]:
        """Of masks: pixels of each class that the network answers without noise, where known. No evidence either."""
        found: dict[str, tuple[int, ...]] = {}
        for item, data in self.beside().items():
            counts = data.get("clean_pixels")
            if isinstance(counts, list) and all(isinstance(count, int) for count in counts):
                found[item] = tuple(counts)
        return found

    def beside(self) -> dict[str, dict[str, Any]]:
        """What is kept beside each item's certificate, its last line: seconds, and what was seen on the way."""
        found: dict[str, dict[str, Any]] = {}
        with suppress(OSError, UnicodeDecodeError), (self.path / TIMING).open(encoding="utf-8") as stream:
            for line in stream:
                with suppress(ValueError, KeyError, TypeError, RecursionError):
                    data = json.loads(line)
                    found[str(data["item"])] = dict(data)
        return found

    def digest(self) -> str:
        """Hex SHA-256 of the run's settings and all its current lines, whatever their order.

        Equal for one run and for its merged shards. Noted elsewhere (a report, a registry), it shows any later change.
        """
        current = {number for number, _ in self.status().values()}
        digests = [line_digest(line) or "" for number, line in self.lines() if number in current]
        return run_digest(self.manifest.get(SETTINGS_DIGEST, ""), digests)


def _is_new(folder: Path) -> bool:
    """Whether nothing would be lost: no folder, an empty one, or what a killed :meth:`RunFolder.create` left."""
    if not folder.exists():
        return True
    leftovers = {LOCK, MANIFEST + _PART, CERTIFICATES}
    return folder.is_dir() and all(
        entry.name in leftovers and (entry.name != CERTIFICATES or entry.stat().st_size == 0)
        for entry in folder.iterdir()
    )


def append_whole(path: Path, lines: list[str], *, durable: bool) -> None:
    """Append lines to a file, all of them or none; OSError where they cannot be written."""
    data = memoryview("".join(line + "\n" for line in lines).encode())
    # Without O_BINARY Windows would change line ends, and with them every digest.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            if durable:
                os.fsync(descriptor)
        except OSError:
            # Half a line would be repaired on resume; without it the folder is whole at once.
            with suppress(OSError):
                os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def cut_torn_line(path: Path, block: int = 1 << 16) -> int:
    """Cut the bytes after the last line end; returns how many."""
    if not path.exists():
        return 0
    with path.open("r+b") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - block)
            stream.seek(begin)
            newline = stream.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end < size:
            stream.truncate(end)
            os.fsync(stream.fileno())
    return size - end


def _shard_name(section: Any) -> str:
    if not isinstance(section, Mapping):
        return "the whole run"
    return f"shard {section.get('index')!s:.20}/{section.get('count')!s:.20}"
