"""Certified accuracy and its companions on certificates whose numbers can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from certimed.certificates import ClassCertificate
from certimed.classification import certificate_from_counts
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, per_class_rows, summarise


def certificate(counts, top=None) -> ClassCertificate:
    selection = np.zeros(len(counts), dtype=np.int64)
    selection[int(np.argmax(counts)) if top is None else top] = 10
    return certificate_from_counts(
        selection, np.array(counts), item="x", alpha=1e-3, sigma=0.5, seed=0, shape=(1, 4, 4)
    )


# Certified right; certified wrong; majority without significance; no majority for the chosen class.
FOUR = [certificate(c, t) for c, t in (([1000, 0], 0), ([1000, 0], 0), ([510, 490], 0), ([400, 600], 0))]
LABELS = [0, 1, 0, 0]


def test_curve_counts_correct_and_strictly_above_the_radius():
    radius = FOUR[0].radius
    found = summarise(FOUR, LABELS, radii=(0.0, np.nextafter(radius, 0), radius, 3.0))
    assert found.certified_accuracy == (0.25, 0.25, 0.0, 0.0)
    assert found.certified_share == (0.5, 0.5, 0.0, 0.0)
    assert found.mean_radius == pytest.approx(radius / 4)
    assert (found.too_few_samples, found.unstable) == (0.25, 0.25)
    assert found.noisy_accuracy == pytest.approx((1.0 + 0.0 + 0.51 + 0.4) / 4)
    assert summarise(FOUR, LABELS, [0, 0, 0, 1]).clean_accuracy == 0.5
    assert summarise(FOUR, LABELS).radii == PUBLISHED_RADII


def test_intervals_are_exact_and_lower_bound_pays_for_alpha():
    found = summarise(FOUR * 50, LABELS * 50, radii=(0.0,), confidence=0.9)
    wanted = stats.binomtest(50, 200).proportion_ci(0.9, method="exact")
    assert found.intervals[0] == pytest.approx((wanted.low, wanted.high))
    allowed = int(stats.binom.ppf(0.9, 200, 1e-3))
    assert found.accuracy_lower[0] == pytest.approx(0.25 - allowed / 200)


def test_failed_images_count_against_the_method_when_given():
    found = summarise(FOUR, LABELS, radii=(0.0,), failed=1)
    assert (found.images, found.failed) == (5, 1)
    assert found.certified_accuracy == (0.2,) and found.certified_share == (0.4,)
    with pytest.raises(InputError, match="negative"):
        summarise(FOUR, LABELS, failed=-1)
    with pytest.raises(InputError, match="no certificate"):
        summarise([], [], failed=3)


def test_without_labels_only_shares_are_stated():
    found = summarise(FOUR, None, radii=(0.0,))
    assert found.certified_accuracy is None and found.noisy_accuracy is None and found.certified_share == (0.5,)
    assert found.to_rows()[0]["certified_accuracy"] is None


def test_rows_are_plain_json():
    rows = summarise(FOUR, LABELS).to_rows()
    json.dumps(rows, allow_nan=False)
    assert [row["radius"] for row in rows] == list(PUBLISHED_RADII)
    assert rows[0]["low"] <= rows[0]["certified_accuracy"] <= rows[0]["high"]


def test_per_class_rows_average_to_the_whole():
    rows = per_class_rows(FOUR, LABELS, ["normal", "tumour"], radii=(0.0, 0.5))
    assert [(row["class"], row["images"]) for row in rows] == [("normal", 3), ("tumour", 1)]
    whole = summarise(FOUR, LABELS, radii=(0.0, 0.5))
    weighted = sum(row["certified at 0"] * row["images"] for row in rows) / 4
    assert weighted == pytest.approx(whole.certified_accuracy[0])
    with pytest.raises(InputError, match="no name"):
        per_class_rows(FOUR, LABELS, ["normal"])
    with pytest.raises(InputError, match="do not fit"):
        per_class_rows(FOUR, LABELS[:2])
