"""The identity of a method's model: of what makes it, on every certificate, whatever the number of threads."""

import pytest
import torch
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed.prompts import PromptComparison, few_shot, prompt_methods

NAMES = ("plain", "few-shot", "zero-shot", "both", "per-sample", "split")


@pytest.fixture(scope="module")
def prompt():
    images, labels = class_images(TinyVLM(), 2)
    return few_shot(TinyVLM(), images, labels, CLASS_NAMES, shots=2, epochs=2)


def comparison(prompt, *, seed=0, context="an image of", names=NAMES, templates=None, classes=CLASS_NAMES):
    vlm = TinyVLM(seed=seed)
    methods = prompt_methods(
        vlm, classes, names, sigma=0.25, context=context, templates=templates, few_shot=prompt, copies=3
    )
    return PromptComparison(vlm, methods, 0.25)


def test_certificates_carry_the_identities_a_comparison_names(prompt):
    made = comparison(prompt)
    ids = made.engine.identities()
    assert len(set(ids.values())) == len(NAMES)
    found = made.certify(class_images(made.vlm, 1)[0][0], n0=4, n=8)
    assert {name: certificate.provenance.model for name, certificate in found.items()} == ids


def test_identities_are_of_what_makes_a_model_not_of_rounding(prompt):
    ids = comparison(prompt).engine.identities()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert comparison(prompt).engine.identities() == ids
    finally:
        torch.set_num_threads(threads)
    rounded = comparison(prompt)
    for method in rounded.engine.methods:
        if hasattr(method, "classifier") and hasattr(method.classifier, "text_features"):
            method.classifier.text_features.mul_(1 + 1e-7)
    assert rounded.engine.identities() == ids


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"context": "a slide of"}, {"few-shot", "both"}),
        ({"templates": "a slide of {}."}, {"few-shot", "zero-shot", "both", "per-sample", "split"}),
    ],
)
def test_another_recipe_is_another_model(prompt, change, kept):
    before, after = comparison(prompt).engine.identities(), comparison(prompt, **change).engine.identities()
    assert {name for name in NAMES if before[name] == after[name]} == kept
