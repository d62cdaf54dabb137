"""Whole records compared: near ties, other circumstances, the statistical test's level and power."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from verification.folders import BROKEN, ITEMS, Folder, Work

from certimed.errors import InputError
from certimed.integrity import ids_digest
from certimed.verification import resample
from certimed.verification.comparison import LEVEL, compare_records, mask_p_value, near_ties
from certimed.verification.resampling import choose

CLASSES = Work(budget="400")
MASKS = Work("mask", "100", taus=(0.75,))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return CLASSES.record("3.png")


def shifted(record: dict[str, Any], by: int) -> dict[str, Any]:
    """The record with a few counts moved between the two classes, in claim and look."""
    made = copy.deepcopy(record)
    for one in made["certificates"]:
        top, claim = one["claim"]["prediction"], one["claim"]
        claim["counts"][top] -= by
        claim["counts"][1 - top] += by
        claim["p_lower"] -= 1e-3
        one["samples"]["looks"][-1][1:] = [claim["counts"][top], claim["counts"][1 - top]]
    return made


def level(mine: dict[str, Any], its: dict[str, Any], changed: dict[str, Any] | None = None) -> str:
    return compare_records(mine, its, {}, changed=changed or {}).level


def test_near_ties_are_few_and_stated() -> None:
    assert [near_ties("float32", n) for n in (100, 9_999, 10_000)] == [1, 2, 3]
    assert [near_ties("bfloat16 autocast", n) for n in (100, 10_000)] == [1, 21]


def test_counts_may_move_by_near_ties_and_no_more(recorded: dict[str, Any]) -> None:
    assert level(recorded, recorded) == "equal"
    assert level(recorded, shifted(recorded, 1)) == "near ties only"
    assert level(recorded, shifted(recorded, 2)) == "different"


def test_claims_must_be_equal_where_counts_are(recorded: dict[str, Any]) -> None:
    other = copy.deepcopy(recorded)
    other["certificates"][0]["claim"]["radius"] += 1e-12
    assert level(recorded, other) == "different"


def test_selection_counts_may_move_by_near_ties_and_no_more(recorded: dict[str, Any]) -> None:
    for by, verdict in ((1, "near ties only"), (2, "different")):
        other = copy.deepcopy(recorded)
        selection = other["certificates"][0]["claim"]["selection"]
        selection[0], selection[1] = selection[0] - by, selection[1] + by
        assert level(recorded, other) == verdict


@pytest.mark.parametrize("changed", [{"torch": ("1", "2")}, {"batch_size": (64, 32)}, {"device": ("cpu", "cuda")}])
def test_other_circumstances_leave_a_test(recorded: dict[str, Any], changed: dict[str, Any]) -> None:
    assert level(recorded, shifted(recorded, 10), changed) == "consistent only"
    assert level(recorded, recorded, changed) == "consistent only"
    assert level(recorded, shifted(recorded, 150), changed) == "different"


def test_what_no_circumstance_excuses(recorded: dict[str, Any]) -> None:
    changed = {"torch": ("1", "2")}
    for name, value in (("label", 0), ("group", "x"), ("intensity", {"a": 1})):
        assert level(recorded, recorded | {name: value}, changed) == "different"
    for name, value in (("seed", 7), ("shape", [1, 4, 5]), ("scope", "chosen at x"), ("space", "native")):
        other = copy.deepcopy(recorded)
        other["certificates"][0][name] = value
        assert level(recorded, other, changed) == "different"
    assert level(recorded, CLASSES.record(BROKEN) | {"item": "3.png", "label": 1}, changed) == "different"


def test_an_image_that_decodes_differently_is_said_to(recorded: dict[str, Any]) -> None:
    other = copy.deepcopy(recorded)
    for one in other["certificates"]:
        one["provenance"] |= {"pixels": "e" * 64, "decoders": {"Pillow": "12.0.0"}}
    found = compare_records(recorded, other, {}, changed={})
    assert found.level == "consistent only"
    assert "decodes differently here (recorded with Pillow 11.3.0, here Pillow 12.0.0)" in found.findings[0][1]
    for one in other["certificates"]:
        one["provenance"]["decoders"] = {"Pillow": "11.3.0"}
    assert level(recorded, other) == "different"


def test_clean_predictions_are_strict_here_and_named_elsewhere(recorded: dict[str, Any]) -> None:
    other = recorded | {"clean": {"plain": 1 - recorded["clean"]["plain"], "tuned": recorded["clean"]["tuned"]}}
    assert level(recorded, other) == "different"
    found = compare_records(recorded, other, {}, changed={"torch": ("1", "2")})
    assert found.level == "consistent only" and any("clean prediction" in what for _, what in found.findings)


def mask_pair(by: int, pixels: int) -> str:
    """Verdict where the agreement of some pixels moved."""
    mine = MASKS.record("3.png")
    layers = {name: dict(arrays) for name, arrays in mine.pop("arrays").items()}
    ((name, arrays),) = layers.items()
    moved = arrays["agreement"].astype(np.int64)
    moved.ravel()[:pixels] += np.where(moved.ravel()[:pixels] > 50, -by, by)
    its = copy.deepcopy(mine) | {"arrays": {name: arrays | {"agreement": moved}}}
    for one in its["certificates"]:
        one["claim"]["arrays_sha256"] = "e" * 64
    return compare_records(mine, its, layers, changed={}).level


def test_masks_are_compared_pixel_by_pixel() -> None:
    assert [mask_pair(0, 0), mask_pair(1, 9), mask_pair(2, 1)] == ["different", "near ties only", "different"]


def test_a_redraw_chooses_by_salt_and_knows_the_data(tmp_path: Path) -> None:
    path = CLASSES.write(tmp_path / "run")
    found = resample(path, 2, "salt", CLASSES.record, now=CLASSES.manifest(), ids=ITEMS)
    assert len(found.images) == 2 and found.level == "equal"
    assert {image.item for image in found.images} == set(choose(ITEMS, 2, "salt"))
    assert set(choose(ITEMS, 3, "a")) != set(choose(ITEMS, 3, "b"))
    fewer = resample(path, 9, "salt", CLASSES.record, now=CLASSES.manifest(), ids=ITEMS[:-1])
    assert fewer.level == "different" and "6" in fewer.faults[0]
    with pytest.raises(InputError, match="redraws nothing"):
        resample(path, 0, "salt", CLASSES.record, now=CLASSES.manifest(), ids=ITEMS)


def test_an_honest_shard_is_the_one_that_is_dealt(tmp_path: Path) -> None:
    folder = Folder.read(CLASSES.write(tmp_path / "run"))
    dealt = sorted(ITEMS)[1::2]
    folder.records = [record for record in folder.records if record["item"] in dealt]
    folder.manifest["shard"] = {"index": 2, "count": 2, "images": len(dealt), "ids_sha256": ids_digest(dealt)}
    folder.write()
    assert resample(folder.path, 9, "salt", CLASSES.record, now=CLASSES.manifest(), ids=ITEMS).level == "equal"


def p_value(first: Any, second: Any, n: int = 100, classes: Any = None) -> float:
    mine, its = (np.atleast_1d(counts) for counts in (first, second))
    zeros = np.zeros(mine.shape, dtype=np.uint8)
    other = zeros if classes is None else np.asarray(classes)
    return mask_p_value({"mask": zeros, "agreement": mine}, {"mask": other, "agreement": its}, n, n)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_level_of_two_pixels_is_exact(p: float) -> None:
    """Two independent pixels of equal probability in both draws: the chance of a p-value below u is at most u."""
    n = 6
    chance = stats.binom.pmf(np.arange(n + 1), n, p)
    below = dict.fromkeys((0.01, 0.1, 0.3), 0.0)
    for counts in itertools.product(range(n + 1), repeat=4):
        found = p_value(counts[:2], counts[2:], n)
        for one in below:
            below[one] += chance[list(counts)].prod() * (found <= one)
    assert all(found <= one for one, found in below.items())


def test_p_value_is_fishers_times_the_pixels() -> None:
    fisher = 2 * stats.hypergeom.sf(89, 200, 160, 100)
    assert p_value([90, 80, 50], [70, 81, 50]) == pytest.approx(3 * fisher, rel=1e-9)


def test_a_moved_class_is_tested_against_what_is_left_for_it() -> None:
    assert p_value([60], [40], classes=[1]) == 1.0
    assert p_value([95], [90], classes=[1]) == pytest.approx(2 * stats.hypergeom.sf(94, 200, 105, 100), rel=1e-9)


def test_power_is_what_the_docs_say() -> None:
    wide = np.full((512, 512), 80)
    for found, consistent in ((57, False), (58, True)):
        first, second = wide.copy(), wide.copy()
        first[5, 7], second[5, 7] = 97, found
        assert (p_value(first, second) > LEVEL) is consistent


def test_independent_draws_of_a_large_image_are_consistent() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((256, 256))
    assert p_value(rng.binomial(1_000, p), rng.binomial(1_000, p), 1_000) > LEVEL * 1e3
