"""One data set over many machines: shards that depend on nothing but the ids, and their merger into one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certimed.errors import InputError
from certimed.integrity import ids_digest


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, counted from 1.

    Raises:
        InputError: the index is not within 1..count.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(f"shard {self.index}/{self.count} does not exist; shards count from 1/N to N/N")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"2/4"``."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if found is None:
            raise InputError(f"--shard {text:.40} is not I/N; write e.g. --shard 1/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def indices(self, ids: Sequence[str]) -> list[int]:
        """Positions of this shard's items, in the order of ``ids``; see :func:`shard`."""
        return shard(ids, self.index, self.count)

    def section(self, ids: Sequence[str]) -> dict[str, Any]:
        """The ``shard`` part of a manifest, for the ids of the whole data set."""
        own = [ids[position] for position in self.indices(ids)]
        return {"index": self.index, "count": self.count, "images": len(own), "ids_sha256": ids_digest(own)}


def shard(ids: Sequence[str], index: int, count: int) -> list[int]:
    """Positions of the items of shard ``index`` of ``count`` (from 1), in the order of ``ids``.

    Rule: ids are sorted and dealt out in turn, so every item is in exactly one shard, sizes differ by at most one, and
    the order of the data set does not matter.

    Raises:
        InputError: no such shard.

    >>> shard(["c", "a", "b"], 1, 2)
    [0, 1]
    """
    Shard(index, count)
    ranked = sorted(range(len(ids)), key=ids.__getitem__)
    return sorted(ranked[index - 1 :: count])
