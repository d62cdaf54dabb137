"""The verifier's own bounds: right to 40 digits, apart from the code that writes certificates, and fast."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy import stats

from certimed.classification import certificate_from_counts
from certimed.segmentation import certificate_from_agreement
from certimed.verification import verify
from certimed.verification.classes import class_faults
from certimed.verification.exact import lower_tail, quantile, upper_tail
from certimed.verification.masks import mask_faults

# 50 digits are printed by mpmath itself where a test fails; comparisons are to 1e-40.
mp.dps = 60


def certified(counts, alpha=1e-3, sigma=0.5, bound="one-sided", top=None, **options):
    selection = np.zeros(len(counts), dtype=np.int64)
    selection[int(np.argmax(counts)) if top is None else top] = 100
    made = dict(item="x", alpha=alpha, sigma=sigma, seed=0, shape=(1, 4, 4), bound=bound, model_id="m")
    return certificate_from_counts(selection, np.asarray(counts, dtype=np.int64), **made, **options)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(3, 10, 0.3), (9, 10, 0.75), (1, 7, 0.9), (10, 10, 0.25), (40, 100, 0.5), (61, 100, 0.5)]
)
def test_tails_equal_exact_rational_sums(k, n, p):
    exact = sum(
        Fraction(mp.binomial(n, j).__int__()) * Fraction(p) ** j * (1 - Fraction(p)) ** (n - j) for j in range(k, n + 1)
    )
    as_mp = mp.mpf(exact.numerator) / mp.mpf(exact.denominator)
    assert abs(mp.mpf(str(upper_tail(k, n, Fraction(p)))) / as_mp - 1) < mp.mpf(10) ** -40
    complement = mp.mpf(str(lower_tail(k - 1, n, Fraction(p))))
    assert abs(complement - (1 - as_mp)) < mp.mpf(10) ** -40


@pytest.mark.parametrize(
    ("k", "n", "p"), [(9_700, 10_000, 0.96), (99_000, 100_000, 0.98), (1_000_000, 1_000_000, 0.99999)]
)
def test_large_tails_agree_with_scipy(k, n, p):
    assert float(upper_tail(k, n, Fraction(p))) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-8)


@pytest.mark.parametrize("p", [0.5, 0.75, 0.999999, 1 - 2**-53, 1e-12, 1e-300, 0.50000001])
def test_quantiles_invert_the_normal_distribution(p):
    z = mp.mpf(str(quantile(Fraction(p))))
    assert abs(mp.ncdf(z) / mp.mpf(p) - 1) < mp.mpf(10) ** -40
    assert float(z) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_every_certificate_the_library_writes_is_true(data):
    n = data.draw(st.sampled_from([1, 10, 100, 1000, 10_000]))
    k = data.draw(st.sampled_from([0, 1, n // 2, n // 2 + 1, n - 1, n]) | st.integers(0, n))
    second = data.draw(st.integers(0, n - k))
    made = certified(
        [k, second, n - k - second],
        alpha=data.draw(st.sampled_from([1e-12, 1e-3, 0.05, 0.4])),
        sigma=data.draw(st.sampled_from([0.1, 0.25, 1.0])),
        bound=data.draw(st.sampled_from(["one-sided", "two-sided", "best"])),
        top=0,
    )
    assert list(class_faults(json.loads(made.to_json()))) == []


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_mask_certificate_the_library_writes_is_true(data, tmp_path_factory):
    n = data.draw(st.sampled_from([20, 100, 1000]))
    counts = data.draw(st.lists(st.integers(n // 2, n) | st.just(n), min_size=64, max_size=64))
    agreement = np.array(counts).reshape(8, 8)
    correction = data.draw(st.sampled_from(["holm", "bonferroni", "lehmann-romano"]))
    made = certificate_from_agreement(
        np.zeros((8, 8), dtype=np.uint8), agreement, item="x", num_classes=2, n0=10, n=n, alpha=1e-3,
        tau=data.draw(st.sampled_from([0.5, 0.75, 0.9])), correction=correction, sigma=0.25, seed=0, shape=(1, 8, 8),
        k_fwer=data.draw(st.sampled_from([1, 3])) if correction == "lehmann-romano" else 1,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("mask") / "x"
    made.save(path)
    assert verify(path.with_name("x.json")).faults == ()


@pytest.mark.parametrize("bound", ["one-sided", "two-sided", "best"])
def test_no_bound_may_claim_more_by_a_billionth(bound):
    """What rounding inwards would do: the smallest excess that matters is caught."""
    made = certified([900, 60, 40], bound=bound)
    data = json.loads(made.to_json())
    for name, factor in (("p_lower", 1 + 1e-9), ("radius", 1 + 1e-9)):
        assert list(class_faults(data | {name: data[name] * factor}))
    if data["q_upper"] is not None:
        assert list(class_faults(data | {"q_upper": data["q_upper"] * (1 - 1e-9)}))


def test_cp_at_alpha_over_two_is_not_taken_for_one_at_alpha():
    one, two = certified([950, 50]), certified([950, 50], bound="two-sided")
    assert list(class_faults(json.loads(replace(one, p_lower=two.p_lower).to_json())))
    assert list(class_faults(json.loads(replace(two, p_lower=one.p_lower).to_json())))


def test_a_certificate_chosen_among_methods_is_checked_at_its_share_of_alpha():
    note = (
        "Chosen as the largest radius of 2 methods (none, few-shot): each was bounded at alpha/2 = 0.0005 "
        "(Bonferroni), alpha 0.001 being the total."
    )
    share = replace(certified([950, 50], alpha=0.0005), alpha=0.001, notes=(note,))
    assert list(class_faults(json.loads(share.to_json()))) == []
    full = replace(certified([950, 50], alpha=0.001), notes=(note,))
    for forged in (
        full,
        replace(share, notes=()),
        replace(share, notes=(note.replace("2", "3"),)),
        replace(share, notes=(note.replace("alpha/2", "alpha/1"),)),
        replace(share, notes=("Bonferroni was applied somehow.",)),
    ):
        assert list(class_faults(json.loads(forged.to_json())))


def test_holm_with_one_pixel_too_many_is_caught(tmp_path):
    """89 of 100 agreeing samples at 2^21 pixels do not certify at tau .75, alpha .001; 98 are needed."""
    agreement = np.full((1 << 10, 1 << 11), 60, dtype=np.uint8)
    agreement[0, 0], agreement[0, 1] = 98, 89
    made = certificate_from_agreement(
        np.zeros(agreement.shape, dtype=np.uint8), agreement, item="x", num_classes=2, n0=10, n=100, alpha=1e-3,
        tau=0.75, correction="holm", sigma=0.25, seed=0, shape=(1, *agreement.shape),
    )  # fmt: skip
    assert made.threshold == 98
    made.write_arrays(tmp_path / "x.npz")
    assert list(mask_faults(made.to_dict(), tmp_path / "x.npz")) == []
    forged = replace(made, threshold=89)
    forged.write_arrays(tmp_path / "x.npz")
    (fault,) = mask_faults(forged.to_dict(), tmp_path / "x.npz")
    assert fault == "threshold=89 is not the one holm gives (98)"


def test_a_thousand_certificates_in_ten_seconds():
    generator = np.random.default_rng(0)
    made = []
    for index in range(1000):
        k = int(generator.integers(5_000, 10_001))
        bound = ("one-sided", "two-sided", "best")[index % 3]
        made.append(
            json.loads(certified([k, 10_000 - k - (10_000 - k) // 3, (10_000 - k) // 3], bound=bound).to_json())
        )
    begin = time.process_time()  # of this process alone: the machine may be busy with others
    assert not [fault for data in made for fault in class_faults(data)]
    assert time.process_time() - begin <= 10.0


def test_the_verifier_shares_no_bound_with_what_it_verifies():
    code = (
        "import sys, certimed.verification as v; v.verify; import certimed.verification.exact as e; e.context();"
        "print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'torch') or m.startswith('certimed.stat')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
