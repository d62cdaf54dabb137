"""Learning under noise: what it brings, that it repeats itself, goes on where it stopped, reads no label unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters.tiny_networks import NAMES, class_examples, classifier, mask_examples, segmenter
from torch import nn
from vlm_families import write_transformers_clip

from certimed.adapters import LAYERNORM, LORA, AdapterPlan, AdapterRecipe, Examples, Parts, adapt, tuning
from certimed.adapters.recipes import RECIPES, Seen, loss_of
from certimed.errors import InputError, ModelError
from certimed.prompts import TuningProgress
from certimed.vlm import load

SHORT = AdapterRecipe(steps=40, batch=12, lr=1e-2)
PLAN = AdapterPlan(Parts((LORA, LAYERNORM), rank=4), SHORT, (0.0, 0.5))


def noisy_accuracy(model: nn.Module, examples: Examples, sigma: float) -> float:
    rng = torch.Generator().manual_seed(9)
    with torch.no_grad():
        noise = torch.randn((20, *examples.images.shape), generator=rng)
        answers = torch.stack([model(examples.images + sigma * one).argmax(dim=1) for one in noise])
    return float((answers == examples.truth).float().mean())


@pytest.mark.parametrize(
    ("model", "examples", "names"),
    [(classifier, class_examples, NAMES), (segmenter, mask_examples, ("ground", "square"))],
)
def test_learning_under_noise_brings_accuracy_under_noise_on_other_images(model, examples, names) -> None:  # type: ignore[no-untyped-def]
    network, test = model(), Examples(*examples(20, seed=4))
    learnt = adapt(network, Examples(*examples(8)), names, PLAN, shots=8)
    adapted = learnt.apply(network)
    gains = [noisy_accuracy(adapted, test, sigma) - noisy_accuracy(network, test, sigma) for sigma in (0.0, 0.5)]
    assert min(gains) > 0.15, gains
    assert learnt.method == "few-shot" and learnt.shots == 8 and len(learnt.tuned_on) == len(set(learnt.tuned_on))
    assert adapted.identity not in (network.identity, learnt.identity)


def test_the_same_arguments_give_the_same_values_and_a_stopped_tuning_goes_on(tmp_path: Path) -> None:
    network, examples = classifier(), Examples(*class_examples(4))
    held_out = Examples(*class_examples(2, seed=8))
    plan = replace(PLAN, early_stop=20, recipe=replace(SHORT, augment="jitter"))
    whole = adapt(network, examples, NAMES, plan, held_out=held_out)
    again = adapt(network, examples, NAMES, plan, held_out=held_out)
    assert again.identity == whole.identity and again.history == whole.history
    assert adapt(network, examples, NAMES, replace(plan, seed=1), held_out=held_out).identity != whole.identity
    path, seen = tmp_path / "checkpoint", []

    def stop(state: TuningProgress) -> None:
        seen.append(state.done)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(network, examples, NAMES, plan, held_out=held_out, checkpoint=path, progress=stop)
    assert path.exists()
    with pytest.raises(InputError, match="other settings or images"):
        adapt(network, examples, NAMES, replace(plan, seed=1), held_out=held_out, checkpoint=path)
    resumed = adapt(network, examples, NAMES, plan, held_out=held_out, checkpoint=path, progress=stop)
    assert seen[7] == seen[6]  # the last evaluation was not in the checkpoint; nothing before it is done again
    assert resumed.identity == whole.identity and resumed.history == whole.history
    assert not path.exists()


def test_early_stop_keeps_the_best_values() -> None:
    network, examples = classifier(), Examples(*class_examples(2))
    plan = replace(PLAN, early_stop=2, recipe=replace(SHORT, steps=200, lr=0.5))
    found = adapt(network, examples, NAMES, plan, held_out=Examples(*class_examples(4, seed=8)))
    means = [sum(one["held_out"].values()) / 2 for one in found.history]
    assert len(means) < tuning.EVALUATIONS
    assert sum(found.accuracies["held_out"].values()) / 2 == pytest.approx(max(means))


def test_recipes_without_labels_read_none() -> None:
    network, (images, labels) = classifier(), class_examples(4)
    plan = replace(PLAN, recipe=replace(RECIPES["unlabelled"], steps=5))
    blind = adapt(network, Examples(images, torch.full_like(labels, -1)), NAMES, plan)
    assert blind.identity == adapt(network, Examples(images, labels), NAMES, plan).identity
    assert (blind.method, blind.shots) == ("unlabelled", None)
    with pytest.raises(InputError, match="the truth must lie in"):
        adapt(network, Examples(images, torch.full_like(labels, -1)), NAMES, PLAN)


def test_distillation_without_labels_moves_noisy_answers_to_the_clean_ones() -> None:
    taught = adapt(classifier(), Examples(*class_examples(8)), NAMES, replace(PLAN, sigmas=(0.0,))).apply(classifier())
    pool, test = Examples(*class_examples(16, seed=5)), Examples(*class_examples(20, seed=4))
    plan = replace(PLAN, recipe=replace(RECIPES["unlabelled"], steps=60, lr=1e-2))
    student = adapt(taught, Examples(pool.images, torch.full_like(pool.truth, -1)), NAMES, plan).apply(taught)
    assert noisy_accuracy(student, test, 0.5) > noisy_accuracy(taught, test, 0.5) + 0.03
    assert noisy_accuracy(student, test, 0.0) > noisy_accuracy(taught, test, 0.0) - 0.05


def test_every_loss_is_what_it_says() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    truth, features = torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    seen = Seen(logits, features, truth, logits, features)
    zero = {"labels": 0.0, "copies": 2, "batch": 2}
    assert loss_of(AdapterRecipe(**zero, answers=1.0), seen) == pytest.approx(0, abs=1e-6)
    assert loss_of(AdapterRecipe(**zero, features=1.0), seen) == pytest.approx(0, abs=1e-6)
    crossed = Seen(logits, features, truth, logits.flip(0), features.flip(0))
    assert loss_of(AdapterRecipe(**zero, features=2.0), crossed) == pytest.approx(2)
    p = logits.softmax(dim=1)
    mean = p.mean(dim=0)
    divergence = (mean * (mean.log() - p.log())).sum(dim=1).mean()
    entropy = -(mean * mean.log()).sum()
    wanted = 3 * float(divergence + 0.5 * entropy)
    assert loss_of(AdapterRecipe(**zero, consistency=3.0), seen) == pytest.approx(wanted, rel=1e-5)
    masks = Seen(100 * torch.nn.functional.one_hot(torch.ones(1, 4, 4, dtype=torch.int64), 3).movedim(-1, 1).float(),
                 features, torch.ones(1, 4, 4, dtype=torch.int64))  # fmt: skip
    assert loss_of(AdapterRecipe(labels=0.0, dice=1.0), masks) == pytest.approx(0, abs=1e-4)


def test_a_joint_prompt_is_learnt_with_the_image_side_and_only_then(tmp_path: Path) -> None:
    write_transformers_clip(tmp_path)
    vlm = load(f"hf:{tmp_path}")
    rng = torch.Generator().manual_seed(0)
    examples = Examples(torch.rand(6, 3, 32, 32, generator=rng), torch.arange(6) % 3)
    plan = AdapterPlan(Parts((LORA,), rank=2), AdapterRecipe(steps=3, batch=4, copies=2, consistency=1.0), (0.0, 0.25))
    words = {"templates": ("an H&E image patch of {}.",)}
    alone = adapt(vlm, examples, NAMES, plan, **words)
    joint = adapt(vlm, examples, NAMES, replace(plan, prompt=True, context=2, per_class=True, bfloat16=True), **words)
    assert alone.prompt is None and alone.name == "lora" and alone.templates == words["templates"]
    assert joint.prompt is not None and joint.name == "lora+prompt" and joint.prompt.context.shape == (3, 2, 32)
    assert joint.size == alone.size + 3 * 2 * 32
    assert not torch.allclose(joint.text_features(vlm), alone.text_features(vlm))
    with pytest.raises(InputError, match="templates is empty"):
        adapt(vlm, examples, NAMES, plan)
    with pytest.raises(InputError, match="reads no text"):
        adapt(classifier(), Examples(*class_examples(2)), NAMES, replace(PLAN, prompt=True))


class Halving(nn.Module):
    """A denoiser of every noise level."""

    identity = "d" * 64

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def at(self, sigma: float) -> nn.Module:
        self.asked.append(sigma)
        return nn.Identity()


def test_behind_a_denoiser_every_noisy_copy_goes_through_it_and_no_clean_one() -> None:
    front, network = Halving(), classifier()
    plan = replace(PLAN, sigmas=(0.0, 0.25, 0.5), recipe=replace(SHORT, steps=6))
    found = adapt(network, Examples(*class_examples(4)), NAMES, plan, denoiser=front)
    assert set(front.asked) == {0.25, 0.5} and found.denoiser == front.identity
    assert (
        found.identity == adapt(network, Examples(*class_examples(4)), NAMES, plan).identity
    )  # it changes nothing here


def test_noise_is_of_the_law_that_is_named() -> None:
    network, examples = classifier(), Examples(*class_examples(2))
    plan = replace(PLAN, recipe=replace(SHORT, steps=2))
    grid, real = (adapt(network, examples, NAMES, replace(plan, noise=name)) for name in ("grid", "float32"))
    assert grid.identity != real.identity and (grid.noise, real.noise) == ("grid", "float32")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda: AdapterPlan(sigmas=()), "distinct noise levels"),
        (lambda: AdapterPlan(sigmas=(0.5, 0.5)), "distinct noise levels"),
        (lambda: AdapterPlan(recipe="best"), "recipe='best' is unknown"),
        (lambda: AdapterPlan(early_stop=0), "early_stop=0"),
        (lambda: AdapterRecipe(labels=0.0), "one at least a weight above 0"),
        (lambda: AdapterRecipe(consistency=1.0), "2 for consistency"),
        (lambda: AdapterRecipe(steps=0), "must be positive"),
        (lambda: AdapterRecipe(augment="odd"), "augment='odd'"),
        (lambda: adapt(classifier(), Examples(*class_examples(1)), NAMES, replace(PLAN, early_stop=1)), "held_out"),
    ],
)
def test_impossible_settings_are_refused(how, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        how()


def test_images_of_both_parts_and_a_loss_that_is_not_finite_are_refused() -> None:
    examples: Examples = Examples(*class_examples(1))
    with pytest.raises(InputError, match="both for tuning and for testing"):
        adapt(classifier(), examples, NAMES, PLAN, held_out=examples)
    with pytest.raises(ModelError, match="loss is nan"):
        adapt(classifier(), examples, NAMES, replace(PLAN, recipe=replace(SHORT, lr=1e30)))
