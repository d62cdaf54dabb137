"""Precision, compilation and memory layout: what runs, what it is called, and what stays float32."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from toys import CLASS_NAMES, TinyVLM, noisy_copies

from certimed.classification import SmoothedClassifier
from certimed.denoising import Compose, NoiseSchedule, OneStepDenoiser
from certimed.denoising.one_step import DenoiserOptions
from certimed.engine import Acceleration, EmbeddingCache, ModelStream, arithmetic
from certimed.engine.acceleration import Accelerated
from certimed.errors import InputError, ModelError
from certimed.noise import NoiseKey, as_law
from certimed.prompts import PromptComparison, prompt_methods
from certimed.segmentation import SmoothedSegmenter
from certimed.vlm import ZeroShotClassifier, cosine_logits

BF16 = Acceleration("bfloat16")


class Net(nn.Module):
    """One of everything that autocast treats in its own way; 3 channels, any size, 5 scores."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.GroupNorm(2, 8)
            self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.free = nn.Parameter(torch.randn(8, 8))
            self.head = nn.Linear(8, 5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.head((mixed @ self.free).mean(dim=1).softmax(dim=-1))


def images(count: int = 4, *, seed: int = 1, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


def autocast(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(x)


def denoiser(autocast: torch.dtype | None = None) -> OneStepDenoiser:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.seen: list[torch.dtype] = []

        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            answer = self.conv(x)
            self.seen.append(answer.dtype)
            return answer

    return OneStepDenoiser(UNet(), NoiseSchedule.linear(), DenoiserOptions(channels=1, multiple=1, autocast=autocast))


def test_the_default_changes_nothing() -> None:
    net = Net()
    assert Acceleration().wrap(net) is net
    assert str(Acceleration()) == arithmetic(net) == arithmetic(torch.sum) == "float32"


@torch.inference_mode()
def test_bfloat16_is_autocast_bit_for_bit_with_weights_cast_once() -> None:
    net, x = Net(), images()
    wrapped = BF16.wrap(net)
    plain = autocast(net, x)
    assert plain.dtype == torch.bfloat16
    scores = wrapped(x)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, plain.float())
    assert not torch.equal(scores, net(x))
    # The model itself is untouched, before, after and in spite of an error on the way.
    with pytest.raises(RuntimeError):
        wrapped(images(shape=(2, 8, 8)))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert torch.equal(net(x), Net()(x))


def test_weights_that_other_code_may_use_otherwise_are_left_alone() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            assert self.weight.dtype == torch.float32
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    model = nn.Sequential(Standardised(3, 2, 3), nn.Flatten()).eval()
    assert torch.equal(BF16.wrap(model)(images()), autocast(model, images()).float())


def test_tied_weights_stay_tied_only_where_they_may() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 3)
            self.head = nn.Linear(3, 4, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x.flatten(1)[:, 0].long()))

    model = Tied().eval()
    assert torch.equal(BF16.wrap(model)(images()), autocast(model, images()).float())


def test_noise_is_drawn_and_added_in_float32_before_any_cast() -> None:
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.flatten(1)[:, :2].bfloat16()

    image = images(1)[0]
    SmoothedClassifier(BF16.wrap(model), 2, 0.5, noise="float32").certify(image, n0=3, n=7, item_id="a", batch_size=4)
    expected = noisy_copies(image, 0.5, 0, "a", "estimation", 7)
    assert all(batch.dtype == torch.float32 for batch in seen)
    assert torch.equal(torch.cat(seen[-2:]), expected)


def test_ties_go_to_the_lowest_class_after_the_cast() -> None:
    # 0.5 and 0.5 + 1e-4 are one number in bfloat16: the second class never wins.
    def model(x: Tensor) -> Tensor:
        return torch.tensor([0.4, 0.5, 0.5 + 1e-4]).expand(len(x), 3).bfloat16()

    certificate = SmoothedClassifier(BF16.wrap(model), 3, 0.5).certify(images(1)[0], n0=5, n=20)
    assert certificate.prediction == 1
    assert certificate.counts == (0, 20, 0)


def test_the_cosine_head_stays_float32() -> None:
    vlm = TinyVLM()
    model = ZeroShotClassifier(vlm, CLASS_NAMES, "an image of {}")
    x = images(6, shape=vlm.input_shape)
    features = autocast(_Encode(vlm), x)
    expected = cosine_logits(features.float(), model.text_features, vlm.logit_scale)
    assert torch.equal(BF16.wrap(model)(x), expected)


class _Encode(nn.Module):
    def __init__(self, vlm: TinyVLM) -> None:
        super().__init__()
        self.vlm = vlm

    def forward(self, x: Tensor) -> Tensor:
        return self.vlm.encode_image(x)


@pytest.mark.parametrize(
    ("acceleration", "words"),
    [
        (Acceleration(), "float32"),
        (BF16, "bfloat16 autocast"),
        (Acceleration("bfloat16", engine="compile"), "bfloat16 autocast, compiled"),
        (Acceleration(channels_last=True), "float32, channels last"),
        (Acceleration("float16", "compile", True), "float16 autocast, compiled, channels last"),
    ],
)
def test_the_words_of_provenance(acceleration: Acceleration, words: str) -> None:
    assert str(acceleration) == words


def test_every_certificate_says_what_ran() -> None:
    model = BF16.wrap(Net())
    smoothed = SmoothedClassifier(model, 5, 0.5)
    assert smoothed.certify(images(1)[0], n0=2, n=4).provenance.dtype == "bfloat16 autocast"
    segmenter = BF16.wrap(nn.Conv2d(1, 2, 1).eval())
    mask = SmoothedSegmenter(segmenter, 2, 0.5).certify(images(1, shape=(1, 3, 3))[0], n0=2, n=40)
    assert mask.provenance.dtype == "bfloat16 autocast"
    vlm = TinyVLM()
    methods = prompt_methods(vlm, CLASS_NAMES, ("plain", "denoised", "per-sample"), sigma=0.5, context="an image of")
    front = denoiser(torch.bfloat16).at(0.5).eval()
    comparison = PromptComparison(
        vlm,
        methods,
        0.5,
        denoiser=front,
        acceleration=Acceleration(channels_last=True),
        cache=EmbeddingCache(dtype=torch.float16),
    )
    found = comparison.certify(images(1, shape=vlm.input_shape)[0], n0=2, n=4)
    assert {name: one.provenance.dtype for name, one in found.items()} == {
        "plain": "float32, channels last, embeddings in float16",
        "denoised": "float32, channels last, OneStepDenoiser in bfloat16 autocast, embeddings in float16",
        "per-sample": "float32, channels last, embeddings in float16",
    }


def test_a_comparison_counts_what_the_wrapped_classifier_counts() -> None:
    vlm = TinyVLM()
    methods = prompt_methods(vlm, CLASS_NAMES, ("plain",), sigma=0.5, context="an image of")
    image = images(1, shape=vlm.input_shape)[0]
    both = PromptComparison(vlm, methods, 0.5, acceleration=BF16).certify(image, n0=20, n=200)["plain"]
    alone = SmoothedClassifier(BF16.wrap(methods[0].classifier), 3, 0.5).certify(image, n0=20, n=200)  # type: ignore[attr-defined]
    assert both.counts == alone.counts
    assert both.provenance.dtype == alone.provenance.dtype


def test_cached_embeddings_of_one_precision_are_not_used_for_another() -> None:
    vlm, cache = TinyVLM(), EmbeddingCache()
    image, key = images(1, shape=vlm.input_shape)[0], NoiseKey(0, "a", "estimation")
    exact = cache.embeddings(ModelStream(vlm), image, as_law("float32", 0.5), key, 10, batch_size=10)
    rough = cache.embeddings(ModelStream(vlm, acceleration=BF16), image, as_law("float32", 0.5), key, 10, batch_size=10)
    assert len(cache) == 2
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.05)
    assert ModelStream(vlm).identity == ModelStream(vlm, acceleration=BF16).identity


def test_a_denoiser_runs_as_the_model_it_is_part_of_unless_it_says_otherwise() -> None:
    x = images(2, shape=(1, 8, 8))
    network = nn.Conv2d(1, 2, 1)
    for own, wrapped, expected in [
        (None, False, torch.float32),
        (None, True, torch.bfloat16),
        (torch.bfloat16, False, torch.bfloat16),
    ]:
        front = denoiser(own)
        model = Compose(front.at(0.5), network).eval()
        (BF16.wrap(model) if wrapped else model)(x)
        assert front.unet.seen == [expected]
    model = Compose(denoiser(torch.bfloat16).at(0.5), network).eval()
    assert arithmetic(model) == "float32, OneStepDenoiser in bfloat16 autocast"
    assert arithmetic(BF16.wrap(model)) == "bfloat16 autocast, OneStepDenoiser in bfloat16 autocast"
    assert arithmetic(BF16.wrap(Compose(denoiser().at(0.5), network).eval())) == "bfloat16 autocast"


def test_models_in_low_precision_of_their_own_are_not_called_float32() -> None:
    assert arithmetic(Net().bfloat16()) == "bfloat16 weights"
    mixed = Net()
    mixed.head.half()
    assert arithmetic(mixed) == "float16 weights"
    assert arithmetic(Acceleration(channels_last=True).wrap(mixed)) == "float16 weights, channels last"
    assert arithmetic(mixed, BF16) == arithmetic(BF16.wrap(mixed)) == "bfloat16 autocast"


@torch.inference_mode()
def test_channels_last_computes_the_same_in_another_layout() -> None:
    seen: list[Tensor] = []
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    net[1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    scores = Acceleration(channels_last=True).wrap(net)(images())
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    assert scores.is_contiguous()
    torch.testing.assert_close(scores, net(images()))
    volumes = nn.Conv3d(1, 2, 3).eval()
    x = images(2, shape=(1, 5, 5, 5))
    torch.testing.assert_close(Acceleration(channels_last=True).wrap(volumes)(x), volumes(x))


def test_float16_on_a_cpu_and_unknown_precisions_are_refused() -> None:
    with pytest.raises(InputError, match="float16 is for GPUs"):
        Acceleration("float16").wrap(Net())
    with pytest.raises(InputError, match="float16 is for GPUs"):
        Acceleration("float16").wrap(lambda x: x)(images())
    with pytest.raises(InputError, match="precision='int8' is unknown"):
        Acceleration("int8")


def test_training_mode_is_refused_not_switched_off() -> None:
    net = Net().train()
    with pytest.raises(ModelError, match="training mode"):
        BF16.wrap(net)
    assert net.training
    wrapped = BF16.wrap(net.eval())
    net.head.train()
    with pytest.raises(ModelError, match="training mode"):
        SmoothedClassifier(wrapped, 5, 0.5)


def test_a_broken_model_is_told_apart_from_a_wrapped_one() -> None:
    smoothed = SmoothedClassifier(BF16.wrap(lambda x: None), 2, 0.5)  # type: ignore[arg-type,return-value]
    with pytest.raises(ModelError, match="NoneType"):
        smoothed.certify(images(1)[0], n0=2, n=2)


@torch.inference_mode()
def test_one_graph_serves_batches_of_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    compiled = Acceleration("bfloat16", engine="compile").wrap(net)
    assert isinstance(compiled, Accelerated)
    for count in (1, 7, 3, 2, 1):
        x = images(count, seed=count)
        assert torch.equal(compiled(x), BF16.wrap(net)(x))
    assert len(graphs) == 1


def test_a_model_that_cannot_be_compiled_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: object, inputs: object) -> object:
        raise RuntimeError("no C++ compiler found\nwith a long story")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with pytest.raises(InputError, match=r"cannot be compiled here \(.*\); leave --engine compile out"):
        Acceleration(engine="compile").wrap(Net())(images())


@pytest.mark.slow
@torch.inference_mode()
def test_the_real_compiler_computes_the_same() -> None:
    net = Net()
    compiled = Acceleration(engine="compile").wrap(net)
    for count in (4, 1, 3):
        torch.testing.assert_close(compiled(images(count)), net(images(count)))
