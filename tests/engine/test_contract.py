"""A base classifier is a fixed function of one input that leaves the input alone; whatever is not is refused."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from toys import CLASS_NAMES, TinyVLM

from certimed.assets import asset, demo_prompts
from certimed.classification import SmoothedClassifier
from certimed.classifiers import ClassificationModel
from certimed.engine import Scores
from certimed.engine.acceleration import Acceleration, coarsest_dtype
from certimed.engine.contract import COPIES, OneAnswer, check_one_answer, refuse_what_is_no_function, unchanged
from certimed.errors import ModelError
from certimed.prompts import PromptComparison, prompt_methods
from certimed.runs import DataSpec, MaskTarget, RunSpec
from certimed.segmentation import SmoothedSegmenter
from certimed.segmenters import SegmentationModel
from certimed.segmenters.small_unet import SmallUNet
from certimed.vlm import ZeroShotClassifier, load

SHAPE = (3, 16, 16)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def image(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def copies(x: Tensor, sigma: float = 0.5, count: int = COPIES) -> tuple[Tensor, Tensor]:
    noise = torch.randn((2, count, *x.shape), generator=torch.Generator().manual_seed(2))
    return x + sigma * noise[0], x + 50 * sigma * noise[1]


class Cnn(nn.Module):
    """Convolution, a norm to be chosen, pooling, a linear layer: 3 channels -> 4 scores."""

    def __init__(self, norm: nn.Module | None = None, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first or nn.Identity()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm or nn.Identity(), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.first(x)).mean(dim=(2, 3)))


class Vit(nn.Module):
    """Patches, two transformer layers with dropout (off in evaluation mode), a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2)).mean(dim=1))


class Around(nn.Module):
    """A network with a change of its scores or its input."""

    def __init__(self, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = seeded(Cnn)
        self.change = change
        self.calls = 0
        self.seen: list[Tensor] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, x)


def batch_normalised(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner((x - x.mean()) / x.std())


def batch_softmax(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(x).softmax(dim=0)


def dropped(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(functional.dropout(x))


def noised(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(x + 0.5 * torch.randn_like(x))


def counting(self: nn.Module, x: Tensor) -> Tensor:
    self.calls += 1
    return self.inner(x) * (-1.0) ** self.calls


def by_position(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(x).roll(1, dims=0)


def seen_of(smoothed: SmoothedClassifier | SmoothedSegmenter) -> OneAnswer | None:
    return smoothed.engine.one_answer.get("plain")


MISBEHAVIOURS = [batch_normalised, batch_softmax, dropped, noised, counting, by_position]


@pytest.mark.parametrize("change", MISBEHAVIOURS)
def test_answers_that_depend_on_more_than_their_input_are_refused_with_what_was_seen(change) -> None:
    with pytest.raises(ModelError, match=r"noisy copy \d.*batch of 8.*fixed function"):
        check_one_answer(Around(change), *copies(image()))


@pytest.mark.parametrize("change", MISBEHAVIOURS)
def test_no_facade_certifies_them(change) -> None:
    model, x = Around(change), image()
    with pytest.raises(ModelError, match="noisy copy"):
        SmoothedClassifier(model, 4, 0.5).certify(x, n=100)
    with pytest.raises(ModelError, match="noisy copy"):
        SmoothedClassifier(model, 4, 0.5).predict(x, n=100)
    with pytest.raises(ModelError, match=r"noisy copy|when asked twice"):
        classifier = ClassificationModel(model, input_shape=SHAPE)
        PromptComparison(classifier, [Scores("plain", 4)], 0.5).run(x, n=100)


def test_a_wrong_certificate_is_no_longer_made() -> None:
    """In company one class wins almost always, alone almost never: what was certified was the company."""

    def coupled(x: Tensor) -> Tensor:
        score = x.mean(dim=(1, 2, 3)) - 0.9 * x.mean()  # above zero in company, below it alone only where dark
        return torch.stack([torch.where(torch.tensor(len(x) > 1), -score.abs(), score), 0 * score], dim=1)

    with pytest.raises(ModelError, match="alone"):
        SmoothedClassifier(coupled, 2, 0.5).certify(image(), n=1000)


def test_no_batch_is_larger_than_the_runs_and_one_image_at_a_time_is_still_asked_twice() -> None:
    seen: list[int] = []

    def small(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.stack([x.mean(dim=(1, 2, 3)), 0.5 + torch.zeros(len(x))], dim=1)

    for size in (1, 2, 3, 5):
        seen.clear()
        smoothed = SmoothedClassifier(small, 2, 0.5)
        smoothed.certify(image(), n=30, batch_size=size)
        assert max(seen) == size and seen_of(smoothed) is not None
        assert seen_of(smoothed).largest_batch == min(size, 2 * seen_of(smoothed).copies)
    for change in (noised, dropped, counting):
        with pytest.raises(ModelError, match="noisy copy"):
            SmoothedClassifier(Around(change), 4, 0.5).certify(image(), n=30, batch_size=1)


def mask_normalised(x: Tensor) -> Tensor:
    return torch.cat([x.mean().expand_as(x), x], dim=1)


def test_masks_are_held_to_one_answer_too_with_a_threshold_and_without() -> None:
    x = image((1, 12, 10))
    with pytest.raises(ModelError, match=r"noisy copy \d at \(\d+, \d+\) was [01] .* and [01] in a batch of 8"):
        SmoothedSegmenter(mask_normalised, 2, 0.3).certify(x)
    with pytest.raises(ModelError, match="noisy copy"):
        SmoothedSegmenter(lambda x: x - x.mean(), 2, 0.3, binary_threshold=0.0).certify(x)
    found = SmoothedSegmenter(lambda x: x, 2, 0.3, binary_threshold=0.5)
    found.certify(x)
    assert seen_of(found) is not None and seen_of(found).answers == 3 * COPIES * 120


# -- what a network's layers show


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(8, track_running_stats=False), nn.SyncBatchNorm(8, track_running_stats=False)]
)
def test_batch_normalisation_without_statistics_is_named(norm: nn.Module) -> None:
    model = Cnn(norm).eval()
    with pytest.raises(ModelError, match=r"layer body\.1 \((Sync)?BatchNorm"):
        SmoothedClassifier(model, 4, 0.5)
    for held in (model.forward, functools.partial(model.__call__), lambda x: model(x) + 0):
        with pytest.raises(ModelError, match=r"body\.1"):
            refuse_what_is_no_function(held)
    for wrap in (Acceleration("bfloat16").wrap, lambda m: SmoothedSegmenter(m, 2, 0.5)):
        with pytest.raises(ModelError, match=r"body\.1"):
            wrap(model)
    with pytest.raises(ModelError, match=r"body\.1"):
        PromptComparison(ClassificationModel(model, input_shape=SHAPE), [Scores("plain", 4)], 0.5)


def test_subclasses_and_scripted_layers_are_named_too() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(ModelError, match="Own"):
        refuse_what_is_no_function(Cnn(Own(8, track_running_stats=False)).eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).eval())
    with pytest.raises(ModelError, match="BatchNorm2d"):
        refuse_what_is_no_function(scripted)


def without_tracking() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.track_running_stats = False  # its statistics are there, and used in evaluation mode
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(8),
        without_tracking(),
        nn.InstanceNorm2d(8),
        nn.InstanceNorm2d(8, track_running_stats=True),
        nn.GroupNorm(2, 8),
        nn.LayerNorm([8, 16, 16]),
        nn.LocalResponseNorm(2),
    ],
)
def test_norms_that_look_at_one_input_are_legal_and_do_give_one_answer(norm: nn.Module) -> None:
    model = Cnn(norm).eval()
    refuse_what_is_no_function(model)
    assert check_one_answer(model, *copies(image())).near_ties == 0


def test_a_batch_norm_without_statistics_does_depend_on_the_batch_and_is_caught_without_being_seen() -> None:
    model = Cnn(nn.BatchNorm2d(8, track_running_stats=False)).eval()
    with pytest.raises(ModelError, match="noisy copy"):
        check_one_answer(model, *copies(image()))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
        return torch.ao.quantization.quantize_dynamic(flat, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.skipif("none" in torch.backends.quantized.supported_engines[-1:], reason="no quantised kernels here")
def test_dynamic_quantisation_is_named_and_does_depend_on_the_batch() -> None:
    model = seeded(quantised)
    with pytest.raises(ModelError, match=r"layer 1 \(Linear\) is quantised dynamically"):
        SmoothedClassifier(model, 4, 0.5)
    with pytest.raises(ModelError, match="beside copies with 50 times the noise"):
        check_one_answer(model, *copies(image()))


def test_fake_quantisation_that_still_observes_is_named() -> None:
    fake = torch.ao.quantization.FakeQuantize()
    model = Cnn(first=fake).eval()
    with pytest.raises(ModelError, match=r"first \(FakeQuantize\) still observes"):
        refuse_what_is_no_function(model)
    fake.disable_observer()
    refuse_what_is_no_function(model)


def test_training_mode_is_refused_behind_a_function_too() -> None:
    model = Cnn().train()
    for held in (model, model.forward, lambda x: model(x) + 0):
        with pytest.raises(ModelError, match="training mode"):
            SmoothedClassifier(held, 4, 0.5)


# -- what is legal


@pytest.mark.parametrize("build", [Cnn, Vit])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plain_networks_pass_and_the_record_says_what_was_done(build, precision: str) -> None:
    model = Acceleration(precision).wrap(seeded(build))
    smoothed = SmoothedClassifier(model, 4 if build is Cnn else 5, 0.5)
    smoothed.certify(image(), n=50, batch_size=16)
    found = seen_of(smoothed)
    assert found is not None and found.to_dict() == {
        "copies": 8,
        "passes": 44,
        "largest_batch": 16,
        "compositions": ["whole", "alone-or-pairs", "beside-far", "reversed"],
        "answers": 24,
        "near_ties": found.near_ties,
        "score_difference": found.score_difference,
        "tolerance": found.tolerance,
    }
    assert found.score_difference < found.tolerance
    smoothed.certify(image(seed=3), n=50)
    assert seen_of(smoothed) is found  # once


def test_near_ties_in_low_precision_pass_and_are_counted_and_the_same_flips_far_from_a_tie_do_not() -> None:
    """A score that moves by half a rounding step with the batch, as kernels do, where two classes are tied or not."""

    def rounding(gap: float) -> Callable[[Tensor], Tensor]:
        def scores(x: Tensor) -> Tensor:
            wobble = 2.0**-8 if len(x) == 8 else -(2.0**-8)
            first = 1 + torch.zeros(len(x)) + wobble * (x.flatten(1)[:, 0] > 1)
            return torch.stack([first, torch.ones(len(x)), torch.full((len(x),), 1 - gap)], dim=1)

        return scores

    batch, far = copies(image())
    found = check_one_answer(rounding(1.0), batch, far, dtype=torch.bfloat16)
    assert 0 < found.near_ties <= 6 and found.tolerance > 2.0**-8
    with pytest.raises(ModelError, match="noisy copy"):
        check_one_answer(rounding(1.0), batch, far)  # in float32 no rounding is as coarse


def test_answers_that_are_all_ties_are_refused() -> None:
    def tiny(x: Tensor) -> Tensor:
        wobble = 2.4e-7 if len(x) == 8 else -2.4e-7
        return torch.stack([torch.zeros(len(x)), torch.full((len(x),), wobble), torch.full((len(x),), 1.2e-7)], 1) + 1

    with pytest.raises(ModelError, match="of 24 answers changed"):
        check_one_answer(tiny, *copies(image()))


def test_votes_may_change_at_a_few_pixels_of_a_mask() -> None:
    """Masks that come as votes show no ties; the rounding of the scores behind them moves a pixel here and there."""

    def votes(moving: int) -> Callable[[Tensor], Tensor]:
        def scores(x: Tensor) -> Tensor:
            won = (x[:, 0] > 0.5).float()
            won[:, 0, :moving] = float(len(x) == 8)
            return torch.stack([1 - won, won], dim=1)

        return scores

    batch, far = copies(image((1, 64, 64)))
    assert check_one_answer(votes(1), batch, far).near_ties == 16
    with pytest.raises(ModelError, match=r"at \(0, 0\)"):
        check_one_answer(votes(40), batch, far)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_unet_passes(precision: str) -> None:
    model = Acceleration(precision).wrap(seeded(lambda: SmallUNet(1, 2, (8, 16), 2)))
    segmenter = SmoothedSegmenter(model, 2, 0.3)
    segmenter.certify(image((1, 32, 32)), n=30, tau=0.5)
    assert seen_of(segmenter) is not None
    assert seen_of(segmenter).near_ties <= 0.05 * seen_of(segmenter).answers


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_demo_models_pass(precision: str) -> None:
    vlm, how = load("demo"), Acceleration(precision)
    paths = sorted(asset("demo_images").glob("*/*.png"))[:2]
    classifier = ZeroShotClassifier(vlm, list(demo_prompts()["classes"].values()), ["an image of {}."])
    for path in paths:
        with Image.open(path) as opened:
            x = vlm.preprocess(torch.from_numpy(np.asarray(opened, dtype=np.float32) / 255)[None])
        for sigma in (0.25, 1.0):
            smoothed = SmoothedClassifier(how.wrap(classifier), len(classifier.text_features), sigma)
            smoothed.certify(x, n0=1, n=1)
            assert seen_of(smoothed) is not None
            assert seen_of(smoothed).score_difference < seen_of(smoothed).tolerance


def test_the_coarsest_precision_is_that_of_any_part() -> None:
    assert coarsest_dtype(torch.sum) == coarsest_dtype(Cnn()) == torch.float32
    assert coarsest_dtype(nn.Sequential(Cnn(), Acceleration("bfloat16").wrap(Cnn().eval()))) == torch.bfloat16
    assert coarsest_dtype(nn.Sequential(Cnn(), nn.Linear(2, 2).half())) == torch.float16
    assert coarsest_dtype(Cnn().double()) == torch.float32


# -- models that work in place


def in_place(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(x.sub_(0.4).div_(0.2))


def relu_first(self: nn.Module, x: Tensor) -> Tensor:
    return self.inner(functional.relu(x, inplace=True))


def remembering(self: nn.Module, x: Tensor) -> Tensor:
    """Keeps every input, and overwrites all it has kept before."""
    answer = self.inner(x)
    for old in self.seen:
        old.fill_(7.0)
    self.seen.append(x)
    return answer


IN_PLACE = [
    (in_place, lambda self, x: self.inner((x - 0.4) / 0.2)),
    (relu_first, lambda self, x: self.inner(x.relu())),
    (remembering, lambda self, x: self.inner(x)),
]


@pytest.mark.parametrize(("change", "pure"), IN_PLACE)
def test_a_model_that_works_in_place_gets_the_certificate_of_the_pure_one(change, pure) -> None:
    """Its input is its own: the image that noise is added to, and the caller's, stay what they are."""
    x = image() - 0.2
    before = x.clone()
    settings = {"n0": 20, "n": 200, "seed": 3, "item_id": "a", "batch_size": 16}
    wanted = SmoothedClassifier(Around(pure), 4, 0.5).certify(x, **settings)
    assert SmoothedClassifier(Around(change), 4, 0.5).certify(x, **settings).counts == wanted.counts
    for model, found in ((Around(change), []), (Around(pure), [])):
        comparison = PromptComparison(ClassificationModel(model, input_shape=SHAPE), [Scores("plain", 4)], 0.5)
        found += [comparison.run(x, **settings)["plain"] for _ in range(2)]
        assert [one.certificate.counts for one in found] == [wanted.counts] * 2
    assert torch.equal(x, before)


class InPlaceVLM(TinyVLM):
    """Centres the images it is given where they are."""

    def encode_image(self, x: Tensor) -> Tensor:
        return super().encode_image(x.mul_(0.2).add_(0.5))


class PureVLM(TinyVLM):
    """The same on a copy."""

    def encode_image(self, x: Tensor) -> Tensor:
        return super().encode_image(0.2 * x + 0.5)


class Darker(nn.Module):
    """A denoiser that subtracts, in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.4) if self.inplace else x - 0.4


@pytest.mark.parametrize("name", ["plain", "denoised", "split"])
def test_an_encoder_or_denoiser_that_works_in_place_gets_the_certificates_of_the_pure_one(name: str) -> None:
    """The clean prediction hands the image to the encoder before any noise is drawn: radius .441 came of .046."""
    x = image((1, 4, 4))
    before, found = x.clone(), []
    for kind, inplace in ((InPlaceVLM, True), (PureVLM, False)):
        vlm = TinyVLM() if name == "denoised" else kind()
        methods = prompt_methods(vlm, CLASS_NAMES, (name,), sigma=0.5, context="an h&e image patch of")
        denoiser = Darker(inplace).eval() if name == "denoised" else None
        result = PromptComparison(vlm, methods, 0.5, denoiser=denoiser).run(x, n0=20, n=300, item_id="a")[name]
        found.append((result.certificate.counts, list(result.selection), result.clean))
    assert found[0] == found[1]
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_neither_tensors_nor_arrays_of_the_caller_are_handed_out(kind: type) -> None:
    x = image().numpy().astype(kind)
    before = x.copy()
    given: list[Tensor] = []

    def spoil(x: Tensor) -> Tensor:
        given.append(x)
        for old in given:
            old.zero_()
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    SmoothedClassifier(spoil, 2, 0.5).certify(x, n=30)
    assert np.array_equal(x, before)


def test_a_segmenter_that_works_in_place_scores_and_certifies_as_the_pure_one(tmp_path, monkeypatch) -> None:
    class Bright(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.inplace = inplace

        def forward(self, x: Tensor) -> Tensor:
            x = x.sub_(0.5).div_(0.1) if self.inplace else (x - 0.5) / 0.1
            return torch.cat([-x.mean(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)

    np.savez(tmp_path / "one.npz", images=image((1, 12, 10), 7).numpy()[0][None], masks=np.zeros((1, 12, 10), np.uint8))
    found = []
    for inplace in (True, False):
        spec = RunSpec("none", DataSpec(str(tmp_path / "one.npz")), MaskTarget((0.6,)), sigma=0.3, n0=5, budget=60)
        model = SegmentationModel(Bright(inplace), num_classes=2, output="logits", name="bright")
        monkeypatch.setattr("certimed.runs.loading.load_segmenter", lambda *args, model=model, **settings: model)
        record = spec.load().record(0)
        assert record.reason is None
        found.append((record.certificates["plain"].agreement.tolist(), record.scores["plain"].to_dict()))
    assert found[0] == found[1]


def test_an_image_that_was_changed_all_the_same_is_an_error() -> None:
    x = image()
    with unchanged(x):
        x + 1
    with pytest.raises(ModelError, match="changed the image"), unchanged(x):
        x.add_(1)

    class Reaching(nn.Module):
        """Finds the image in the frames below it."""

        def forward(self, batch: Tensor) -> Tensor:
            import sys

            frame = sys._getframe()
            while frame is not None:
                for value in [getattr(one, "image", one) for one in frame.f_locals.values()]:
                    if isinstance(value, Tensor) and value.shape == SHAPE:
                        value.add_(math.pi)
                frame = frame.f_back
            return torch.tensor([[1.0, 0.0]]).expand(len(batch), 2)

    with pytest.raises(ModelError, match="changed the image"):
        SmoothedClassifier(Reaching().eval(), 2, 0.5).certify(image().requires_grad_(False), n=30)
