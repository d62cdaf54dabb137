"""What is put into a network: only that is learnt, nothing else changes, and merged it gives the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapters.tiny_networks import classifier, segmenter
from torch import Tensor, nn
from vlm_families import FAMILIES, write_medclip

from certimed.adapters import KINDS, LAYERNORM, LORA, VISUAL_PROMPT, Installed, Parts, places
from certimed.adapters.places import body
from certimed.errors import InputError
from certimed.vlm import load

ALL = (LORA, VISUAL_PROMPT, LAYERNORM)


def moved(installed: Installed) -> None:
    """Other values in every learnt tensor."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in installed.learnt.values():
            value.add_(0.05 * torch.randn(value.shape, generator=rng))


def check(model: nn.Module, shape: tuple[int, ...], kinds: tuple[str, ...], **parts: object) -> Installed:
    """The laws of every kind on every network."""
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    installed = Installed(model, Parts(kinds, rank=2, **parts), shape)
    with torch.no_grad():
        plain = body(model)(x)
        if VISUAL_PROMPT not in kinds:
            assert torch.allclose(body(installed.model)(x), plain, rtol=1e-4, atol=1e-5)  # starts as the model
    moved(installed)
    tuned = body(installed.model)(x)
    torch.autograd.backward(tuned.square().sum())
    # All are learnt, but for a channel behind a ReLU that no pixel passes.
    reached = [value.grad is not None and bool(value.grad.any()) for value in installed.learnt.values()]
    assert sum(reached) >= 0.9 * len(reached)
    tuned = tuned.detach()
    assert not torch.allclose(tuned, plain, rtol=1e-3)
    with torch.no_grad():
        settled = body(installed.settle())(x)
    assert torch.allclose(settled, tuned, rtol=1e-5, atol=1e-5 * float(tuned.abs().max()))
    assert not any(value.requires_grad for value in installed.model.parameters())
    # The model itself is bit for bit what it was, and shares all tensors that nothing was learnt in.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = {
        name for name, value in installed.model.state_dict().items()
        if name not in before or not torch.equal(value, before[name])
    }  # fmt: skip
    own = [*model.parameters(), *model.buffers()]
    shared = {value.data_ptr() for value in own if value.numel()}
    assert changed and all(
        name in changed or value.data_ptr() in shared
        for name, value in installed.model.state_dict().items() if value.numel()
    )  # fmt: skip
    learnt_in = {name.rpartition(".")[0] for name in changed}
    found = places(model, shape)
    allowed = {*found.linear, *found.convolutions, *found.norms, *(found.blocks.names if found.blocks else ())}
    allowed |= {f"{name}.out_proj" for name in found.linear}
    assert learnt_in <= allowed
    return installed


@pytest.mark.parametrize("family", [*FAMILIES, "medclip-resnet"])
def test_every_vlm_family_takes_every_kind_and_its_text_side_is_left_alone(family: str, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    pytest.importorskip("peft")
    spec = "medclip:" if family == "medclip-resnet" else FAMILIES[family].spec
    if family == "medclip-resnet":
        write_medclip(tmp_path, resnet=True)
    else:
        FAMILIES[family].write(tmp_path)
    vlm = load(f"{spec}{tmp_path}")
    texts = vlm.encode_texts(["lung opacity", "melanoma"])
    windowed = family.startswith("medclip")
    installed = check(vlm, vlm.input_shape, (LORA, LAYERNORM) if windowed else ALL, deep=True)
    assert torch.equal(installed.model.encode_texts(["lung opacity", "melanoma"]), texts)
    if windowed:
        with pytest.raises(InputError, match="visual prompt tokens"):
            Installed(vlm, Parts((VISUAL_PROMPT,)), vlm.input_shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_of_ones_own_takes_every_kind_alone(kind: str) -> None:
    installed = check(classifier(), (1, 8, 8), (kind,))
    assert not any("unused" in name for name in installed.learnt)
    counts = {LORA: 2 * 2 * 4 + 2, VISUAL_PROMPT: 1, LAYERNORM: 4}
    assert len(installed.learnt) == {**counts, LORA: 20}[kind]


def test_deep_tokens_are_more_and_answer_differently() -> None:
    shallow, deep = (
        Installed(classifier(), Parts((VISUAL_PROMPT,), tokens=3, deep=d), (1, 8, 8)) for d in (False, True)
    )
    assert {tuple(value.shape) for value in deep.learnt.values()} == {(3, 16)}
    assert (len(shallow.learnt), len(deep.learnt)) == (1, 2)


@pytest.mark.parametrize("targets", ["all", "linear", "attention", "mlp"])
def test_targets_choose_layers(targets: str) -> None:
    names = Installed(classifier(), Parts(rank=1, targets=targets), (1, 8, 8)).learnt
    assert any("embed" in name for name in names) == (targets == "all")
    assert any("attn" in name for name in names) == (targets != "mlp")
    assert any("mlp" in name for name in names) == (targets != "attention")


def test_segmentation_networks_learn_in_convolutions_and_scales() -> None:
    check(segmenter(), (1, 8, 8), (LORA, LAYERNORM))
    with pytest.raises(InputError, match="no layers for targets='linear'"):
        Installed(segmenter(), Parts(targets="linear"), (1, 8, 8))
    with pytest.raises(InputError, match="are for ViTs"):
        Installed(segmenter(), Parts((VISUAL_PROMPT,)), (1, 8, 8))


def test_smp_monai_and_transformers_networks_take_lora_and_scales(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    nets = pytest.importorskip("monai.networks.nets")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    narrow = {"encoder_depth": 3, "decoder_channels": (16, 8, 8)}
    unet = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=2, **narrow).eval()
    check(unet, (1, 32, 32), (LORA, LAYERNORM))
    volume = nets.UNet(3, 1, 2, channels=(4, 8), strides=(2,), norm="instance").eval()
    check(volume, (1, 8, 8, 8), (LORA,))
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=2,
    )  # fmt: skip

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = transformers.SegformerForSemanticSegmentation(config).eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(pixel_values=x).logits

    check(Logits().eval(), (3, 32, 32), (LORA, LAYERNORM))


def test_the_same_seed_starts_alike_and_the_random_numbers_of_others_are_left_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, again = (Installed(classifier(), Parts(ALL), (1, 8, 8), seed=2).values() for _ in range(2))
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = Installed(classifier(), Parts(ALL), (1, 8, 8), seed=3).values()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_values_that_do_not_fit_are_refused_by_name() -> None:
    installed = Installed(classifier(), Parts(rank=2), (1, 8, 8))
    values = installed.values()
    name = next(iter(values))
    with pytest.raises(InputError, match="missing"):
        installed.fill({key: value for key, value in values.items() if key != name})
    with pytest.raises(InputError, match="does not fit the network"):
        installed.fill({**values, name: torch.zeros(1)})


@pytest.mark.parametrize(
    "parts",
    [{"kinds": ()}, {"kinds": ("lora", "lora")}, {"kinds": ("dora",)}, {"rank": 0}, {"targets": "odd"}, {"scale": 0.0}],
)
def test_impossible_parts_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Parts(**parts)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="no layers of PyTorch"):
        places(nn.Flatten(), (1, 2, 2))
