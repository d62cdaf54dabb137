"""The classifiers: CLIP's zero-shot recipe, cached features, and refusals."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from vlm_families import write_transformers_clip

from certimed.errors import InputError
from certimed.vlm import PromptedClassifier, VisionLanguageModel, ZeroShotClassifier, cosine_logits, load

pytest.importorskip("transformers")
NAMES = ["melanoma", "lung opacity", "adipose tissue"]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    folder = tmp_path_factory.mktemp("clip")
    write_transformers_clip(folder)
    return load(f"hf:{folder}")


def test_text_features_are_normalised_means_of_normalised_features(vlm: VisionLanguageModel) -> None:
    templates = ["a photo of {}", "an image of {}.", "{}"]
    features = ZeroShotClassifier(vlm, NAMES, templates).text_features
    for row, name in zip(features, NAMES):
        single = [vlm.encode_texts([template.replace("{}", name)])[0] for template in templates]
        mean = sum(f / f.norm() for f in single) / 3
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_text_is_encoded_once(vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = vlm.encode_text
    monkeypatch.setattr(vlm, "encode_text", lambda *args: calls.append(1) or original(*args))
    classifier = ZeroShotClassifier(vlm, NAMES, "a photo of {}")
    for _ in range(3):
        classifier(torch.rand(2, 3, 32, 32))
    assert len(calls) == 1


def test_logits_are_scale_times_cosine_from_images_or_cached_features(vlm: VisionLanguageModel) -> None:
    classifier = ZeroShotClassifier(vlm, NAMES, "a photo of {}")
    x = torch.rand(4, 3, 32, 32)
    features = vlm.encode_image(x)
    cosine = torch.nn.functional.cosine_similarity(features[:, None], classifier.text_features[None], dim=-1)
    assert torch.allclose(classifier(x), vlm.logit_scale * cosine, atol=1e-4)
    assert torch.equal(classifier(x), classifier.logits(features))
    assert classifier(x).abs().max() <= vlm.logit_scale + 1e-4
    assert not classifier(x).requires_grad


def test_cosine_logits_give_gradients_to_text_features() -> None:
    text = torch.randn(3, 8, requires_grad=True)
    cosine_logits(torch.randn(5, 8), text, 10.0).sum().backward()
    assert text.grad is not None and text.grad.abs().sum() > 0


def test_train_mode_does_not_reach_the_frozen_model(vlm: VisionLanguageModel) -> None:
    classifier = ZeroShotClassifier(vlm, NAMES, "{}").train()
    assert not any(module.training for module in classifier.vlm.modules())


def test_braces_in_a_class_name_are_plain_text(vlm: VisionLanguageModel) -> None:
    assert ZeroShotClassifier(vlm, ["a {x} b", "c"], "{}").class_names == ("a {x} b", "c")


@pytest.mark.parametrize(
    ("names", "templates", "part"),
    [
        ([], "{}", "at least one class"),
        ("melanoma", "{}", "list of names"),
        (["a", " "], "{}", "empty name at position 1"),
        (["a", "b", "a "], "{}", "repeats 'a'"),
        (["a"], [], "templates is empty"),
        (["a"], "a photo", "must contain {} exactly once"),
        (["a"], ["{} and {}"], "must contain {} exactly once"),
        (["a"], ["{}", "{}"], "once"),
    ],
)
def test_bad_names_and_templates(
    vlm: VisionLanguageModel, names: Sequence[str], templates: str | Sequence[str], part: str
) -> None:
    with pytest.raises(InputError, match=part):
        ZeroShotClassifier(vlm, names, templates)


@pytest.mark.parametrize(
    ("features", "part"),
    [
        (torch.ones(3, 23), r"\(classes, 24\).*\(3, 23\)"),
        (torch.ones(24), r"\(24,\)"),
        (torch.ones(0, 24), r"\(0, 24\)"),
        (torch.full((2, 24), float("nan")), "finite"),
        (torch.zeros(2, 24), "non-zero"),
    ],
)
def test_bad_text_features(vlm: VisionLanguageModel, features: torch.Tensor, part: str) -> None:
    with pytest.raises(InputError, match=part):
        PromptedClassifier(vlm, features)
