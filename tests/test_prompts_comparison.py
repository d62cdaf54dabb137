"""Several prompt methods on one image: the counts of each alone, honest scopes, and the price of choosing."""

from __future__ import annotations

import pytest
import torch
from tiny_vlm import CLASS_NAMES, TinyVLM, class_images
from torch import Tensor, nn

from certimed.certificates import END_TO_END, PROMPT_FROZEN, ClassCertificate
from certimed.classification import SmoothedClassifier
from certimed.embeddings import EmbeddingCache
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
from certimed.prompts.methods import Method
from certimed.statistics import clopper_pearson_lower
from certimed.vlm import PromptedClassifier

WORDS = "an H&E image patch of"
SIGMA = 0.25
BUDGET = {"n0": 40, "n": 300, "batch_size": 64, "seed": 5}


class Shrink(nn.Module):
    """A crude denoiser: pulls values towards grey."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0.7 * (x - 0.5)


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
    frozen = {name for name, certificate in found.items() if certificate.scope == PROMPT_FROZEN}
    assert frozen == {"zero-shot", "both"}
    assert all(certificate.scope == END_TO_END for name, certificate in found.items() if name not in frozen)
    assert "1/s^2" in found["split"].notes[0]
    models = [certificate.provenance.model for certificate in found.values()]
    assert len(set(models)) == len(models)
    assert found["none"] == ClassCertificate.from_json(found["none"].to_json())


def test_the_per_image_methods_are_the_published_ones(world: tuple) -> None:
    vlm, learnt, _, images = world
    found = PromptComparison(vlm, build(world, ("zero-shot", "both")), SIGMA).certify(images[1], **BUDGET)
    from certimed.prompts import PromptLearner

    starts = {"zero-shot": PromptLearner(vlm, CLASS_NAMES, WORDS), "both": learnt.learner(vlm)}
    for name, start in starts.items():
        tuned = zero_shot(start, images[1], SIGMA, seed=5, copies=20, lr=0.02, batch_size=64)
        alone = SmoothedClassifier(tuned.classifier(vlm), 3, SIGMA).certify(images[1], **BUDGET)
        assert alone.counts == found[name].counts


def test_denoised_smoothing_is_the_denoiser_in_front_of_the_same_model_with_the_same_noise(world: tuple) -> None:
    vlm, _, _, images = world
    methods = build(world, ("none", "denoised"))
    found = PromptComparison(vlm, methods, SIGMA, denoiser=Shrink().eval()).certify(images[0], **BUDGET)
    model = nn.Sequential(Shrink(), methods[0].classifier).eval()
    assert SmoothedClassifier(model, 3, SIGMA).certify(images[0], **BUDGET).counts == found["denoised"].counts
    with pytest.raises(InputError, match="needs a denoiser"):
        PromptComparison(vlm, methods, SIGMA)


def test_methods_on_one_stream_cost_one_embedding_pass_and_a_cache_saves_the_next(world: tuple) -> None:
    vlm, _, _, images = world
    names = ("none", "few-shot", "zero-shot", "both", "pool")
    comparison = PromptComparison(vlm, build(world, names), SIGMA)
    comparison.certify(images[1], n0=1, n=1)  # the model has shown that it gives one answer
    vlm.image_calls = 0
    comparison.certify(images[0], **BUDGET)
    assert vlm.image_calls == 1 + 1 + 1 + 5  # tuning copies, the clean image, selection, estimation
    cache = EmbeddingCache()
    kept = PromptComparison(vlm, build(world, ("none",)), SIGMA, cache=cache)
    first = kept.certify(images[0], item_id="a", **BUDGET)
    other = PromptComparison(vlm, build(world, ("few-shot",)), SIGMA, cache=cache)
    other.certify(images[1], n0=1, n=1)
    vlm.image_calls = 0
    other.certify(images[0], item_id="a", **BUDGET)
    assert vlm.image_calls == 1  # the clean image
    assert kept.certify(images[0], item_id="a", **BUDGET)["none"].counts == first["none"].counts


def test_results_do_not_depend_on_the_order_of_images(world: tuple) -> None:
    vlm, _, _, images = world
    names = ("none", "zero-shot", "both", "per-sample", "split")
    forward = PromptComparison(vlm, build(world, names), SIGMA)
    backward = PromptComparison(vlm, build(world, names), SIGMA)
    one = [forward.certify(image, **BUDGET) for image in images[:3]]
    two = [backward.certify(image, **BUDGET) for image in images[:3].flip(0)][::-1]
    assert [[c.to_json() for c in found.values()] for found in one] == [
        [c.to_json() for c in found.values()] for found in two
    ]


def test_the_best_of_several_methods_pays_bonferroni_and_says_so(world: tuple) -> None:
    vlm, _, _, images = world
    comparison = PromptComparison(vlm, build(world, ("none", "few-shot", "pool")), SIGMA)
    name, best = comparison.certify_best(images[0], alpha=0.003, **BUDGET)
    each = comparison.certify(images[0], alpha=0.001, **BUDGET)
    assert best.radius == max(certificate.radius for certificate in each.values()) == each[name].radius
    assert best.alpha == 0.003 and "Bonferroni" in best.notes[-1] and "alpha/3" in best.notes[-1]
    assert best.p_lower == pytest.approx(float(clopper_pearson_lower(best.counts[best.prediction], 300, 0.001)))
    assert "Bonferroni" in best.statement() or best.abstained


def test_clean_predictions_and_tuning_time_are_reported(world: tuple) -> None:
    vlm, learnt, _, images = world
    found = PromptComparison(vlm, build(world, ("few-shot", "both", "per-sample", "split")), SIGMA).run(
        images[2], **BUDGET
    )
    model: PromptedClassifier = learnt.classifier(vlm)
    assert found["few-shot"].clean_prediction == int(model(images[2][None]).argmax())
    assert found["split"].clean_prediction == found["per-sample"].clean_prediction
    assert found["both"].tuning_seconds > 0
    assert all(sum(result.selection) == 40 for result in found.values())


def test_half_precision_is_recorded(world: tuple) -> None:
    vlm, _, _, images = world
    cache = EmbeddingCache(dtype=torch.float16)
    found = PromptComparison(vlm, build(world, ("none",)), SIGMA, cache=cache).certify(images[0], **BUDGET)
    assert "float16" in found["none"].provenance.dtype


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
        (("none", "none"), {}, "distinct names"),
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
