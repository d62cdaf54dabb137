"""Certify some images again by the run's own request, and compare whole records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certimed.errors import InputError
from certimed.integrity import ids_digest, settings_of, strict_json
from certimed.verification.comparison import (
    CONSISTENT,
    DIFFERENT,
    EQUAL,
    NEAR_TIES,
    Comparison,
    compare_records,
    differing,
    worst,
)
from certimed.verification.masks import arrays_name, read_layers
from certimed.verification.runs import LINES, open_manifest

EXIT_CODES = {EQUAL: 0, NEAR_TIES: 0, DIFFERENT: 1, CONSISTENT: 4}
"""Exit code of the command line for each verdict."""

Redraw = Callable[[str], Mapping[str, Any]]
"""Item id -> its record (the JSON object of a line) certified anew by the run's request, failures included. Of masks
also ``"arrays"``: name of the arrays within the run -> ``mask`` and ``agreement``."""

_CIRCUMSTANCES = ("certimed", "provenance.device", "provenance.dtype", "provenance.versions", "request.speed")


@dataclass(frozen=True)
class Redrawn:
    """What :func:`resample` found.

    Attributes:
        salt: what chose the images.
        changed: circumstances that differ from the recorded ones: name -> (recorded, here). Where it is empty,
            everything must be equal but near ties.
        faults: what differs between the run's manifest and the one that its request makes here.
        images: what became of each image.
    """

    salt: str
    changed: Mapping[str, tuple[Any, Any]]
    faults: tuple[str, ...]
    images: tuple[Comparison, ...]

    @property
    def level(self) -> str:
        """``"equal"``, ``"near ties only"``, ``"consistent only"`` or ``"different"``: the worst that was found."""
        known = [DIFFERENT] if self.faults else [CONSISTENT] if self.changed else []
        return worst([*known, *(image.level for image in self.images)])

    @property
    def exit_code(self) -> int:
        """0 for equal and near ties, 1 for different, 4 for consistent only."""
        return EXIT_CODES[self.level]


def choose(items: Sequence[str], m: int, salt: str) -> list[str]:
    """``m`` of the items, by SHA-256 of salt and id: the forger of a run cannot foresee a salt drawn later."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{salt}\0{item}".encode(errors="surrogatepass")).digest())
    return ranked[:m]


def resample(
    folder: str | Path, m: int, salt: str, redraw: Redraw, *, now: Mapping[str, Any], ids: Sequence[str]
) -> Redrawn:
    """Redraw ``m`` images of a run, failed ones among them, and compare the whole record.

    Model and data are those the *verifier* names; nothing named by the run is loaded by itself.

    Args:
        folder: the run, which :func:`certimed.verification.verify` found true.
        m: how many images; all where the run has fewer.
        salt: any text; decides which images, so draw it when you verify.
        redraw: certifies one image again.
        now: the manifest that this request makes here.
        ids: ids of all images of the data set that is named here.

    Raises:
        InputError: m < 1, or there is no run.
    """
    if m < 1:
        raise InputError(f"--resample {m} redraws nothing; use 1 or more")
    place = Path(folder)
    manifest, records = open_manifest(place), _records(place)
    faults, changed = compare_manifests(manifest, now)
    faults += _deal_faults(manifest, list(records), ids)
    known, images = set(ids), []
    for item in choose(sorted(records), m, salt):
        if item not in known:
            images.append(Comparison(item, ((DIFFERENT, "it is not in the data that was named"),)))
            continue
        recorded = records[item]
        layers = {name: read_layers(place / name) for name in map(_arrays, recorded["certificates"]) if name}
        images.append(compare_records(recorded, redraw(item), layers, changed=changed))
    return Redrawn(salt, changed, tuple(faults), tuple(images))


def compare_manifests(
    recorded: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
    """What is false in a manifest, given the one that its request makes here; and the circumstances that differ."""
    faults, changed = [], {}
    made = {"schema": recorded["schema"], **json.loads(json.dumps(now))}
    for place, was, here in differing(settings_of(recorded), settings_of(made)):
        if any(place == one or place.startswith(f"{one}.") for one in _CIRCUMSTANCES):
            changed[place.removeprefix("provenance.").removeprefix("versions.")] = (was, here)
        else:
            faults.append(f"{place} of the manifest is {was!r:.120}, and {here!r:.120} here")
    was, here = (dict(one.get("local") or {}).get("batch_size") for one in (recorded, now))
    if was != here:
        changed["batch_size"] = (was, here)
    return faults, changed


def _deal_faults(manifest: Mapping[str, Any], items: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Are the run's images those of the data, or of the shard that it says it is?"""
    shard, total = manifest.get("shard"), dict(manifest["data"])
    if total.get("images") != len(ids) or total.get("ids_sha256") != ids_digest(ids):
        return [f"the run's data has {total.get('images')!r:.40} images, the data named here {len(ids)}, or other ids"]
    if shard is None:
        return []
    dealt = sorted(ids)[shard["index"] - 1 :: shard["count"]]
    if shard["ids_sha256"] == ids_digest(dealt) and set(items) <= set(dealt):
        return []
    return [f"its images are not those of shard {shard['index']} of {shard['count']} of the data"]


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """The current record of each image; a later line of a failed image takes its place."""
    try:
        lines = (folder / LINES).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / LINES} cannot be read: {error}") from error
    found = (strict_json(line, f"{LINES} line {number}") for number, line in enumerate(lines, 1))
    return {record["item"]: record for record in found}


def _arrays(certificate: Mapping[str, Any]) -> str | None:
    if certificate["kind"] != "mask":
        return None
    return arrays_name(certificate["item"], certificate["method"], certificate["claim"]["tau"])
