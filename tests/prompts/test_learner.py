"""The learnable context: layout, starts, limits, and that nothing but the context can change."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from toys import CLASS_NAMES, TinyVLM

from certimed.errors import InputError
from certimed.prompts import PromptLearner

WORDS = "an H&E image patch of"


@pytest.mark.parametrize(
    ("position", "template"),
    [
        ("end", "an H&E image patch of {}."),
        ("front", "{} an H&E image patch of."),
        ("middle", "an H&E {} image patch of."),
    ],
)
@pytest.mark.parametrize("per_class", [False, True])
def test_a_context_of_words_equals_the_sentence(position: str, template: str, per_class: bool) -> None:
    vlm = TinyVLM()
    learner = PromptLearner(vlm, CLASS_NAMES, WORDS, position=position, per_class=per_class)
    expected = functional.normalize(vlm.encode_texts([template.format(name) for name in CLASS_NAMES]), dim=-1)
    torch.testing.assert_close(learner.text_features(), expected)
    assert learner.length == 5
    assert learner.context.shape == ((3, 5, 12) if per_class else (5, 12))


def test_only_the_context_is_a_parameter_and_every_token_of_it_has_a_gradient() -> None:
    vlm = TinyVLM()
    learner = PromptLearner(vlm, CLASS_NAMES, WORDS)
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    learner.text_features().square()[:, 0].sum().backward()
    assert learner.context.grad is not None
    assert bool((learner.context.grad.abs().sum(dim=1) > 0).all())
    assert all(parameter.grad is None for parameter in vlm.parameters())


def test_text_runs_on_the_longest_prompt_and_not_on_the_full_context() -> None:
    learner = PromptLearner(TinyVLM(context_length=24), CLASS_NAMES, 5)
    assert learner.tokens.ids.shape == (3, 5 + 3 + 1 + 2)  # context, "smooth muscle fibre", ".", bos and eos


def test_a_random_context_depends_on_its_seed_alone_and_has_the_published_spread() -> None:
    vlm = TinyVLM()
    first, again, other = (PromptLearner(vlm, CLASS_NAMES, 16, per_class=True, seed=s).context for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert not torch.equal(first[0], first[1])
    state = torch.get_rng_state()
    PromptLearner(vlm, CLASS_NAMES, 4)
    assert torch.equal(state, torch.get_rng_state())


def test_a_context_too_long_for_the_encoder_is_refused_with_both_lengths() -> None:
    with pytest.raises(InputError, match=r"a prompt of 26 tokens .* at most 24"):
        PromptLearner(TinyVLM(), CLASS_NAMES, 20)


@pytest.mark.parametrize("context", [0, -1, True, 2.5, "", torch.zeros(3, 5), torch.zeros(2, 4, 12)])
def test_a_start_that_is_no_context_is_refused(context: object) -> None:
    with pytest.raises(InputError, match="context"):
        PromptLearner(TinyVLM(), CLASS_NAMES, context)  # type: ignore[arg-type]


def test_values_that_are_not_finite_and_unknown_positions_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        PromptLearner(TinyVLM(), CLASS_NAMES, torch.full((2, 12), float("nan")))
    with pytest.raises(InputError, match="position='start'"):
        PromptLearner(TinyVLM(), CLASS_NAMES, 2, position="start")  # type: ignore[arg-type]
