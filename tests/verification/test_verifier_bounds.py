"""The verifier's own bounds: right to 40 digits, apart from the code that writes certificates, and fast."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpmath import mp
from scipy import stats
from verification.honest import class_certificate, mask_certificates

from certimed.certificates import ClassCertificate, Share
from certimed.noise import as_law, sample_variation
from certimed.verification.certificates import certificate_faults
from certimed.verification.exact import among_first, fisher, lower_tail, quantile, upper_tail
from certimed.verification.laws import read_law

# 50 digits are printed by mpmath itself where a test fails; comparisons are to 1e-40.
mp.dps = 60


def faults(certificate: ClassCertificate, **claim: Any) -> list[str]:
    """What is false about a certificate, some fields of its claim changed."""
    data = json.loads(certificate.to_json())
    data["claim"] |= claim
    return list(certificate_faults(data))


@pytest.mark.parametrize(
    ("k", "n", "p"), [(3, 10, 0.3), (9, 10, 0.75), (1, 7, 0.9), (10, 10, 0.25), (40, 100, 0.5), (61, 100, 0.5)]
)
def test_tails_equal_exact_rational_sums(k: int, n: int, p: float) -> None:
    exact = sum(math.comb(n, j) * Fraction(p) ** j * (1 - Fraction(p)) ** (n - j) for j in range(k, n + 1))
    as_mp = mp.mpf(exact.numerator) / mp.mpf(exact.denominator)
    assert abs(mp.mpf(str(upper_tail(k, n, Fraction(p)))) / as_mp - 1) < mp.mpf(10) ** -40
    complement = mp.mpf(str(lower_tail(k - 1, n, Fraction(p))))
    assert abs(complement - (1 - as_mp)) < mp.mpf(10) ** -40


@pytest.mark.parametrize(
    ("k", "n", "p"), [(9_700, 10_000, 0.96), (99_000, 100_000, 0.98), (1_000_000, 1_000_000, 0.99999)]
)
def test_large_tails_agree_with_scipy(k: int, n: int, p: float) -> None:
    assert float(upper_tail(k, n, Fraction(p))) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-8)


@pytest.mark.parametrize("p", [0.5, 0.75, 0.999999, 1 - 2**-53, 1e-12, 1e-300, 0.50000001])
def test_quantiles_invert_the_normal_distribution(p: float) -> None:
    z = mp.mpf(str(quantile(Fraction(p))))
    assert abs(mp.ncdf(z) / mp.mpf(p) - 1) < mp.mpf(10) ** -40
    assert float(z) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "first", "total_hits", "total"), [(30, 64, 100, 400), (64, 64, 350, 400), (9, 10, 10, 1000)]
)
def test_hypergeometric_tails_are_exact_sums(hits: int, first: int, total_hits: int, total: int) -> None:
    ways = sum(
        math.comb(first, x) * math.comb(total - first, total_hits - x) for x in range(hits, min(first, total_hits) + 1)
    )  # fmt: skip
    exact = ways / math.comb(total, total_hits)
    assert among_first(hits, first, total_hits, total) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("a", "n", "b", "m"), [(3, 10, 5, 12), (0, 8, 8, 8), (7, 7, 1, 9), (5, 10, 5, 10)])
def test_fisher_tails_equal_scipy(a: int, n: int, b: int, m: int) -> None:
    law = stats.hypergeom(n + m, a + b, n)
    exact = min(1.0, 2 * min(law.sf(a - 1), law.cdf(a)))
    assert fisher(a, n, b, m) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("sigma", [0.001, 0.05, 0.12, 0.25, 0.5, 1.0, 7.9])
def test_what_a_law_charges_lies_between_the_drift_demanded_and_twice_that(sigma: float) -> None:
    law = as_law("grid", sigma)
    read = read_law(law.to_dict())
    assert not isinstance(read, str)
    for shape in ([1, 4, 4], [3, 224, 224], [1, 128, 128, 64]):
        drift = float(read.drift(shape))
        assert drift <= law.variation(math.prod(shape)) <= 2 * drift


def test_a_sample_of_two_views_pays_for_both() -> None:
    law, views = as_law("grid", 0.25), (0.25 * math.sqrt(2), 0.25 * math.sqrt(2))
    read, shape = read_law(law.to_dict()), [3, 1024, 1024]
    assert not isinstance(read, str)
    assert float(read.drift(shape, list(views))) <= sample_variation(law, math.prod(shape), views)
    both = class_certificate("1000", [0.9, 0.1], noise="grid", shape=(3, 1024, 1024), views=views)
    once = class_certificate("1000", [0.9, 0.1], noise="grid", shape=(3, 1024, 1024))
    assert faults(both) == [] and both.p_lower < once.p_lower
    assert faults(both, p_lower=once.p_lower, radius=once.radius)


def test_a_drift_that_is_not_paid_is_caught() -> None:
    """The float32 law's p_lower, claimed under the grid law at a size where the difference is above all rounding."""
    shape = (3, 1024, 1024)
    for bound in ("one-sided", "two-sided"):
        honest = class_certificate("1000", [0.9, 0.1], noise="grid", bound=bound, shape=shape)
        free = class_certificate("1000", [0.9, 0.1], noise="float32", bound=bound, shape=shape)
        assert faults(honest) == []
        assert honest.p_lower < free.p_lower
        assert faults(honest, p_lower=free.p_lower, radius=free.radius)
        if free.q_upper is not None:
            assert faults(honest, q_upper=free.q_upper, radius=free.radius)
        assert faults(honest, p_lower=honest.p_lower - 1e-7)


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
def test_no_bound_may_claim_more_by_a_billionth(bound: str) -> None:
    """What rounding inwards would do: the smallest excess that matters is caught."""
    made = class_certificate("1000", [0.9, 0.06, 0.04], bound=bound)
    assert faults(made, p_lower=made.p_lower * (1 + 1e-9))
    assert faults(made, radius=made.radius * (1 + 1e-9))
    if made.q_upper is not None:
        assert faults(made, q_upper=made.q_upper * (1 - 1e-9))


def test_a_bound_at_half_the_level_is_not_taken_for_one_at_all_of_it() -> None:
    one, two = (class_certificate("1000", [0.95, 0.05], bound=bound) for bound in ("one-sided", "two-sided"))
    assert faults(one, p_lower=two.p_lower)
    assert faults(two, p_lower=one.p_lower)


def test_a_certificate_chosen_among_methods_is_checked_at_its_share_of_alpha() -> None:
    share = Share(0.0005, 0.001, 2, "methods")
    among = {"chosen_from": ("plain", "few-shot"), "scope": "chosen at x"}
    paid = class_certificate("1000", [0.95, 0.05], alpha=0.0005, share=share, **among)
    assert faults(paid) == []
    unpaid = class_certificate("1000", [0.95, 0.05], alpha=0.001, share=share, **among)
    assert faults(unpaid)
    for wrong in (Share.alone(0.0005), Share(0.0005, 0.001, 2, "taus"), Share(0.0005, 0.002, 2, "methods")):
        assert faults(replace(paid, share=wrong))


def test_holm_with_one_pixel_too_many_is_caught(tmp_path: Path) -> None:
    """A pixel at the count of the next group, which the test does not reach."""
    probabilities = np.full((64, 64), 0.6)
    probabilities[0] = 1.0
    (made,) = mask_certificates("100", probabilities)
    made.write_arrays(tmp_path / "x.npz")
    assert list(certificate_faults(json.loads(made.to_json()), tmp_path / "x.npz")) == []
    next_down = int(made.agreement[made.agreement < (made.threshold or 0)].max())
    forged = replace(made, claim=replace(made.claim, threshold=next_down))
    forged = replace(forged, samples=replace(made.samples, looks=((100, next_down),)))
    forged.write_arrays(tmp_path / "x.npz")
    (fault,) = certificate_faults(json.loads(forged.to_json()), tmp_path / "x.npz")
    assert fault == f"threshold={next_down} is not the one holm gives ({made.threshold})"


def test_a_thousand_certificates_in_ten_seconds() -> None:
    rng = np.random.default_rng(0)
    made = []
    for index, top in enumerate(rng.uniform(0.5, 1, 1000)):
        bound = ("one-sided", "two-sided", "best")[index % 3]
        counts = [float(top), (1 - float(top)) * 2 / 3, (1 - float(top)) / 3]
        made.append(json.loads(class_certificate("10000", counts, bound=bound, seed=index).to_json()))
    begin = time.process_time()  # of this process alone: the machine may be busy with others
    assert not [fault for data in made for fault in certificate_faults(data)]
    assert time.process_time() - begin <= 10.0


def test_the_verifier_shares_nothing_with_what_it_verifies() -> None:
    code = (
        "import sys, certimed.verification as v; v.verify; import certimed.verification.exact as e; e.context();"
        "own = {'certimed', 'certimed.errors', 'certimed.integrity'};"
        "print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'torch') or m.startswith('certimed')"
        " and m not in own and not m.startswith('certimed.verification')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
