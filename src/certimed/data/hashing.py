"""What a data set is, in 64 characters, and whether two share images."""

from __future__ import annotations

import hashlib

from certimed.data.dataset import Dataset
from certimed.errors import ImageError


def overlap(a: Dataset, b: Dataset) -> list[tuple[str, str]]:
    """Pairs of ids, one of ``a`` and one of ``b``, whose pixels are the same; images that cannot be read are skipped.

    Exact copies only: a recompressed or resized copy is not found. Reads every image once.
    """
    found: dict[str, list[str]] = {}
    for name, digest in _hashes(a):
        found.setdefault(digest, []).append(name)
    return sorted((first, second) for second, digest in _hashes(b) for first in found.get(digest, []))


def identity(dataset: Dataset) -> str:
    """Hex SHA-256 over ids, labels, class names and stored bytes (files streamed, npz rows): a manifest's data line.

    Equal if and only if the same items, in the same order, have the same stored content; the folder's place and the
    reading options do not count. A file that cannot be read counts as such and does not raise.
    """
    digest = hashlib.sha256(repr(dataset.class_names).encode())
    for item in dataset.items:
        digest.update(f"\n{item.id}\0{item.label}\0".encode())
        try:
            for piece in dataset.store.contents(item):
                digest.update(piece)
        except (OSError, ImageError):
            digest.update(b"unreadable")
    return digest.hexdigest()


def _hashes(dataset: Dataset) -> list[tuple[str, str]]:
    pairs = []
    for index, name in enumerate(dataset.ids):
        try:
            pairs.append((name, dataset.load(index).pixels_sha256))
        except ImageError:
            continue
    return pairs
