"""Several prompt methods on one image: the counts of each alone, honest scopes, and the price of choosing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from toys import CLASS_NAMES, Direct, Shrink, TinyVLM, brightness, class_images, grey

from certimed.certificates import CHOSEN_AT_X, END_TO_END, FROZEN_AT_X, certificate_from_dict
from certimed.classification import SmoothedClassifier
from certimed.engine import EmbeddingCache, Method, Scores
from certimed.errors import InputError
from certimed.prompts import (
    METHOD_NAMES,
    FixedText,
    Prompt,
    PromptComparison,
    few_shot,
    pool,
    prompt_methods,
    zero_shot,
)
from certimed.statistics import clopper_pearson_lower, lower_less, radius_from_lower
from certimed.vlm import PromptedClassifier

WORDS = "an H&E image patch of"
SIGMA = 0.25
BUDGET = {"n0": 40, "n": 300, "batch_size": 64, "seed": 5}


@pytest.fixture(scope="module")
def world() -> tuple[TinyVLM, Prompt, Prompt, Tensor]:
    vlm = TinyVLM(seed=3)
    images, labels = class_images(vlm, 4)
    learnt = few_shot(vlm, images, labels, CLASS_NAMES, epochs=10, sigmas=(0.0, SIGMA))
    pooled = pool(vlm, images, CLASS_NAMES, sigmas=(SIGMA,), context=WORDS, copies=10, lr=0.02)
    return vlm, learnt, pooled, class_images(vlm, 2, seed=9)[0]


def build(world: tuple, names: tuple[str, ...] = METHOD_NAMES, **settings: object) -> list[Method]:
    vlm, learnt, pooled, _ = world
    defaults = {"sigma": SIGMA, "context": WORDS, "copies": 20, "few_shot": learnt, "pool": pooled, "lr": 0.02}
    return prompt_methods(vlm, CLASS_NAMES, names, **{**defaults, **settings})


def test_every_method_in_one_run_equals_the_method_alone_and_the_uncached_classifier(world: tuple) -> None:
    vlm, _, _, images = world
    denoiser = Shrink().eval()
    together = PromptComparison(vlm, build(world), SIGMA, denoiser=denoiser)
    for image in images[::3]:
        found = together.certify(image, **BUDGET)
        assert tuple(found) == METHOD_NAMES
        for method in build(world):
            alone = PromptComparison(vlm, [method], SIGMA, denoiser=denoiser).certify(image, **BUDGET)[method.name]
            assert alone.to_json() == found[method.name].to_json()
            if isinstance(method, FixedText) and method.stream == "plain":
                plain = SmoothedClassifier(method.classifier, 3, SIGMA).certify(image, **BUDGET)
                assert (plain.counts, plain.prediction, plain.radius) == (
                    found[method.name].counts,
                    found[method.name].prediction,
                    found[method.name].radius,
                )


def test_each_certificate_states_its_scope(world: tuple) -> None:
    vlm, _, _, images = world
    found = PromptComparison(vlm, build(world), SIGMA, denoiser=Shrink().eval()).certify(images[0], **BUDGET)
    frozen = {name for name, certificate in found.items() if certificate.scope == FROZEN_AT_X}
    assert frozen == {"zero-shot", "both"}
    assert all(certificate.scope == END_TO_END for name, certificate in found.items() if name not in frozen)
    assert found["split"].about.views == pytest.approx((SIGMA * 2**0.5,) * 2) and found["plain"].about.views is None
    assert "1/s^2" in found["split"].statement()
    models = [certificate.provenance.model for certificate in found.values()]
    assert len(set(models)) == len(models)
    assert all(certificate_from_dict(json.loads(one.to_json())) == one for one in found.values())


@pytest.mark.parametrize("noise", ["float32", "grid"])
def test_the_per_image_methods_are_the_published_ones(world: tuple, noise: str) -> None:
    vlm, learnt, _, images = world
    both = PromptComparison(vlm, build(world, ("zero-shot", "both")), SIGMA, noise=noise)
    found = both.certify(images[1], **BUDGET)
    from certimed.prompts import PromptLearner

    starts = {"zero-shot": PromptLearner(vlm, CLASS_NAMES, WORDS), "both": learnt.learner(vlm)}
    for name, start in starts.items():
        tuned = zero_shot(start, images[1], SIGMA, seed=5, copies=20, lr=0.02, batch_size=64, noise=noise)
        alone = SmoothedClassifier(tuned.classifier(vlm), 3, SIGMA, noise=noise).certify(images[1], **BUDGET)
        assert alone.counts == found[name].counts


def test_denoised_smoothing_is_the_denoiser_in_front_of_the_same_model_with_the_same_noise(world: tuple) -> None:
    vlm, _, _, images = world
    methods = build(world, ("plain", "denoised"))
    found = PromptComparison(vlm, methods, SIGMA, denoiser=Shrink().eval()).certify(images[0], **BUDGET)
    model = nn.Sequential(Shrink(), methods[0].classifier).eval()
    assert SmoothedClassifier(model, 3, SIGMA).certify(images[0], **BUDGET).counts == found["denoised"].counts
    with pytest.raises(InputError, match="needs a denoiser"):
        PromptComparison(vlm, methods, SIGMA)


def test_methods_on_one_stream_cost_one_embedding_pass_and_a_cache_saves_the_next(world: tuple) -> None:
    vlm, _, _, images = world
    names = ("plain", "few-shot", "zero-shot", "both", "pool")
    comparison = PromptComparison(vlm, build(world, names), SIGMA)
    comparison.certify(images[1], **BUDGET)  # the first image also pays for checking that one input has one answer
    vlm.image_calls = 0
    comparison.certify(images[0], **BUDGET)
    assert vlm.image_calls == 1 + 1 + 1 + 5  # tuning copies, the clean image, selection, estimation
    cache = EmbeddingCache()
    kept = PromptComparison(vlm, build(world, ("plain",)), SIGMA, cache=cache)
    first = kept.certify(images[0], item_id="a", **BUDGET)
    other = PromptComparison(vlm, build(world, ("few-shot",)), SIGMA, cache=cache)
    other.certify(images[1], item_id="b", **BUDGET)
    vlm.image_calls = 0
    other.certify(images[0], item_id="a", **BUDGET)
    assert vlm.image_calls == 1  # the clean image
    assert kept.certify(images[0], item_id="a", **BUDGET)["plain"].counts == first["plain"].counts


def test_results_do_not_depend_on_the_order_of_images(world: tuple) -> None:
    vlm, _, _, images = world
    names = ("plain", "zero-shot", "both", "per-sample", "split")
    forward = PromptComparison(vlm, build(world, names), SIGMA)
    backward = PromptComparison(vlm, build(world, names), SIGMA)
    one = [forward.certify(image, **BUDGET) for image in images[:3]]
    two = [backward.certify(image, **BUDGET) for image in images[:3].flip(0)][::-1]
    assert [[c.to_json() for c in found.values()] for found in one] == [
        [c.to_json() for c in found.values()] for found in two
    ]


def test_the_best_of_several_methods_pays_bonferroni_and_says_so(world: tuple) -> None:
    vlm, _, _, images = world
    comparison = PromptComparison(vlm, build(world, ("plain", "few-shot", "pool")), SIGMA)
    name, best = comparison.certify_best(images[0], alpha=0.003, **BUDGET)
    each = comparison.certify(images[0], alpha=0.001, **BUDGET)
    assert best.radius == max(certificate.radius for certificate in each.values()) == each[name].radius
    assert best.alpha == 0.003 and (best.share.level, best.share.of, best.share.why) == (0.001, 3, "methods")
    assert best.scope == CHOSEN_AT_X and best.about.chosen_from == ("plain", "few-shot", "pool")
    lower = clopper_pearson_lower(best.counts[best.prediction], 300, 0.001)
    assert best.p_lower == float(lower_less(lower, best.variation))
    assert "Bonferroni" in best.statement() and "nothing is proved about that pipeline" in best.statement()
    assert certificate_from_dict(json.loads(best.to_json())) == best


def test_a_choice_among_one_costs_nothing_and_a_frozen_prompt_stays_frozen(world: tuple) -> None:
    vlm, _, _, images = world
    name, only = PromptComparison(vlm, build(world, ("plain",)), SIGMA).certify_best(images[0], **BUDGET)
    assert (name, only.alpha, only.share.of) == ("plain", 1e-3, 1)
    _, tuned = PromptComparison(vlm, build(world, ("zero-shot", "both")), SIGMA).certify_best(images[0], **BUDGET)
    assert tuned.scope == FROZEN_AT_X and tuned.about.chosen_from == ("zero-shot", "both")


@dataclass(frozen=True, eq=False)
class HalfPlane(Method):
    """Class 1 where one coordinate exceeds 1/2 - margin: at a grey image its true radius is the margin."""

    axis: int
    margin: float

    @property
    def num_classes(self) -> int:
        return 2

    @property
    def settings(self) -> list[object]:
        return ["half-plane", self.axis, self.margin]

    def head(self, subject: object):
        def scores(x: Tensor) -> Tensor:
            score = x[:, self.axis] - 0.5 + self.margin
            return torch.stack([-score, score], dim=1)

        return scores


def test_what_all_methods_answer_is_proved_within_the_smallest_radius() -> None:
    sigma, methods = 0.5, [HalfPlane("a", 0, 0.5), HalfPlane("b", 1, 0.8)]
    found = PromptComparison(Direct(), methods, sigma, noise="float32").certify_agreement(
        torch.full((1, 1, 2), 0.5), n0=20, n=2_000, alpha=0.01, seed=1
    )
    assert (found.prediction, found.alpha) == (1, 0.01)
    assert found.radius == min(one.radius for one in found.certificates.values()) <= 0.5
    for one in found.certificates.values():
        assert (one.alpha, one.share.level, one.share.total, one.share.of) == (0.005, 0.005, 0.01, 2)
        assert one.p_lower == float(clopper_pearson_lower(one.counts[1], 2_000, 0.005))
        assert one.scope == END_TO_END and one.about.chosen_from == ()
    for margins in ((0.5, -0.8), (0.5, 0.0)):  # they differ; one abstains
        split = [HalfPlane(name, axis, margin) for name, axis, margin in zip("ab", (0, 1), margins)]
        nothing = PromptComparison(Direct(), split, sigma).certify_agreement(
            torch.full((1, 1, 2), 0.5), n0=20, n=200, alpha=0.01
        )
        assert (nothing.prediction, nothing.radius) == (None, 0.0)
        assert any(not one.abstained for one in nothing.certificates.values())


def test_the_error_of_agreement_is_at_most_alpha_exactly() -> None:
    """The coordinates' noise is independent, so the counts of both methods are: all pairs of counts are summed over."""
    n, alpha, sigma, margin = 40, 0.2, 0.5, 0.3
    p = float(norm.cdf(margin / sigma))
    radii = radius_from_lower(clopper_pearson_lower(np.arange(n + 1), n, alpha / 2), sigma)
    mass = binom.pmf(np.arange(n + 1), n, p)
    claimed = np.minimum.outer(radii, radii)
    wrong = float(np.outer(mass, mass)[claimed > margin].sum())
    assert 0 < wrong <= alpha
    # The engine does draw such pairs: over seeds its radius exceeds the true one as often as the sum says.
    comparison = PromptComparison(Direct(), [HalfPlane("a", 0, margin), HalfPlane("b", 1, margin)], sigma)
    runs = [
        comparison.certify_agreement(torch.full((1, 1, 2), 0.5), n0=20, n=n, alpha=alpha, seed=seed, item_id="x").radius
        for seed in range(400)
    ]
    assert np.mean(np.array(runs) > 0) == pytest.approx(float(np.outer(mass, mass)[claimed > 0].sum()), abs=0.1)
    assert np.mean(np.array(runs) > margin) <= wrong + 4 * (alpha / 400) ** 0.5


def test_agreement_is_refused_where_a_pipeline_is_not_certified(world: tuple) -> None:
    vlm, _, _, images = world
    with pytest.raises(InputError, match="'zero-shot' is tuned at the image"):
        PromptComparison(vlm, build(world, ("plain", "zero-shot")), SIGMA).certify_agreement(images[0], **BUDGET)


def test_a_plain_classifier_is_compared_as_it_is_certified() -> None:
    methods = [Scores("model", classes=2)]

    class Plain(nn.Module):
        name, identity, device = "plain", None, torch.device("cpu")

        def forward(self, x: Tensor) -> Tensor:
            return brightness(x)

    found = PromptComparison(Plain().eval(), methods, SIGMA).certify(grey(0.6), item_id="x", **BUDGET)["model"]
    alone = SmoothedClassifier(brightness, 2, SIGMA).certify(grey(0.6), item_id="x", **BUDGET)
    assert (found.claim, found.samples) == (alone.claim, alone.samples)


def test_clean_predictions_and_tuning_time_are_reported(world: tuple) -> None:
    vlm, learnt, _, images = world
    found = PromptComparison(vlm, build(world, ("few-shot", "both", "per-sample", "split")), SIGMA).run(
        images[2], **BUDGET
    )
    model: PromptedClassifier = learnt.classifier(vlm)
    assert found["few-shot"].clean == int(model(images[2][None]).argmax())
    assert found["split"].clean == found["per-sample"].clean
    assert found["both"].tuning_seconds > 0
    assert all(sum(result.selection) == 40 for result in found.values())


def test_half_precision_is_recorded(world: tuple) -> None:
    vlm, _, _, images = world
    cache = EmbeddingCache(dtype=torch.float16)
    found = PromptComparison(vlm, build(world, ("plain",)), SIGMA, cache=cache).certify(images[0], **BUDGET)
    assert "float16" in found["plain"].provenance.dtype


@pytest.mark.parametrize("copies", [0, 3])
def test_split_with_extra_copies_does_not_depend_on_the_batch_size(world: tuple, copies: int) -> None:
    vlm, _, _, images = world
    methods = build(world, ("split",), split_copies=copies)
    small, large = (
        PromptComparison(vlm, methods, SIGMA).certify(images[0], n0=20, n=150, batch_size=size)["split"]
        for size in (7, 64)
    )
    assert small.counts == large.counts


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (("some",), {}, "distinct names out of"),
        (("plain", "plain"), {}, "distinct names"),
        (("few-shot",), {"few_shot": None}, "'few-shot' needs a few-shot prompt"),
        (("both",), {"few_shot": None}, "'both' needs"),
        (("pool",), {"pool": None}, "'pool' needs"),
        (("split",), {"few_shot": None, "sound_start": "few-shot"}, "'split' needs"),
        (("split",), {"sound_start": "words"}, "sound_start"),
    ],
)
def test_method_lists_that_cannot_be_built_are_refused(
    world: tuple, names: tuple, settings: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(world, names, **settings)


def test_a_prompt_for_other_classes_is_refused(world: tuple) -> None:
    vlm, learnt, _, _ = world
    with pytest.raises(InputError, match="other classes"):
        prompt_methods(vlm, ["mucus", "benign"], ["few-shot"], sigma=SIGMA, context=WORDS, few_shot=learnt)
