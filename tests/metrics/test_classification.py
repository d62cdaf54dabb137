"""Certified accuracy and its companions on certificates whose numbers can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from toys import class_certificate

from certimed.certificates import ClassCertificate
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, per_class_rows, summarise, with_failed


def certificate(counts, selection) -> ClassCertificate:
    return class_certificate(counts, selection, shape=(1, 4, 4))


# Certified right; certified wrong; majority without significance; no majority for the chosen class.
FOUR = [
    certificate(counts, selection)
    for counts, selection in (([1000, 0], [10, 0]), ([1000, 0], [9, 1]), ([510, 490], [7, 3]), ([400, 600], [6, 4]))
]
LABELS = [0, 1, 0, 0]


def test_curve_counts_correct_and_strictly_above_the_radius():
    radius = FOUR[0].radius
    found = summarise(FOUR, LABELS, radii=(0.0, np.nextafter(radius, 0), radius, 3.0))
    assert found.certified_accuracy == (0.25, 0.25, 0.0, 0.0)
    assert found.certified_share == (0.5, 0.5, 0.0, 0.0)
    assert found.mean_radius == pytest.approx(radius / 4)
    assert (found.too_few_samples, found.unstable) == (0.25, 0.25)
    assert found.noisy_accuracy == pytest.approx((1.0 + 0.1 + 0.7 + 0.6) / 4)
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


def test_noisy_accuracy_is_taken_at_the_selection_samples_whatever_the_budget_drew():
    """An adaptive budget draws most where images are hard: its own samples would weigh those."""
    few, many = certificate([10, 0], [6, 4]), certificate([100_000, 0], [6, 4])
    assert summarise([few], [0]).noisy_accuracy == summarise([many], [0]).noisy_accuracy == pytest.approx(0.6)


def test_one_function_decides_what_a_failed_image_is_worth():
    assert with_failed([1.0, 0.5], 2).tolist() == [1.0, 0.5, 0.0, 0.0]
    found = summarise(FOUR, LABELS, [0] * 4, radii=(0.0,), failed=4)
    whole = summarise(FOUR, LABELS, [0] * 4, radii=(0.0,))
    for name in ("clean_accuracy", "noisy_accuracy", "too_few_samples", "unstable", "mean_radius"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name) / 2), name
    assert found.accuracy_lower[0] <= found.certified_accuracy[0] == whole.certified_accuracy[0] / 2


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
    rows = per_class_rows(FOUR, LABELS, ["normal", "tumour", "stroma"], radii=(0.0,), failed=[1, 2, 2])
    assert [(row["images"], row["failed"]) for row in rows] == [(3, 0), (2, 1), (2, 2)]
    assert [row["certified at 0"] for row in rows] == pytest.approx([1 / 3, 0, 0])
    assert (rows[2]["low"], rows[2]["noisy_accuracy"]) == (0.0, 0.0) and 0 < rows[2]["high"] < 1
    with pytest.raises(InputError, match="no name"):
        per_class_rows(FOUR, LABELS, ["normal"])
    with pytest.raises(InputError, match="do not fit"):
        per_class_rows(FOUR, LABELS[:2])
