"""The package against our rewrite of the published loop: the same noise must give the same counts and radius."""

from __future__ import annotations

import math

import pytest
import torch
from toys import CLASS_NAMES, TinyVLM, class_images

from benchmarks.reference.cohen_promptsmooth import PromptedModel, certify
from certimed.noise import NoiseKey, NoiseStream
from certimed.prompts import PromptComparison, prompt_methods

WORDS = "an H&E image patch of"
SETTINGS = {"n0": 40, "n": 400, "alpha": 0.001, "batch_size": 64}


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("method", ["plain", "zero-shot"])
def test_same_noise_same_counts_same_radius(method: str, sigma: float) -> None:
    vlm = TinyVLM(seed=3)
    methods = prompt_methods(vlm, CLASS_NAMES, [method], sigma=sigma, context=WORDS, copies=30, lr=0.02)
    comparison = PromptComparison(vlm, methods, sigma, noise="float32")
    images, _ = class_images(vlm, 2, seed=9)
    outcomes = set()
    for image in images:
        found = comparison.run(image, seed=5, item_id="a", **SETTINGS)[method]
        streams = {p: NoiseStream(NoiseKey(5, "a", p), tuple(image.shape)) for p in ("selection", "estimation")}
        model = PromptedModel(vlm, list(CLASS_NAMES), WORDS)
        if method == "zero-shot":
            model.tune(image, sigma, NoiseStream(NoiseKey(5, "a", "tuning"), tuple(image.shape)).draw(30), lr=0.02)
        draws = (streams["selection"].draw, streams["estimation"].draw)
        expected = certify(model, len(CLASS_NAMES), image, sigma, draws, **SETTINGS)
        certificate = found.certificate
        assert list(found.selection) == expected.selection
        assert list(certificate.counts) == expected.estimation
        assert certificate.abstained == (expected.prediction is None)
        assert math.isclose(certificate.radius, expected.radius, rel_tol=1e-9, abs_tol=1e-12)
        assert certificate.radius <= expected.radius + 1e-12  # rounded outwards
        outcomes.add(certificate.abstained)
    assert outcomes  # both loops looked at every image


def test_the_tuned_context_is_the_published_step() -> None:
    vlm = TinyVLM(seed=4)
    image = class_images(vlm, 1)[0][0]
    noise = torch.randn((50, *image.shape), generator=torch.Generator().manual_seed(0))
    from certimed.prompts import EntropyTuner, PromptLearner

    for steps in (1, 3):
        model = PromptedModel(vlm, list(CLASS_NAMES), WORDS)
        model.tune(image, 0.25, noise, lr=0.01, steps=steps)
        with torch.no_grad():
            embedded = vlm.encode_image(image + 0.25 * noise)
        tuned = EntropyTuner(PromptLearner(vlm, CLASS_NAMES, WORDS), steps=steps, lr=0.01).tune(embedded)
        assert torch.allclose(tuned.context, model.context, atol=2e-5)
        assert not torch.allclose(tuned.context, model.start, atol=1e-3)
        assert torch.allclose(tuned.text_features, model.text_features(), atol=1e-5)
