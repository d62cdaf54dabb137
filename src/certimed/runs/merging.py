"""Several run folders, parts of one run, into one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.integrity import MANIFEST_DIGEST, SETTINGS_DIGEST, line_holds, manifest_fault
from certimed.runs.folder import ATTACKS, CERTIFICATES, MANIFEST, PERTURBATIONS, RunFolder, append_whole
from certimed.runs.manifest import differences
from certimed.runs.record import CERTIFIED, arrays_name

_BLOCK = 256


def merge(runs: Sequence[str | Path], out: str | Path) -> RunFolder:
    """Write one run folder holding every image of several, e.g. all shards of a run; the sources stay as they are.

    Lines are copied byte for byte, so after sorting they equal those of one undivided run. Failures that were retried
    are left out, and attacks are taken along. An image that failed in one part and is certified in another counts as
    certified.

    Args:
        runs: at least two run folders with the same settings, model and data, no image certified in two of them.
        out: new folder.

    Returns:
        the new run folder, locked for writing (close it, or resume with what is missing).

    Raises:
        InputError: different settings (named), an image in two of the folders, a broken line, or ``out`` is not empty.
    """
    parts = [RunFolder.open(path) for path in runs]
    if len(parts) < 2:
        raise InputError(f"{len(parts)} run folder given; name at least two to merge, e.g. runs/shard-1 runs/shard-2")
    first = parts[0]
    for part in parts:
        fault = manifest_fault(part.manifest)
        if fault is not None:
            raise InputError(f"{part.path / MANIFEST} cannot be merged: {fault}; restore the file")
        found = differences(first.manifest, part.manifest)
        if found:
            raise InputError(f"{part.path} and {first.path} are not parts of one run: {'; '.join(found[:3])}")
    chosen = _chosen_lines(parts)
    dropped = ("shard", SETTINGS_DIGEST, MANIFEST_DIGEST)
    for part, wanted in zip(parts, chosen):
        for _ in _blocks(part, wanted):  # every line is checked before anything is written
            pass
    attacks = [_attack_lines(part) for part in parts]
    manifest = {name: value for name, value in first.manifest.items() if name not in dropped}
    target = RunFolder.create(out, manifest)
    for part, wanted in zip(parts, chosen):
        _copy(part, wanted, target)
    for part, lines in zip(parts, attacks):
        _copy_attacks(part, lines, target)
    return target


def _chosen_lines(parts: Sequence[RunFolder]) -> list[set[int]]:
    """Line numbers to take from each part."""
    owner: dict[str, tuple[int, int, str]] = {}
    for index, part in enumerate(parts):
        for item, (number, status) in part.status().items():
            before = owner.get(item)
            if before is not None and before[2] == status == CERTIFIED:
                raise InputError(
                    f"{part.path} and {parts[before[0]].path} both hold image {item!r:.120}; "
                    "merge parts that do not overlap"
                )
            if before is None or status == CERTIFIED:
                owner[item] = (index, number, status)
    chosen: list[set[int]] = [set() for _ in parts]
    for index, number, _ in owner.values():
        chosen[index].add(number)
    return chosen


def _copy(part: RunFolder, wanted: set[int], target: RunFolder) -> None:
    beside = part.beside()
    for block in _blocks(part, wanted):
        records = [json.loads(line) for line in block]
        items = [record["item"] for record in records]
        for record in records:
            _copy_arrays(part, record, target)
        timings = [json.dumps(beside[item]) for item in items if item in beside]
        target.append_lines(block, timings)


def _copy_arrays(part: RunFolder, record: dict[str, Any], target: RunFolder) -> None:
    """Copy the array files of a record; their names are computed, never read from the line."""
    for certificate in record.get("certificates", []):
        tau = certificate.get("claim", {}).get("tau")
        if tau is None:
            continue
        name = arrays_name(record["item"], certificate["method"], tau)
        try:
            (target.path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(part.path / name, target.path / name)
        except OSError as error:
            raise InputError(f"{part.path / name} cannot be copied to {target.path} ({error.strerror})") from error


def _attack_lines(part: RunFolder) -> list[str]:
    """What :mod:`certimed.attacks` has added to a part, its seals checked."""
    path = part.path / ATTACKS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line_holds(line, part.manifest[SETTINGS_DIGEST]):
            raise InputError(f"{path} line {number} was changed after it was written; restore the file")
    return lines


def _copy_attacks(part: RunFolder, lines: list[str], target: RunFolder) -> None:
    if not lines:
        return
    try:
        for path in sorted((part.path / PERTURBATIONS).glob("*.npz")):
            (target.path / PERTURBATIONS).mkdir(exist_ok=True)
            shutil.copyfile(path, target.path / PERTURBATIONS / path.name)
        append_whole(target.path / ATTACKS, lines, durable=True)
    except OSError as error:
        raise InputError(f"the attacks of {part.path} cannot be copied to {target.path} ({error.strerror})") from error


def _blocks(part: RunFolder, wanted: set[int]) -> Iterator[list[str]]:
    block: list[str] = []
    for number, line in part.lines():
        if number not in wanted:
            continue
        if not line_holds(line, part.manifest[SETTINGS_DIGEST]):
            raise InputError(
                f"{part.path / CERTIFICATES} line {number} was changed after it was written; restore the file"
            )
        block.append(line)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
