"""Forged looks of masks are caught."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from certimed.budgets import PixelLooks
from certimed.certificates import MaskCertificate
from certimed.segmentation import SmoothedSegmenter
from certimed.verification import verify
from certimed.verification.masks import mask_faults, setting_faults

BUDGET = "pixels:60,90,200/0.02"


def image(space=(8, 8)) -> torch.Tensor:
    return torch.linspace(0, 1, int(np.prod(space))).view(1, *space)


def made(budget=BUDGET, sigma=0.25, **options) -> MaskCertificate:
    return SmoothedSegmenter(threshold, 2, sigma).certify(
        image(options.pop("space", (8, 8))), budget=budget, seed=3, item_id="x", **options
    )


@pytest.mark.parametrize("options", [{}, {"sigma": 0.01}, {"sigma": 5.0}, {"correction": "bonferroni"},
    {"correction": "lehmann-romano", "k_fwer": 4}, {"budget": PixelLooks((70,))}, {"tau": 0.5, "sigma": 0.5},
])  # fmt: skip
def test_what_the_engine_writes_is_true(tmp_path, options):
    made(**options).save(tmp_path / "c")
    assert verify(tmp_path / "c.json").faults == ()


def forged_looks(data, index, **changes):
    looks = [dict(look) for look in data["looks"]]
    looks[index] |= changes
    return {"looks": looks}


FORGERIES = {
    "all of alpha at the last look": lambda d: forged_looks(d, -1, alpha=d["alpha"]),
    "the cap's share at an early look": lambda d: forged_looks(d, -1, alpha=d["alpha"] / 2),
    "a smaller share": lambda d: forged_looks(d, 0, alpha=d["alpha"] / 100),
    "alpha": lambda d: {"alpha": d["alpha"] / 2},
    "fewer looks planned": lambda d: {"budget": "pixels:60,90"},
    "more looks planned": lambda d: {"budget": "pixels:60,90,200,400"},
    "no budget": lambda d: {"budget": "grid"},
    "a lower threshold": lambda d: (
        forged_looks(d, -1, threshold=d["threshold"] - 1) | {"threshold": d["threshold"] - 1}
    ),
    "another threshold in the looks": lambda d: forged_looks(d, -1, threshold=d["threshold"] + 1),
    "an impossible earlier threshold": lambda d: forged_looks(d, 0, threshold=46),
    "an earlier threshold beyond n": lambda d: forged_looks(d, 0, threshold=61),
    "another n of a look": lambda d: forged_looks(d, 0, n=61),
    "a look left out": lambda d: {"looks": d["looks"][1:]},
    "a look without share": lambda d: {"looks": [{"n": 60, "threshold": None}, *d["looks"][1:]]},
    "another reason": lambda d: {"stopped": "answered: 99.99% of pixels certified, 0.00% undecided"},
    "a cap that was not reached": lambda d: {"stopped": "cap reached: 200 samples"},
    "no reason": lambda d: {"stopped": "done"},
    "a look that is none": lambda d: {"looks": [d["looks"][0], 7]},
    "looks of text": lambda d: forged_looks(d, 0, n="60"),
    "no looks": lambda d: {"looks": []},
    "a look beyond all numbers": lambda d: {"budget": "pixels:60,90," + "9" * 5_000},
    "samples nobody drew": lambda d: forged_looks(d, -1, n=10**15) | {"n": 10**15},
    "futile": lambda d: {"stopped": d["stopped"].replace("answered", "futile")},
}


@pytest.mark.parametrize("kind", [None, *FORGERIES])
def test_forged_looks_are_caught(tmp_path, kind):
    honest = made(budget="pixels:60,90,200/0.3", sigma=0.2)
    assert (honest.n, len(honest.looks)) == (90, 2) and honest.threshold is not None
    honest.save(tmp_path / "c")
    data = json.loads(honest.to_json())
    changes = {} if kind is None else FORGERIES[kind](data)
    assert bool(list(mask_faults(data | changes, tmp_path / "c.npz"))) is (kind is not None)


@pytest.mark.parametrize("field", ["budget", "looks", "stopped"])
def test_a_field_of_the_budget_alone_is_caught(tmp_path, field):
    honest = made()
    honest.save(tmp_path / "c")
    data = json.loads(honest.to_json())
    del data[field]
    assert "missing" in next(iter(mask_faults(data, tmp_path / "c.npz")))


def test_certificates_follow_from_the_settings_of_their_run():
    one, run = {"tau": 0.75, "alpha": 1e-3}, {"tau": 0.75, "alpha": 1e-3}
    assert not list(setting_faults("plain", one, run))
    assert list(setting_faults("plain", one | {"alpha": 5e-4}, run))
    assert list(setting_faults("plain", one | {"tau": 0.9}, run))
    assert list(setting_faults("plain", one | {"budget": BUDGET}, run))
    assert not list(setting_faults("plain", one | {"budget": BUDGET}, run | {"budget": BUDGET}))
    two, both = {"tau": 0.9, "alpha": 1e-3 * (1 - 1e-12) / 2}, {"tau": [0.75, 0.9], "alpha": 1e-3}
    assert not list(setting_faults("plain tau 0.9", two, both))
    assert list(setting_faults("plain tau 0.75", two, both))
    assert list(setting_faults("plain tau 0.9", two | {"alpha": 1e-3}, both))
    assert list(setting_faults("plain tau 0.9", two | {"alpha": 1e-4}, both))
