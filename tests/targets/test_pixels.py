"""SmoothedSegmenter against closed forms and against an independent rewrite of the published loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from toys import bands, noisy_copies, threshold

from benchmarks.reference.segcertify import all_predictions, segcertify
from certimed.errors import InputError, ModelError
from certimed.segmentation import SmoothedSegmenter
from certimed.statistics import count_threshold
from certimed.targets import winning_class


@pytest.mark.parametrize("space", [(12, 9), (5, 4, 6)])
@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_equals_the_published_loop_on_the_same_samples(space, correction):
    image = torch.rand(1, *space, generator=torch.Generator().manual_seed(1))
    certificate = SmoothedSegmenter(bands, 3, 0.12, noise="float32").certify(
        image, n0=10, n=150, correction=correction, seed=4, item_id="a", batch_size=7
    )
    votes = [
        all_predictions(bands, noisy_copies(image, 0.12, 4, "a", phase, count))
        for phase, count in (("selection", 10), ("estimation", 150))
    ]
    mask, certified = segcertify(*votes, tau=0.75, alpha=1e-3, correction=correction)
    assert np.array_equal(certificate.mask, mask)
    assert np.array_equal(certificate.certified, certified)
    assert np.array_equal(certificate.agreement, (votes[1] == mask).sum(0))
    assert 0 < certified.mean() < 1


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_family_wise_error_is_at_most_alpha_exactly(correction):
    """Three null pixels and one robust one, independent: the error probability summed over all outcomes."""
    n, tau, alpha = 9, 0.5, 0.25
    null, robust = stats.binom.pmf(np.arange(n + 1), n, tau), stats.binom.pmf(np.arange(n + 1), n, 0.97)
    error = 0.0
    for counts in itertools.product(range(n + 1), repeat=4):
        found = count_threshold(np.bincount(counts, minlength=n + 1), n, tau, alpha, correction)
        if found is not None and max(counts[:3]) >= found:
            error += null[list(counts[:3])].prod() * robust[counts[3]]
    assert 0 < error <= alpha


def test_wrong_certificates_end_to_end_stay_below_alpha():
    """Pixels whose true radius lies just below the certified one: certifying any of them is an error."""
    sigma, tau, alpha, runs = 0.25, 0.6, 0.2, 250
    true_radius = sigma * stats.norm.ppf(tau) * 0.999
    image = torch.full((1, 4, 4), 0.5 + float(true_radius))
    segmenter = SmoothedSegmenter(threshold, 2, sigma)
    wrong = 0
    for seed in range(runs):
        certificate = segmenter.certify(image, n0=20, n=60, tau=tau, alpha=alpha, seed=seed, item_id="null")
        wrong += bool((certificate.certified & (certificate.mask == 1)).any())
    assert wrong <= stats.binom.ppf(0.9999, runs, alpha)


def test_robust_pixels_are_certified_and_their_radii_are_true():
    image = torch.linspace(0.0, 1.0, 400).view(1, 20, 20)
    certificate = SmoothedSegmenter(threshold, 2, 0.2).certify(image, n=2_000, alpha=1e-6, seed=2)
    margin = (image[0] - 0.5).abs().numpy()
    assert (certificate.radius_map() < np.maximum(margin, 1e-12) + 1e-12).all()
    assert (margin[certificate.certified] >= certificate.radius).all()
    assert certificate.certified[margin > 0.2].all()
    assert certificate.radius == pytest.approx(0.2 * stats.norm.ppf(0.75), rel=1e-9)
    assert certificate.radius <= 0.2 * stats.norm.ppf(0.75)


def test_batch_size_and_order_leave_no_trace():
    image, other = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    first = SmoothedSegmenter(bands, 3, 0.2)
    plain = first.certify(image, seed=1)
    again = SmoothedSegmenter(bands, 3, 0.2)
    again.certify(other, seed=1)
    assert again.certify(image, seed=1, batch_size=1) == plain
    assert again.certify(image, seed=1, batch_size=33) == plain
    assert again.certify(image, seed=2) != plain


def test_one_logit_channel_needs_a_threshold():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))

    def logit(x):
        return x - 0.5

    with pytest.raises(ModelError, match="binary_threshold"):
        SmoothedSegmenter(logit, 2, 0.1).certify(image)
    one = SmoothedSegmenter(logit, 2, 0.1, binary_threshold=0.0).certify(image)
    two = SmoothedSegmenter(threshold, 2, 0.1).certify(image)
    assert one == two
    with pytest.raises(InputError, match="exactly 2 classes"):
        SmoothedSegmenter(logit, 3, 0.1, binary_threshold=0.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n": 20}, r"use n >= 44"),
        ({"tau": 0.99, "n": 100}, r"use n >= "),
        ({"tau": 0.4}, "0.5 <= tau < 1"),
        ({"tau": 1.0}, "0.5 <= tau < 1"),
        ({"alpha": 0.0}, "alpha"),
        ({"n0": 0}, "n0"),
        ({"correction": "benjamini-hochberg"}, "benjamini-hochberg"),
        ({"correction": "lehmann-romano"}, "use one of holm, bonferroni"),
        ({"budget": "grid"}, "does not serve masks"),
        ({"budget": "guess"}, "not understood"),
        ({"budget": 80, "n": 80}, "give one of them"),
        ({"budget": "pixels:10,20"}, r"use n >= "),
    ],
)
def test_impossible_settings_are_refused_before_sampling(setting, message):
    def never(x):
        raise AssertionError("the model was called")

    with pytest.raises(InputError, match=message):
        SmoothedSegmenter(never, 2, 0.1).certify(torch.rand(1, 16, 16), **setting)


def test_the_suggested_n_does_certify():
    certificate = SmoothedSegmenter(threshold, 2, 0.01).certify(torch.zeros(1, 16, 16), n=44)
    assert certificate.share_certified == 1.0


def test_broken_models_are_named():
    image = torch.rand(1, 8, 8)
    with pytest.raises(ModelError, match="num_classes"):
        SmoothedSegmenter(threshold, 3, 0.1).certify(image)
    with pytest.raises(ModelError, match="not finite"):
        SmoothedSegmenter(lambda x: threshold(x) * float("nan"), 2, 0.1).certify(image)
    with pytest.raises(ModelError, match="training mode"):
        SmoothedSegmenter(torch.nn.Conv2d(1, 2, 1), 2, 0.1)


def test_several_taus_share_alpha_and_samples():
    image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(5))
    segmenter = SmoothedSegmenter(threshold, 2, 0.2)
    both = segmenter.certify_taus(image, [0.75, 0.9], n=300, alpha=1e-3, seed=9)
    assert [c.tau for c in both] == [0.75, 0.9]
    assert sum(c.alpha for c in both) <= 1e-3
    assert np.array_equal(both[0].agreement, both[1].agreement)
    assert both[0].certified[both[1].certified].all()
    alone = segmenter.certify(image, n=300, tau=0.9, alpha=both[1].alpha, seed=9)
    assert np.array_equal(alone.certified, both[1].certified)
    assert {(c.share.of, c.share.total, c.share.why) for c in both} == {(2, 1e-3, "taus")}
    assert "together they fail with 0.001" in both[0].statement() and "together" not in alone.statement()
    assert both[0].label == "plain, tau 0.75" and alone.label == "plain"
    for taus in ([], [0.75, 0.75]):
        with pytest.raises(InputError):
            segmenter.certify_taus(image, taus, n=300)


def test_bonferroni_never_certifies_more_than_holm():
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(6))
    segmenter = SmoothedSegmenter(threshold, 2, 0.3)
    holm, bonferroni = (segmenter.certify(image, correction=name) for name in ("holm", "bonferroni"))
    assert holm.certified[bonferroni.certified].all()
    assert holm.share_certified >= bonferroni.share_certified > 0
    # The radius map is Bonferroni's statement: what it puts at the radius or above is what that test certifies.
    assert np.array_equal(bonferroni.radius_map() >= bonferroni.radius, bonferroni.certified)


@pytest.mark.parametrize("classes", [2, 3, 5, 300])
def test_winning_class_is_argmax_with_ties_to_the_lowest(classes):
    scores = torch.randint(0, 4, (3, classes, 7, 5), generator=torch.Generator().manual_seed(classes)).float()
    assert torch.equal(winning_class(scores).long(), scores.argmax(dim=1))


def test_many_images_are_certified_as_alone():
    images = {name: torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("ab")}
    segmenter = SmoothedSegmenter(threshold, 2, 0.1)
    many = list(segmenter.certify_many(images.items(), n=60, seed=5))
    assert many == [segmenter.certify(x, n=60, seed=5, item_id=name) for name, x in images.items()]
    budgeted = next(segmenter.certify_many(images.items(), budget="pixels:60,80"))
    assert budgeted.budget == "pixels:60,80"
    with pytest.raises(InputError, match="comes twice"):
        list(segmenter.certify_many([("a", images["a"]), ("a", images["b"])], n=60))


def test_progress_counts_every_sample():
    seen: list[int] = []
    SmoothedSegmenter(threshold, 2, 0.1).certify(torch.rand(1, 8, 8), n0=10, n=60, batch_size=32, progress=seen.append)
    assert sum(seen) == 70


def test_global_random_state_is_untouched():
    state = torch.random.get_rng_state()
    SmoothedSegmenter(threshold, 2, 0.1).certify(torch.full((1, 8, 8), 0.25))
    assert torch.equal(state, torch.random.get_rng_state())


def test_recorded_counts_under_float32_noise_are_what_they_always_were():
    """Recorded before the noise had laws: seeds, streams and tests changed in no bit."""
    image = torch.linspace(0, 1, 64).view(1, 8, 8)
    segmenter = SmoothedSegmenter(threshold, 2, 0.25, noise="float32")
    for budget, smallest, n, agreement, radii in (
        (100, 92, 100, 4957, 6.520011735220343),
        ("pixels:60,90,200/0.02", 175, 200, 9922, 8.702362793079402),
    ):
        made = segmenter.certify(image, budget=budget, seed=3, item_id="x")
        assert (made.threshold, made.n, made.agreement.sum(), made.mask.sum()) == (smallest, n, agreement, 31)
        assert (made.radius, made.radius_map().sum()) == (0.16862243754900355, radii)


def test_the_default_is_the_published_hundred_samples_for_one_tau_and_for_several():
    image = torch.full((1, 4, 4), 0.9)
    segmenter = SmoothedSegmenter(threshold, 2, 0.1)
    assert segmenter.certify(image).n == 100
    assert [made.n for made in segmenter.certify_taus(image, (0.7, 0.75))] == [100, 100]
