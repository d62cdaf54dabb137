"""Forged looks, thresholds and stops of masks are caught; what the engine writes holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from verification.folders import pixelwise

from certimed.certificates import MaskCertificate
from certimed.segmentation import SmoothedSegmenter
from certimed.verification import verify
from certimed.verification.certificates import certificate_faults


def made(budget: str = "pixels:60,90,200/0.02", sigma: float = 0.25, **options: Any) -> MaskCertificate:
    image = torch.linspace(0, 1, 64).view(1, 8, 8)
    return SmoothedSegmenter(pixelwise, 2, sigma).certify(image, budget=budget, seed=3, item_id="x", **options)


@pytest.mark.parametrize("noise", ["grid", "float32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"sigma": 0.01}, {"sigma": 7.0}, {"correction": "bonferroni"}, {"budget": "pixels:70"}, {"budget": "100"},
     {"tau": 0.5, "sigma": 0.5}, {"tau": 0.9}],
)  # fmt: skip
def test_what_the_engine_writes_is_true(tmp_path: Path, options: dict[str, Any], noise: str) -> None:
    settings = dict(options)
    image = torch.linspace(0, 1, 64).view(1, 8, 8)
    segmenter = SmoothedSegmenter(pixelwise, 2, settings.pop("sigma", 0.25), noise=noise)
    budget = settings.pop("budget", "pixels:60,90,200/0.02")
    segmenter.certify(image, budget=budget, seed=3, item_id="x", **settings).save(tmp_path / "c")
    assert verify(tmp_path / "c.json").faults == ()


def look(at: int, **changes: int) -> Callable[[dict[str, Any]], Any]:
    """Change the n or the threshold of a look."""
    places = {"n": 0, "threshold": 1}
    return lambda data: [
        data["samples"]["looks"][at].__setitem__(places[name], value) for name, value in changes.items()
    ]


def samples(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Change fields of the samples."""
    return lambda data: data["samples"].update(changes)


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "all of alpha at the last look": lambda data: data["samples"].update(budget="pixels:60,90"),
    "more looks planned": samples(budget="pixels:60,90,200,400/0.3"),
    "another budget": samples(budget="grid@200"),
    "a fixed number": samples(budget="fixed:90"),
    "another share undecided": samples(budget="pixels:60,90,200/0.001"),
    "alpha": lambda data: data["alpha"].update(level=data["alpha"]["level"] / 2),
    "another threshold in the looks": lambda data: look(-1, threshold=data["claim"]["threshold"] + 1)(data),
    "an impossible earlier threshold": look(0, threshold=46),
    "an earlier threshold beyond n": look(0, threshold=61),
    "another n of a look": look(0, n=61),
    "a look left out": lambda data: data["samples"]["looks"].pop(0),
    "no looks": samples(looks=[]),
    "a look that is none": samples(looks=[[60, 0], 7]),
    "looks of text": samples(looks=[["60", 0], [90, 80]]),
    "looks beyond all numbers": samples(budget="pixels:60,90," + "9" * 5_000),
    "samples nobody drew": samples(n=10**15),
    "proved at an earlier look": samples(proved_at=0),
    "futile": lambda data: data["samples"]["stop"].update(kind="futile"),
    "a cap that was not reached": lambda data: data["samples"]["stop"].update(kind="cap reached"),
    "no pixels undecided named": samples(stop={"kind": "answered"}),
    "more undecided than there are": lambda data: data["samples"]["stop"].update(undecided=60),
    "a stop of classes": samples(stop={"kind": "answered", "above": 0.1}),
}


@pytest.mark.parametrize("kind", [None, *FORGERIES])
def test_forged_looks_are_caught(tmp_path: Path, kind: str | None) -> None:
    honest = made(budget="pixels:60,90,200/0.3", sigma=0.2)
    assert [n for n, _ in honest.samples.looks] == [60, 90] and honest.threshold is not None
    honest.save(tmp_path / "c")
    data = json.loads(honest.to_json())
    if kind is not None:
        FORGERIES[kind](data)
    assert bool(list(certificate_faults(data, tmp_path / "c.npz"))) is (kind is not None)


def test_bonferronis_earlier_thresholds_are_recomputed(tmp_path: Path) -> None:
    honest = made(budget="pixels:90,120,200/0.0", correction="bonferroni")
    assert len(honest.samples.looks) > 1 and honest.samples.looks[0][1] > 0
    honest.save(tmp_path / "c")
    data = json.loads(honest.to_json())
    assert list(certificate_faults(data, tmp_path / "c.npz")) == []
    data["samples"]["looks"][0][1] += 1
    assert list(certificate_faults(data, tmp_path / "c.npz"))
