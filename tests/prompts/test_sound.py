"""Sound tuning at test time: the linearised encoder, the split radius on closed forms, and what tuning cannot break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional
from toys import CLASS_NAMES, Direct, TinyVLM, class_images

from certimed.classification import SmoothedClassifier
from certimed.errors import InputError
from certimed.noise import named_law
from certimed.prompts import (
    EntropyTuner,
    LinearText,
    PerSampleClassifier,
    PromptComparison,
    PromptLearner,
    Split,
    ViewSigmas,
    split_sigmas,
)
from certimed.statistics import clopper_pearson_lower, lower_less, radius_from_lower
from certimed.targets import Classes

WORDS = "an H&E image patch of"


@pytest.mark.parametrize("per_class", [False, True])
def test_the_jacobian_is_the_derivative_of_the_text_features(per_class: bool) -> None:
    learner = PromptLearner(TinyVLM(), CLASS_NAMES, WORDS, per_class=per_class)
    linear = LinearText(learner)
    step = torch.randn(learner.context.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    with torch.no_grad():
        moved = learner.features(learner.context + step) - learner.features(learner.context - step)
    directions = step.expand(3, -1, -1).flatten(1)
    predicted = 2 * (linear.jacobian @ directions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(predicted, moved, atol=2e-6, rtol=2e-3)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_linear_tuning_follows_the_exact_tuning_row_by_row(per_class: bool, steps: int) -> None:
    learner = PromptLearner(TinyVLM(), CLASS_NAMES, WORDS, per_class=per_class)
    views = torch.randn((6, 4, 8), generator=torch.Generator().manual_seed(1))
    found = LinearText(learner).tune(views, steps=steps, lr=1e-3)
    start = learner.text_features().detach()
    for row, text in zip(views, found):
        exact = EntropyTuner(learner, steps=steps, lr=1e-3).tune(row).text_features
        moved, wanted = text - start, exact - start
        assert float(functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0)) > 0.995
        assert float(moved.norm()) == pytest.approx(float(wanted.norm()), rel=0.1)


def test_linear_tuning_uses_each_row_alone() -> None:
    linear = LinearText(PromptLearner(TinyVLM(), CLASS_NAMES, WORDS))
    views = torch.randn((5, 2, 8), generator=torch.Generator().manual_seed(2))
    together = linear.tune(views, steps=2)
    torch.testing.assert_close(torch.cat([linear.tune(row[None], steps=2) for row in views]), together)


def test_a_jacobian_beyond_two_gibibytes_is_refused() -> None:
    vlm = TinyVLM()
    learner = PromptLearner(vlm, CLASS_NAMES, 5)
    vlm.embedding_dim = 1 << 24
    with pytest.raises(InputError, match="GiB"):
        LinearText(learner)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_two_views_are_worth_the_noise_level_asked_for(share: float) -> None:
    sigmas = split_sigmas(0.3, share)
    assert sigmas.effective == pytest.approx(0.3, rel=1e-12)
    assert sigmas.tuned**-2 == pytest.approx(share / 0.09)
    with pytest.raises(InputError, match="share"):
        split_sigmas(0.3, 1.0)


class WeightedMean:
    """A two-view classifier: sign(w.x + b) at the mean of the views, weighted by their precision."""

    def __init__(self, weight: Tensor, offset: float, share: float) -> None:
        self.weight, self.offset, self.share = weight, offset, share

    def view_logits(self, tuned: Tensor, classified: Tensor) -> Tensor:
        one, two = (view @ self.weight + self.offset for view in (tuned[:, 0], classified))
        score = self.share * one + (1 - self.share) * two
        return torch.stack([score, -score], dim=1)


class TwoViews(Split):
    """Split smoothing of any two-view classifier."""

    @property
    def num_classes(self) -> int:
        return 2

    @property
    def settings(self) -> list[object]:
        return ["two views", *self.sigmas]


def two_views(classifier: object, sigma: float, share: float) -> PromptComparison:
    return PromptComparison(Direct(), [TwoViews("split", classifier, split_sigmas(sigma, share))], sigma)  # type: ignore[arg-type]


def test_coverage_of_the_split_radius_on_a_linear_classifier() -> None:
    """The best two-view rule is linear in the precision-weighted mean: its true radius is margin / |w|."""
    weight = torch.tensor([3.0, 4.0])
    image = torch.tensor([[[0.5, 0.5]]])
    margin, sigma, share, n, alpha = 0.3, 0.5, 0.3, 200, 0.05
    offset = margin - float(image.flatten() @ weight)
    smoothed = two_views(WeightedMean(weight, offset, share), sigma, share)
    true_radius = margin / 5.0
    runs = [smoothed.certify(image, n0=20, n=n, alpha=alpha, seed=seed)["split"] for seed in range(300)]
    p_true = float(norm.cdf(true_radius / sigma))
    assert np.mean([run.counts[0] / n for run in runs]) == pytest.approx(p_true, abs=4 * math.sqrt(0.25 / 300 / n))
    too_large = sum(not run.abstained and run.prediction == 0 and run.radius > true_radius for run in runs)
    wrong = sum(not run.abstained and run.prediction == 1 for run in runs)
    assert too_large + wrong <= 300 * alpha + 4 * math.sqrt(300 * alpha * (1 - alpha))
    assert too_large > 0  # a bound that is never reached would be loose, and this test blind


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("mode", ["both", "second", "switch"])
def test_no_two_view_rule_beats_the_split_radius(share: float, mode: str) -> None:
    """Exactly, without sampling: the smoothed class at distance r < R is still above one half, for every rule."""
    sigma, norm_w = 0.5, 5.0
    s1, s2 = split_sigmas(sigma, share)

    def p(margin: float) -> float:
        one, two = norm.cdf(margin / (s1 * norm_w)), norm.cdf(margin / (s2 * norm_w))
        spread = math.hypot(share * s1, (1 - share) * s2) * norm_w
        both = norm.cdf(margin / spread)
        return float({"both": both, "second": two, "switch": one * two + (1 - one) * (1 - two)}[mode])

    for margin in (0.2, 1.0, 3.0, 8.0):
        certified = float(radius_from_lower(p(margin), sigma))
        for fraction in (0.5, 0.999):
            assert p(margin - fraction * certified * norm_w) > 0.5
    if mode == "both":  # tight: the best rule reaches its true radius
        assert float(radius_from_lower(p(2.0), sigma)) == pytest.approx(2.0 / norm_w, rel=1e-6)


def test_using_a_single_view_sigma_for_two_views_would_be_unsound() -> None:
    """What the formula guards against: with s2 in place of s, the radius exceeds the true one."""
    sigmas = split_sigmas(0.5, 0.5)
    margin = 1.0
    p = float(norm.cdf(margin / sigmas.effective))
    assert float(radius_from_lower(p, sigmas.effective)) <= margin < float(radius_from_lower(p, sigmas.classified))


@pytest.mark.parametrize("copies", [0, 2])
def test_views_are_independent_and_never_shared_between_phases(copies: int) -> None:
    image, sigmas = torch.full((1, 4, 4), 0.5), split_sigmas(0.5, 0.5)
    method = Split("split", None, sigmas, copies=copies)  # type: ignore[arg-type]
    engine = PromptComparison(Direct(), [TwoViews("split", None, sigmas)], 0.5, noise="float32").engine  # type: ignore[arg-type]

    def views(phase: str, n: int, batch_size: int, start: int = 0) -> Tensor:
        subject = engine.subject(image, "a", 0, batch_size, Classes(2))
        return torch.cat(list(method.views(subject, phase, n, start))) - 0.5

    drawn = []
    for phase in ("selection", "estimation"):
        whole = views(phase, 300, 64)
        assert torch.equal(whole, views(phase, 300, 17))
        assert torch.equal(whole[100:], views(phase, 200, 64, start=100))
        # The classified view first, then what is tuned on: the other view, or noisier copies of it.
        assert whole.shape == (300, 1 + max(copies, 1), 16)
        drawn += [whole[:, 0], whole[:, 1:].mean(dim=1)]
    for index, side in enumerate(drawn):
        extra = 0.1**2 / copies if copies and index % 2 else 0.0
        assert float(side.std()) == pytest.approx(math.hypot(0.5 * math.sqrt(2), extra**0.5), rel=0.05)
        for other in drawn[index + 1 :]:
            assert abs(float((side * other).mean()) / 0.5) < 4 / math.sqrt(side.numel())


def test_per_sample_is_a_function_of_one_noisy_image_and_certifies_end_to_end() -> None:
    vlm = TinyVLM()
    images, _ = class_images(vlm, 3)
    model = PerSampleClassifier(vlm, LinearText(PromptLearner(vlm, CLASS_NAMES, WORDS)), lr=0.02).eval()
    torch.testing.assert_close(model(images), torch.cat([model(image[None]) for image in images]))
    plain = vlm.logit_scale * functional.normalize(vlm.encode_image(images), dim=1) @ model.linear.text_features.T
    assert not torch.allclose(model(images), plain, atol=1e-3)
    certificate = SmoothedClassifier(model, 3, 0.1).certify(images[0], n0=50, n=500)
    assert certificate.scope == "end-to-end"
    comparison = PromptComparison(vlm, [Split("split", model, split_sigmas(0.1))], 0.1)
    split = comparison.certify(images[0], n0=50, n=500)["split"]
    assert split.sigma == 0.1 and ViewSigmas(*split.about.views).effective == pytest.approx(0.1, rel=1e-12)
    assert split.scope == "end-to-end" and "1/s^2 = 1/s1^2 + 1/s2^2" in split.statement()


def test_both_views_pay_for_noise_that_is_off() -> None:
    """A sample of two views is two draws: their distances from the exact law add up."""
    sigma, image = 0.5, torch.full((1, 1, 2), 0.5)
    made = two_views(WeightedMean(torch.tensor([3.0, 4.0]), -3.0, 0.3), sigma, 0.3).certify(image, n=200)["split"]
    each = [named_law("grid", view).variation(2) for view in split_sigmas(sigma, 0.3)]
    assert made.variation >= sum(each) > max(each) > 0
    lower = clopper_pearson_lower(made.counts[made.prediction], 200, 1e-3)
    assert made.p_lower == float(lower_less(lower, made.variation))
