"""What a run was started with, and how a changed setting is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from certimed.data import Dataset, identity
from certimed.data.files import stored_files
from certimed.errors import InputError
from certimed.integrity import ids_digest, manifest_fault, settings_of

_SHOWN = 3


def data_section(dataset: Dataset, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``data`` part of a manifest: what was certified, in digests.

    Args:
        dataset: the whole data set of the run, before it is sharded.
        previous: the ``data`` part of the run being resumed. Where sizes and times of all files are those seen then,
            its digest of the contents is taken over; else every file is hashed again.

    Returns:
        ``source``, ``identity`` (SHA-256 of ids, labels, class names and stored bytes), ``images``, ``ids_sha256``,
        ``stat`` (digest of file sizes and times; no evidence, a shortcut), ``ignored_files``, ``reading``.
    """
    stat = _stat_digest(dataset)
    known = previous.get("identity") if previous and stat and previous.get("stat") == stat else None
    return {
        "source": dataset.source,
        "identity": known if isinstance(known, str) else identity(dataset),
        "images": len(dataset),
        "ids_sha256": ids_digest(dataset.ids),
        "stat": stat,
        "ignored_files": dataset.ignored,
        "reading": json.loads(json.dumps(asdict(dataset.options))),
    }


def _stat_digest(dataset: Dataset) -> str | None:
    """Digest of ids, labels, sizes and modification times, or None if a file cannot be seen."""
    found = hashlib.sha256(repr((dataset.class_names, dataset.source)).encode(errors="surrogatepass"))
    try:
        for item in dataset.items:
            entry: list[object] = [item.id, item.label]
            files = stored_files(item.image) if isinstance(item.image, Path) else (Path(dataset.source),)
            for path in (*files, *([item.mask] if item.mask else [])):
                seen = path.stat()
                entry += [str(path), seen.st_size, seen.st_mtime_ns]
            found.update(repr(entry).encode(errors="surrogatepass"))
    except OSError:
        return None
    return found.hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings in which two manifests differ, each as ``"settings.sigma was 0.25 and is now 0.5"``."""
    return [f"{path} was {_show(a)} and is now {_show(b)}" for path, a, b in _walk(settings_of(old), settings_of(new))]


def check_same_run(where: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose settings, model or data are not those it was started with.

    Raises:
        InputError: names what differs, old and new value.
    """
    fault = manifest_fault(old)
    if fault is not None:
        raise InputError(f"{where} cannot be resumed: {fault}; restore the file, or start a new run")
    found = differences(old, json.loads(json.dumps(new)))
    if found:
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        raise InputError(
            f"{where.parent} was started with other settings: {'; '.join(found[:_SHOWN])}{more}; "
            "repeat the settings it was started with, or start a new run"
        )


class _Missing:
    def __repr__(self) -> str:
        return "absent"


_MISSING = _Missing()


def _walk(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            where = f"{path}.{name}" if path else str(name)
            yield from _walk(old.get(name, _MISSING), new.get(name, _MISSING), where)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new)):
            yield from _walk(a, b, f"{path}[{index}]")
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, _Missing) else json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"
