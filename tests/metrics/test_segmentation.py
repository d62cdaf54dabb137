"""Guaranteed Dice and IoU against every possible filling of the abstained pixels; conventions and intervals."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from toys import mask_certificate

from certimed.errors import InputError
from certimed.metrics import segmentation as metrics
from certimed.metrics.intervals import mean_interval


def brute_overlap(prediction, truth, index, empty):
    """Dice and IoU from sets of pixels."""
    predicted = {i for i, c in enumerate(prediction) if c == index}
    true = {i for i, c in enumerate(truth) if c == index}
    if not predicted and not true:
        return (1.0, 1.0) if empty == "one" else (0.0, 0.0)
    both = len(predicted & true)
    return 2 * both / (len(predicted) + len(true)), both / len(predicted | true)


def certified_mask(mask, certified, classes):
    mask, certified = np.asarray(mask), np.asarray(certified)
    found = mask_certificate(mask.shape, num_classes=classes)
    claim = replace(found.claim, mask=mask, agreement=np.where(certified, 100, 50), threshold=97)
    return replace(found, claim=claim)


@pytest.mark.parametrize("empty", ["one", "zero"])
@pytest.mark.parametrize(("classes", "free"), [(2, 8), (3, 6)])
def test_intervals_are_attained_and_never_left(classes, free, empty):
    generator = np.random.default_rng(classes)
    for case in range(25):
        size = free + int(generator.integers(0, 6))
        # Every third case lacks the last class in the truth, so that the 0/0 rule is met too.
        truth = generator.integers(0, classes - (case % 3 == 0), size=size)
        mask = np.where(generator.random(size) < 0.7, truth, generator.integers(0, classes, size=size))
        certified = np.arange(size) >= free - case % 4
        scores = metrics.mask_scores(certified_mask(mask, certified, classes), truth, empty=empty)
        outcomes = []
        for filling in itertools.product(range(classes), repeat=int((~certified).sum())):
            attacked = mask.copy()
            attacked[~certified] = filling
            outcomes.append([brute_overlap(attacked, truth, c, empty) for c in range(classes)])
        table = np.array(outcomes)
        for column, low, high in (
            (0, metrics.DICE_LOW, metrics.DICE_HIGH),
            (1, metrics.IOU_LOW, metrics.IOU_HIGH),
        ):
            assert np.allclose(scores.per_class[low], table[:, :, column].min(axis=0), atol=1e-15)
            assert np.allclose(scores.per_class[high], table[:, :, column].max(axis=0), atol=1e-15)


def test_accuracy_interval_and_share():
    truth, mask = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    scores = metrics.mask_scores(certified_mask(mask, [True, True, True, False, False], 2), truth)
    assert scores.whole == pytest.approx(
        {metrics.ACCURACY_LOW: 2 / 5, metrics.ACCURACY_HIGH: 4 / 5, metrics.SHARE_CERTIFIED: 3 / 5}
    )


def test_published_dice_is_no_lower_bound():
    """All background abstained: the published figure is perfect, an attack can halve it."""
    truth = np.array([1] * 4 + [0] * 8)
    scores = metrics.mask_scores(certified_mask(truth, truth == 1, 2), truth)
    assert scores.per_class[metrics.DICE_PUBLISHED][1] == 1.0
    assert scores.per_class[metrics.DICE_LOW][1] == 2 * 4 / (4 + 4 + 8)


def test_nothing_abstained_makes_all_values_the_plain_dice():
    generator = np.random.default_rng(1)
    truth, mask = generator.integers(0, 3, size=(2, 9, 9))
    scores = metrics.mask_scores(
        certified_mask(mask, np.ones((9, 9), bool), 3), truth, plain={"plain": [mask]}
    ).per_class
    assert scores[metrics.DICE_LOW] == scores[metrics.DICE_HIGH] == scores[metrics.DICE_PUBLISHED]
    assert scores["Dice (plain)"] == scores[metrics.DICE_LOW] and scores["IoU (plain)"] == scores[metrics.IOU_LOW]
    wanted = [2 * ((mask == c) & (truth == c)).sum() / ((mask == c).sum() + (truth == c).sum()) for c in range(3)]
    assert scores["Dice (plain)"] == pytest.approx(wanted)


def test_a_correctly_empty_mask_follows_the_stated_convention():
    nothing = np.zeros((4, 4), int)
    sure, unsure = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    for empty, value in (("one", 1.0), ("zero", 0.0)):
        scores = metrics.mask_scores(certified_mask(nothing, sure, 2), nothing, empty=empty).per_class
        assert {scores[name][1] for name in (metrics.DICE_LOW, metrics.DICE_HIGH, metrics.IOU_PUBLISHED)} == {value}
        attacked = metrics.mask_scores(certified_mask(nothing, unsure, 2), nothing, empty=empty).per_class
        assert (attacked[metrics.DICE_LOW][1], attacked[metrics.DICE_HIGH][1]) == (0.0, value)
    skipped = metrics.mask_scores(certified_mask(nothing, unsure, 2), nothing, empty="skip")
    assert np.isnan(skipped.per_class[metrics.DICE_LOW][1]) and not np.isnan(skipped.per_class[metrics.DICE_LOW][0])
    assert skipped.to_dict()["per_class"][metrics.DICE_LOW][1] is None
    with pytest.raises(InputError, match="nan"):
        metrics.mask_scores(certified_mask(nothing, sure, 2), nothing, empty="nan")


def test_ignored_pixels_do_not_count():
    truth = np.array([[0, 1, 255], [1, 1, 255]])
    mask = np.array([[0, 1, 1], [1, 0, 0]])
    scores = metrics.mask_scores(certified_mask(mask, np.ones((2, 3), bool), 2), truth, ignore=255)
    assert scores.per_class[metrics.DICE_LOW][1] == 2 * 2 / (2 + 3)
    with pytest.raises(InputError, match="255"):
        metrics.mask_scores(certified_mask(mask, np.ones((2, 3), bool), 2), truth)
    with pytest.raises(InputError, match="differ in shape"):
        metrics.mask_scores(certified_mask(mask, np.ones((2, 3), bool), 2), truth[:1])


def random_scores(images):
    generator = np.random.default_rng(0)
    found = []
    for _ in range(images):
        truth = generator.integers(0, 3, size=(6, 6))
        mask = np.where(generator.random((6, 6)) < 0.8, truth, 0)
        made = certified_mask(mask, generator.random((6, 6)) < 0.7, 3)
        found.append(metrics.mask_scores(made, truth, plain={"plain": [mask]}))
    return found


def test_summary_means_and_rows():
    scores = random_scores(12)
    summary = metrics.summarise_masks(scores, class_names=["background", "a", "b"], groups=list("aabbccddeeff"))
    low = np.array([score.per_class[metrics.DICE_LOW] for score in scores])
    row = summary[metrics.FOREGROUND, metrics.DICE_LOW]
    assert row.mean == pytest.approx(low[:, 1:].mean()) and (row.images, row.groups) == (12, 6)
    assert summary["a", metrics.DICE_LOW].mean == pytest.approx(low[:, 1].mean())
    assert summary[metrics.ALL_CLASSES, metrics.DICE_LOW].mean == pytest.approx(low.mean())
    assert summary.lower[metrics.FOREGROUND, metrics.DICE_LOW] < row.mean
    assert row.low <= row.mean <= row.high
    rows = summary.to_rows()
    json.dumps(rows, allow_nan=False)
    assert {r["class"] for r in rows} == {
        "background",
        "a",
        "b",
        "foreground mean",
        "mean of all classes",
        "whole image",
    }
    with pytest.raises(InputError, match="no scored mask"):
        metrics.summarise_masks([])
    with pytest.raises(InputError, match="class names"):
        metrics.summarise_masks(scores, class_names=["a"])


def test_a_failed_image_counts_with_0_in_every_mean():
    scores = random_scores(6)
    whole, found = metrics.summarise_masks(scores), metrics.summarise_masks(scores, failed=2, groups=list("aabbcccc"))
    assert (found.images, found.failed, whole.failed) == (8, 2, 0)
    for key, row in whole.rows.items():
        assert found[key].mean == pytest.approx(row.mean * 6 / 8), key
    assert all(found.lower[key] <= bound for key, bound in whole.lower.items())
    assert {row["failed"] for row in found.to_rows()} == {2} and found[metrics.FOREGROUND, metrics.DICE_LOW].groups == 3
    with pytest.raises(InputError, match="groups do not fit"):
        metrics.summarise_masks(scores, failed=2, groups=list("aabbcc"))


def test_lower_bound_over_images_pays_for_wrong_certificates():
    scores = random_scores(40)
    summary = metrics.summarise_masks(scores, confidence=0.99)
    allowed = int(stats.binom.ppf(0.99, 40, 1e-3))
    key = (metrics.WHOLE_IMAGE, metrics.ACCURACY_LOW)
    assert summary.lower[key] == pytest.approx(summary[key].mean - allowed / 40, abs=1e-9)


def test_t_interval_equals_scipy_on_group_means():
    values, groups = [0.1, 0.3, 0.5, 0.9, 0.4], ["a", "a", "b", "c", "c"]
    found = mean_interval(values, groups, method="t", confidence=0.9)
    means = [0.2, 0.5, 0.65]
    low, high = stats.t.interval(0.9, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(means), max(low, 0), min(high, 1)))
    assert found.groups == 3


def test_bootstrap_resamples_groups_not_images():
    generator = np.random.default_rng(0)
    levels = generator.random(20)
    values, groups = np.repeat(levels, 10), np.repeat(np.arange(20), 10)
    clustered = mean_interval(values, groups.tolist())
    naive = mean_interval(values)
    assert clustered.mean == naive.mean
    wide, narrow = clustered.high - clustered.low, naive.high - naive.low
    assert wide > 2.5 * narrow
    # The width of a cluster bootstrap is that of a bootstrap of the 20 levels.
    assert wide == pytest.approx(2 * 1.96 * levels.std() / np.sqrt(20), rel=0.1)
    assert mean_interval(values, groups.tolist()) == clustered
    assert mean_interval(values, groups.tolist(), seed=1) != clustered


def test_left_out_images_and_single_groups():
    found = mean_interval([0.5, float("nan"), 0.7])
    assert (found.mean, found.images) == (pytest.approx(0.6), 2)
    assert np.isnan(mean_interval([0.5, 0.6], ["p", "p"]).low) and np.isnan(mean_interval([float("nan")]).mean)
    for wrong in ({"method": "normal"}, {"confidence": 1.0}, {"groups": [1]}):
        with pytest.raises(InputError):
            mean_interval([0.1, 0.2], **wrong)
