"""One writer a run folder: a lock that dies with its process."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from weakref import finalize

from certimed.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class FolderLock:
    """Exclusive right to write a run folder, held until :meth:`release` or the end of the process, however it ends.

    On POSIX systems the kernel holds the lock (``flock``), so one left by a killed process is stale by itself.
    Elsewhere the open file is the lock: it cannot be removed while its process lives. The file names the process for
    whoever is refused.

    Raises:
        InputError: another process writes this folder, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        try:
            descriptor = _acquire(self.path)
        except BlockingIOError:
            raise InputError(
                f"{folder} is being written by another process ({_holder(self.path)}); wait for it, or stop it first"
            ) from None
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
        content = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # a full disk must not keep anyone from the lock; the words are only a courtesy
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(content).encode())
        self._close = finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Give the folder back; harmless when called twice."""
        self._close()


def _acquire(path: Path) -> int:
    if fcntl is None:
        return _acquire_by_open_file(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _acquire_by_open_file(path: Path) -> int:
    try:
        path.unlink(missing_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except (PermissionError, FileExistsError) as error:
        raise BlockingIOError from error


def _holder(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']!s:.80} since {content['since']!s:.40}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it left no name"
