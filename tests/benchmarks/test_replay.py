"""Published numbers stay as they were recorded, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import replay
from benchmarks.home import RESULTS
from benchmarks.performance.profiles import FILE


@pytest.mark.parametrize("part", [replay.accuracies, replay.radii, replay.budgets])
def test_recorded_results_come_out_again(part) -> None:
    count, wrong = replay.differing(part())
    assert count and not wrong, wrong[:3]


def test_a_changed_count_is_seen(tmp_path: Path) -> None:
    for path in RESULTS.glob("promptsmooth_*.json"):
        shutil.copy(path, tmp_path)
    profiles = json.loads((RESULTS / FILE).read_text())
    images = profiles["demo"]["0.5"]["plain"]
    label, *counts = next(image for image in images if image[1 + image[0]] > 900)
    images[0] = [label, *(0 if index == label else counts[label] if index == (label + 1) % len(counts) else 0
                          for index in range(len(counts)))]  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(profiles))
    _, wrong = replay.differing(replay.accuracies(tmp_path))
    assert wrong and all("demo, sigma 0.5, plain" in where for where, _, _ in wrong)
