"""Few-shot, zero-shot and pool: what changes, what must not, and that the result depends on its arguments alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from toys import CLASS_NAMES, TinyVLM, class_images, fingerprint

from certimed.engine import ModelStream, embed_copies
from certimed.errors import InputError
from certimed.noise import NoiseKey, content_id
from certimed.prompts import (
    EntropyTuner,
    Prompt,
    PromptLearner,
    TuningProgress,
    content_ids,
    entropy_of_mean,
    few_shot,
    pool,
    refuse_overlap,
    zero_shot,
)
from certimed.vlm import PromptedClassifier

WORDS = "an H&E image patch of"
SIGMAS = (0.0, 0.25, 0.5)


def noisy_accuracy(model: PromptedClassifier, images: Tensor, labels: Tensor, sigma: float) -> float:
    noise = torch.randn((50, *images.shape), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        hits = [(model(images + sigma * sample).argmax(dim=1) == labels).float().mean() for sample in noise]
    return float(torch.stack(hits).mean())


@pytest.mark.parametrize("recipe", ["published", "default"])
def test_few_shot_changes_no_tensor_but_the_context_and_is_deterministic(recipe: str) -> None:
    vlm = TinyVLM()
    images, labels = class_images(vlm, 4)
    before = fingerprint(vlm)
    state = torch.get_rng_state()
    settings = {"shots": 4, "epochs": 3, "sigmas": SIGMAS, "recipe": recipe, "seed": 7}
    first = few_shot(vlm, images, labels, CLASS_NAMES, **settings)
    again = few_shot(vlm, images, labels, CLASS_NAMES, **settings)
    other = few_shot(vlm, images, labels, CLASS_NAMES, **{**settings, "seed": 8})
    assert fingerprint(vlm) == before and not vlm.training
    assert not any(p.requires_grad or p.grad is not None for p in vlm.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.context, again.context) and first.identity == again.identity
    assert first.identity != other.identity
    assert not torch.equal(first.context, PromptLearner(vlm, CLASS_NAMES, 5, seed=7).context)


def test_few_shot_improves_noisy_accuracy_on_new_images_and_reports_it() -> None:
    vlm = TinyVLM(seed=3)
    images, labels = class_images(vlm, 8)
    test_images, test_labels = class_images(vlm, 20, seed=1)
    seen: list[TuningProgress] = []
    prompt = few_shot(
        vlm,
        images,
        labels,
        CLASS_NAMES,
        shots=8,
        sigmas=SIGMAS,
        context=WORDS,
        held_out=(test_images[::4], test_labels[::4]),
        progress=seen.append,
    )
    start = PromptedClassifier(vlm, PromptLearner(vlm, CLASS_NAMES, WORDS).text_features())
    plain = noisy_accuracy(start, test_images, test_labels, 0.25)
    tuned = noisy_accuracy(prompt.classifier(vlm), test_images, test_labels, 0.25)
    assert tuned > plain + 0.1
    assert [report.stage for report in seen] == ["embedding"] * 24 + ["tuning"] * 50
    assert set(seen[-1].held_out or {}) == set(SIGMAS)
    assert prompt.history[-1]["loss"] < prompt.history[0]["loss"]
    assert prompt.accuracies["held_out"]["0.25"] == pytest.approx(tuned, abs=0.12)
    assert set(prompt.accuracies["tuning"]) == {"0", "0.25", "0.5"}
    assert prompt.tuned_on == content_ids(images)


def test_early_stopping_keeps_the_best_context() -> None:
    vlm = TinyVLM(seed=3)
    images, labels = class_images(vlm, 4)
    held_out = class_images(vlm, 6, seed=2)
    prompt = few_shot(vlm, images, labels, CLASS_NAMES, sigmas=SIGMAS, held_out=held_out, early_stop=3)
    means = [sum(record["held_out"].values()) / len(SIGMAS) for record in prompt.history]
    assert len(prompt.history) < 50
    assert sum(prompt.accuracies["held_out"].values()) / len(SIGMAS) == pytest.approx(max(means))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "best"}, "recipe='best'"),
        ({"epochs": 0}, "epochs=0"),
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (-0.1,)}, "sigma"),
        ({"sigmas": (0.1, 0.1)}, "distinct"),
        ({"shots": 5}, "shots=5"),
        ({"early_stop": 2}, "early_stop=2"),
        ({"labels": torch.zeros(3)}, "labels"),
        ({"labels": torch.full((12,), 3)}, "labels"),
    ],
)
def test_few_shot_names_the_argument_it_refuses(change: dict, message: str) -> None:
    vlm = TinyVLM()
    images, labels = class_images(vlm, 4)
    arguments = {"images": images, "labels": labels, "class_names": CLASS_NAMES, **change}
    with pytest.raises(InputError, match=message):
        few_shot(vlm, **arguments)


def test_held_out_images_must_not_be_tuning_images() -> None:
    vlm = TinyVLM()
    images, labels = class_images(vlm, 4)
    with pytest.raises(InputError, match="2 images are both"):
        few_shot(vlm, images, labels, CLASS_NAMES, epochs=1, held_out=(images[3:5], labels[3:5]))


def test_the_same_image_for_tuning_and_testing_is_found_by_its_content() -> None:
    images, _ = class_images(TinyVLM(), 2)
    refuse_overlap(content_ids(images[:3]), content_ids(images[3:]))
    with pytest.raises(InputError, match="1 images are both"):
        refuse_overlap(content_ids(images[:3]), content_ids(images[2:].clone()))


def published_step(learner: PromptLearner, embeddings: Tensor, steps: int) -> Tensor:
    """The published loop written out plainly: an independent reference for the tuner."""
    context = torch.nn.Parameter(learner.context.detach().clone())
    optimiser = torch.optim.AdamW([context], lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = learner.vlm.logit_scale * functional.normalize(embeddings, dim=-1) @ learner.features(context).T
        mean = logits.softmax(dim=1).mean(dim=0)
        (-(mean * mean.log()).sum()).backward()
        optimiser.step()
    return context.detach()


@pytest.mark.parametrize("steps", [1, 3])
def test_zero_shot_equals_the_published_loop_and_is_reset_for_every_image(steps: int) -> None:
    vlm = TinyVLM()
    images, _ = class_images(vlm, 1)
    learner = PromptLearner(vlm, CLASS_NAMES, WORDS)
    banks = [
        embed_copies(ModelStream(vlm), image, torch.full((20,), 0.25), NoiseKey(0, content_id(image), "tuning"))
        for image in images
    ]
    tuner = EntropyTuner(learner, steps=steps)
    forward = [tuner.tune(bank).context for bank in banks]
    backward = [tuner.tune(bank).context for bank in banks[::-1]][::-1]
    for image, bank, one, two in zip(images, banks, forward, backward):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, published_step(learner, bank, steps), atol=1e-6, rtol=1e-5)
        assert torch.equal(one, zero_shot(learner, image, 0.25, copies=20, steps=steps, noise="float32").context)
    assert torch.equal(learner.context, PromptLearner(vlm, CLASS_NAMES, WORDS).context)


def test_zero_shot_lowers_the_entropy_and_costs_one_backward_and_one_forward_pass() -> None:
    vlm = TinyVLM()
    image = class_images(vlm, 1)[0][0]
    learner = PromptLearner(vlm, CLASS_NAMES, WORDS)
    tuned = zero_shot(learner, image, 0.25, steps=6, lr=0.02)
    assert tuned.entropies[-1] < tuned.entropies[0]
    tuner = EntropyTuner(learner)
    bank = embed_copies(ModelStream(vlm), image, torch.full((20,), 0.25), NoiseKey(0, "a", "tuning"))
    vlm.text_calls = 0
    tuner.tune(bank)
    assert vlm.text_calls == 1


def test_the_entropy_of_a_pool_is_taken_image_by_image() -> None:
    sure = torch.tensor([[[50.0, 0.0]], [[0.0, 50.0]]])  # two images, one sure of each class
    assert float(entropy_of_mean(sure)) == pytest.approx(0.0, abs=1e-6)
    assert float(entropy_of_mean(sure.flatten(0, 1))) == pytest.approx(math.log(2))


def test_both_starts_from_the_few_shot_context() -> None:
    vlm = TinyVLM()
    images, labels = class_images(vlm, 2)
    prompt = few_shot(vlm, images, labels, CLASS_NAMES, epochs=2)
    tuned = zero_shot(prompt.learner(vlm), class_images(vlm, 1, seed=9)[0][0], 0.25, copies=10)
    moved = (tuned.context - prompt.context).abs()
    assert 0 < float(moved.max()) <= 5e-3 * 1.2


def test_pool_gives_one_fixed_prompt_that_knows_its_images() -> None:
    vlm = TinyVLM()
    images, _ = class_images(vlm, 3)
    calls: list[tuple[int, int]] = []
    settings = {"sigmas": (0.25, 0.5), "context": WORDS, "copies": 10, "steps": 4, "lr": 0.02}
    prompt = pool(vlm, images, CLASS_NAMES, **settings, progress=lambda *done: calls.append(done))
    assert prompt.identity == pool(vlm, images, CLASS_NAMES, **settings).identity
    assert calls[-1] == (9, 9)
    assert prompt.history[-1]["entropy"] < prompt.history[0]["entropy"]
    with pytest.raises(InputError, match="1 of the images to certify"):
        prompt.check_disjoint(content_ids(images[:1]))
    prompt.check_disjoint(content_ids(class_images(vlm, 1, seed=5)[0]))
    assert isinstance(pool(vlm, images, CLASS_NAMES, sigmas=(0.25,), context=prompt, copies=2), Prompt)
