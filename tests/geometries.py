"""Preprocessings of every kind, small."""

from __future__ import annotations

import random
from typing import Any


def set_ups(count: int, seed: int = 0) -> list[tuple[dict[str, Any], tuple[int, int, int]]]:
    """Preprocessings and native shapes small enough for a dense matrix."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        channels = rng.choice((1, 3))
        how = {
            "size": (rng.randint(2, 12), rng.randint(2, 12)),
            "mean": (0.5,) * channels,
            "std": (0.5,) * channels,
            "channels": channels,
            "resize": rng.choice(("shortest", "longest", "exact", "none")),
            "edge": rng.choice((0, rng.randint(4, 14))),
            "interpolation": rng.choice(("bicubic", "bilinear")),
            "square": rng.choice((0, 0, rng.randint(6, 20))),
            "crop_offset": rng.choice(("floor", "round")),
        }
        found.append((how, (rng.choice((1, 3)), rng.randint(2, 12), rng.randint(2, 12))))
    return found
