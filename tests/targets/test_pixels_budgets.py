"""Masks under a budget: what is drawn, what is proved, what the files say, and what the verifier makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from certimed.budgets import PixelLooks
from certimed.certificates import MaskCertificate
from certimed.errors import InputError
from certimed.metrics import mask_scores
from certimed.segmentation import SmoothedSegmenter
from certimed.statistics import holm_threshold, radius_map_bonferroni
from certimed.verification import verify
from certimed.verification.masks import mask_faults, setting_faults

SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "mask-certificate.schema.json"
BUDGET = "pixels:60,90,200/0.02"


def threshold(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(x), x - 0.5], dim=1)


def image(space=(8, 8)) -> torch.Tensor:
    return torch.linspace(0, 1, int(np.prod(space))).view(1, *space)


def made(budget=BUDGET, sigma=0.25, **options) -> MaskCertificate:
    return SmoothedSegmenter(threshold, 2, sigma).certify(
        image(options.pop("space", (8, 8))), budget=budget, seed=3, item_id="x", **options
    )


@pytest.mark.parametrize("space", [(8, 8), (4, 3, 5)])
@pytest.mark.parametrize(("correction", "k_fwer"), [("holm", 1), ("bonferroni", 1), ("lehmann-romano", 3)])
def test_the_last_look_is_a_fixed_certificate_at_its_share_of_alpha(space, correction, k_fwer):
    found = made(space=space, correction=correction, k_fwer=k_fwer)
    fixed = made(budget=found.n, space=space, correction=correction, k_fwer=k_fwer, alpha=found.level)
    assert fixed.budget is None and fixed.looks == () and fixed.level == fixed.alpha
    assert np.array_equal(found.mask, fixed.mask) and np.array_equal(found.agreement, fixed.agreement)
    assert found.threshold == fixed.threshold == found.looks[-1].threshold
    assert np.array_equal(found.radius_map(), fixed.radius_map())
    assert found.alpha == 1e-3 and [look.n for look in found.looks] == [60, 90, 200][: len(found.looks)]


def test_only_the_samples_of_the_looks_are_drawn():
    seen: list[int] = []
    easy = made(sigma=0.01, progress=seen.append)
    assert easy.n == 60 and sum(seen) == 10 + 60 and easy.stopped.startswith("answered: 96.88% of pixels certified")
    seen.clear()
    hard = made(sigma=0.25, progress=seen.append)
    assert hard.n == sum(seen) - 10 == 200


def test_batch_size_leaves_no_trace():
    assert made(batch_size=7) == made(batch_size=64) == made()


def test_n_and_budget_are_two_ways_to_say_it():
    one = made(budget=80)
    assert one == made(budget="fixed:80") == made(budget=None, n=80)
    assert "budget" not in one.to_dict() and "stopped" not in one.to_json()
    assert made(budget=None).n == 100
    with pytest.raises(InputError, match="give one of them"):
        made(n=80)
    with pytest.raises(InputError, match="not understood"):
        made(budget="grid")
    with pytest.raises(InputError, match=r"too early.*use n >= "):
        made(budget="pixels:10,20")


def test_several_taus_stop_together_each_at_its_share():
    segmenter = SmoothedSegmenter(threshold, 2, 0.25)
    both = segmenter.certify_taus(image(), [0.6, 0.9], budget="pixels:60,200,600", seed=3, item_id="x")
    assert both[0].n == both[1].n and np.array_equal(both[0].agreement, both[1].agreement)
    for tau, one in zip((0.6, 0.9), both):
        assert one.tau == tau and one.alpha <= 5e-4
        assert one.threshold == holm_threshold(one.histogram(), one.n, tau, one.level)
        assert one.level <= one.alpha / (2 if one.n == 600 else 4)
    # One that stops first is looked at again: its certificate is of the last look of both.
    alone = segmenter.certify(image(), tau=0.6, budget="pixels:60,200,600", alpha=both[0].alpha, seed=3, item_id="x")
    assert alone.n <= both[0].n
    single = segmenter.certify_taus(image(), [0.75], budget=BUDGET, seed=3, item_id="x")
    assert single == (made(),)


def test_round_trip_schema_and_words(tmp_path):
    found = made()
    found.save(tmp_path / "c")
    read = MaskCertificate.load(tmp_path / "c")
    assert read == found and read.looks == found.looks and type(read.looks[0]) is type(found.looks[0])
    assert np.array_equal(read.radius_map(), found.radius_map())
    schema = Draft202012Validator(json.loads(SCHEMA.read_text()))
    schema.validate(json.loads(found.to_json()))
    schema.validate(json.loads(made(budget=80).to_json()))
    for field in ("budget", "looks", "stopped"):
        half = found.to_dict()
        half.pop(field)
        assert not schema.is_valid(half)
        with pytest.raises(InputError):
            MaskCertificate.from_dict(half, tmp_path / "c.npz")
    words = found.statement()
    assert f"Samples: {found.n} after" in words and BUDGET in words and found.stopped in words
    assert f"n={found.n} of {BUDGET}" in repr(found) and BUDGET in found._repr_html_()
    nothing = made(sigma=30.0)
    assert nothing.stopped.startswith("futile") and "Nothing was proved" in nothing.statement()


def test_radius_map_pays_for_the_looks():
    found = made()
    paid = radius_map_bonferroni(found.agreement, found.n, found.looks[-1].alpha, found.pixels, found.sigma)
    assert np.array_equal(found.radius_map(), paid)
    assert (paid <= radius_map_bonferroni(found.agreement, found.n, found.alpha, found.pixels, found.sigma)).all()


def test_scores_carry_the_whole_alpha():
    assert mask_scores(made(), (image()[0] > 0.5).long().numpy()).alpha == 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"looks": ()}, "looks"),
        ({"stopped": None}, "looks"),
        ({"budget": None}, "names none"),
        ({"budget": "pixels:50,90,200"}, "not those of its budget"),
        ({"threshold": 60}, "last look"),
        ({"alpha": 1e-9}, "share"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(made(), **change)


@pytest.mark.parametrize("options", [{}, {"sigma": 0.01}, {"sigma": 30.0}, {"correction": "bonferroni"},
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
