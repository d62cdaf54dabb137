"""Masks under a budget: what is drawn, what is proved, and what the files say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import threshold

from certimed.budgets import PixelLooks, Stop
from certimed.budgets.kinds import look_shares
from certimed.certificates import MaskCertificate, load_certificate
from certimed.segmentation import SmoothedSegmenter
from certimed.statistics import holm_threshold, radius_map_bonferroni

BUDGET = "pixels:60,90,200/0.02"


def image(space: tuple[int, ...] = (8, 8)) -> torch.Tensor:
    return torch.linspace(0, 1, int(np.prod(space))).view(1, *space)


def made(budget=BUDGET, sigma: float = 0.25, **options) -> MaskCertificate:
    return SmoothedSegmenter(threshold, 2, sigma, noise="float32").certify(
        image(options.pop("space", (8, 8))), budget=budget, seed=3, item_id="x", **options
    )


@pytest.mark.parametrize("space", [(8, 8), (4, 3, 5)])
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_the_last_look_is_a_fixed_certificate_at_its_share_of_alpha(space, correction) -> None:
    found = made(space=space, correction=correction)
    fixed = made(budget=found.n, space=space, correction=correction, alpha=found.level)
    assert fixed.budget == f"fixed:{found.n}" and len(fixed.samples.looks) == 1 and fixed.level == fixed.alpha
    assert np.array_equal(found.mask, fixed.mask) and np.array_equal(found.agreement, fixed.agreement)
    assert found.samples.looks[-1] == (found.n, found.threshold) == fixed.samples.looks[-1]
    assert np.array_equal(found.radius_map(), fixed.radius_map())
    assert (
        found.alpha == 1e-3 and [look[0] for look in found.samples.looks] == [60, 90, 200][: len(found.samples.looks)]
    )
    assert found.level == look_shares(3, 1e-3)[len(found.samples.looks) - 1]


def test_only_the_samples_of_the_looks_are_drawn() -> None:
    seen: list[int] = []
    easy = made(sigma=0.01, progress=seen.append)
    assert easy.n == 60 and sum(seen) == 10 + 60
    assert easy.stop.kind == "answered" and easy.stop.undecided <= 0.02 * 64
    seen.clear()
    hard = made(sigma=0.25, progress=seen.append)
    assert hard.n == sum(seen) - 10 == 200


def test_batch_size_leaves_no_trace() -> None:
    assert made(batch_size=7) == made(batch_size=64) == made() == made(budget=PixelLooks((60, 90, 200), 0.02))


def test_n_and_budget_are_two_ways_to_say_it() -> None:
    one = made(budget=80)
    assert one == made(budget="fixed:80") == made(budget=None, n=80)
    assert one.stop == Stop("cap reached") and "budget" not in one.statement()
    assert made(budget=None).n == 100


def test_several_taus_stop_together_each_at_its_share() -> None:
    segmenter = SmoothedSegmenter(threshold, 2, 0.25, noise="float32")
    both = segmenter.certify_taus(image(), [0.6, 0.9], budget="pixels:60,200,600", seed=3, item_id="x")
    assert both[0].n == both[1].n and np.array_equal(both[0].agreement, both[1].agreement)
    for tau, one in zip((0.6, 0.9), both):
        assert one.tau == tau and one.alpha <= 5e-4
        assert one.threshold == holm_threshold(one.histogram(), one.n, tau, one.level)
        assert one.level <= one.alpha / (2 if one.n == 600 else 4)
        assert [len(look) for look in one.samples.looks] == [2] * len(one.samples.looks)
        assert one.samples.looks[-1] == (one.n, one.threshold or 0)
    # One that stops first is looked at again: its certificate is of the last look of both.
    alone = segmenter.certify(image(), tau=0.6, budget="pixels:60,200,600", alpha=both[0].alpha, seed=3, item_id="x")
    assert alone.n <= both[0].n
    single = segmenter.certify_taus(image(), [0.75], budget=BUDGET, seed=3, item_id="x")
    assert single == (made(),)


def test_round_trip_and_words(tmp_path) -> None:
    found = made()
    found.save(tmp_path / "c")
    read = load_certificate(tmp_path / "c")
    assert read == found and read.samples == found.samples
    assert np.array_equal(read.radius_map(), found.radius_map())
    words = found.statement()
    assert f"Samples: {found.n} under budget {BUDGET}" in words and "alpha covers all 3 looks" in words
    assert f"n={found.n} of {BUDGET}" in repr(found) and BUDGET in found._repr_html_()
    nothing = made(sigma=5.0)
    assert nothing.stop.kind == "futile" and "Nothing was proved" in nothing.statement()


def test_radius_map_pays_for_the_looks() -> None:
    found = made()
    paid = radius_map_bonferroni(found.agreement, found.n, found.level, found.pixels, found.sigma, found.variation)
    assert np.array_equal(found.radius_map(), paid)
    assert found.level < found.alpha
    assert (paid <= radius_map_bonferroni(found.agreement, found.n, found.alpha, found.pixels, found.sigma)).all()
