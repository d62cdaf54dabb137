"""Identity is behaviour: two builds of one thing have one identity, and every setting that changes answers another."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import CLASS_NAMES, TinyVLM, class_images

from certimed import ClassificationModel
from certimed.denoising import Compose, DenoiserOptions, ModuleDenoiser, NoiseSchedule, OneStepDenoiser, load_denoiser
from certimed.engine import EmbeddingCache, ModelStream
from certimed.models import behaviour_digest, combined, identity_of, is_complete, model_versions
from certimed.noise import Float32Gaussian, NoiseKey
from certimed.segmenters import NativeSegmenter, SegmentationModel, SlidingWindow
from certimed.vlm import NativeModel, ZeroShotClassifier

KEY = NoiseKey(0, "image", "estimation")


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A module with the same random weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def conv() -> nn.Module:
    return seeded(lambda: nn.Conv2d(1, 1, 3, padding=1))


class Scaled(nn.Module):
    """A network with constants of every kind."""

    step = 2

    def __init__(self, gain: Any = 0.5, **extra: Any) -> None:
        super().__init__()
        self.gain = gain
        self.table = {"a": (1, 2.0), "b": [True, None]}
        self.register_buffer("hidden", torch.tensor([1.0, 2.0]), persistent=False)
        for name, value in extra.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


class Other(Scaled):
    """The same constants, another type."""


class Stepped(Scaled):
    step = 3


class Recoded(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + 1.0


def buffered(value: float) -> nn.Module:
    module = Scaled()
    module.hidden.fill_(value)
    return module


def hooked() -> nn.Module:
    module = Scaled()
    module.register_forward_hook(lambda *_: None)
    return module


def closing(level: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x + level


LEVEL = 0.25


def globally(x: Tensor) -> Tensor:
    return x * LEVEL


PLAIN = [
    Scaled, Other, Stepped, Recoded, hooked,
    lambda: Scaled(0.25), lambda: Scaled(1), lambda: Scaled(True), lambda: Scaled("0.5"), lambda: Scaled((0.5,)),
    lambda: Scaled(None), lambda: Scaled(torch.float16), lambda: Scaled(np.float32(0.5)),
    lambda: Scaled(np.array([0.5])), lambda: Scaled(np.array([0.25])), lambda: Scaled(torch.tensor(0.5)),
    lambda: Scaled(torch.tensor(0.25)), lambda: Scaled({1, 2}), lambda: Scaled({1, 3}), lambda: Scaled(nn.ReLU()),
    lambda: Scaled([nn.Hardtanh(0, 1)]), lambda: Scaled([nn.Hardtanh(0, 2)]), lambda: Scaled(closing(0.25)),
    lambda: Scaled(closing(0.5)), lambda: Scaled(functools.partial(torch.add, alpha=1)),
    lambda: Scaled(functools.partial(torch.add, alpha=2)), lambda: Scaled(DenoiserOptions()),
    lambda: Scaled(DenoiserOptions(tile=64)), lambda: Scaled(note=1), lambda: buffered(3.0),
]  # fmt: skip


def test_every_plain_constant_of_a_network_is_seen() -> None:
    digests = [behaviour_digest(build(), {}) for build in PLAIN]
    assert len(set(digests)) == len(PLAIN)
    assert digests == [behaviour_digest(build(), {}) for build in PLAIN]
    # A list in a file's configuration is the tuple it became.
    assert behaviour_digest(Scaled([0.5]), {}) == behaviour_digest(Scaled((0.5,)), {})


def test_training_counters_device_and_dict_order_are_no_behaviour() -> None:
    norm = nn.BatchNorm2d(2).eval()
    before = behaviour_digest(norm, {"a": 1, "b": 2})
    norm.num_batches_tracked += 5
    assert behaviour_digest(norm, {"b": 2, "a": 1}) == before
    norm.running_mean += 1
    assert behaviour_digest(norm, {"a": 1, "b": 2}) != before


def test_global_constants_that_code_names_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = behaviour_digest(Scaled(globally), {})
    monkeypatch.setattr(sys.modules[__name__], "LEVEL", 0.5)
    assert behaviour_digest(Scaled(globally), {}) != before


def test_circles_and_deep_values_end() -> None:
    module: Any = Scaled()
    module.circle = [module]
    module.circle.append(module.circle)
    module.parent = {"self": module}
    assert len(behaviour_digest(module, {})) == 64
    with pytest.raises(TypeError, match="module or its state"):
        behaviour_digest(None, {})
    with pytest.raises(TypeError, match="no identity"):
        identity_of(3)


def test_another_process_finds_the_same_digests() -> None:
    """Hash seeds and addresses of objects differ there."""
    code = f"from {__name__} import digests\nprint(','.join(digests()))"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | path
    )
    assert done.stdout.strip().split(",") == digests()


def digests() -> list[str]:
    return [behaviour_digest(build(), {}) for build in PLAIN] + [build().identity for build in DENOISERS]


# --- every model and denoiser: each setting flipped -----------------------------------------------------------------

SCHEDULE = NoiseSchedule.linear(100)
OPTIONS = DenoiserOptions(channels=1, multiple=1, tile=16, overlap=4)


def one_step(unet: nn.Module | None = None, schedule: NoiseSchedule = SCHEDULE, **options: Any) -> OneStepDenoiser:
    return OneStepDenoiser(unet or conv(), schedule, replace(OPTIONS, **options))


DENOISERS: list[Callable[[], Any]] = [
    lambda: ModuleDenoiser(conv()),
    lambda: ModuleDenoiser(conv(), 0.25),
    lambda: ModuleDenoiser(conv(), 0.5),
    lambda: ModuleDenoiser(Scaled(0.25)),
    lambda: ModuleDenoiser(Scaled(0.5)),
    lambda: ModuleDenoiser(conv(), 0.25).at(0.25),
    lambda: ModuleDenoiser(conv()).at(0.25),
    lambda: ModuleDenoiser(conv()).at(0.5),
    lambda: ModuleDenoiser(conv()).with_source("0"),
    one_step,
    lambda: one_step(seeded(lambda: nn.Conv2d(1, 1, 1))),
    lambda: one_step(schedule=NoiseSchedule.linear(100, 2e-4)),
    lambda: one_step(schedule=NoiseSchedule.linear(101)),
    lambda: one_step(prediction_type="sample"),
    lambda: one_step(channels=3),
    lambda: one_step(patch=2, multiple=2),
    lambda: one_step(multiple=4),
    lambda: one_step(tile=32),
    lambda: one_step(tile=None),
    lambda: one_step(overlap=2),
    lambda: one_step(autocast=torch.bfloat16),
    lambda: one_step().at(0.25),
    lambda: one_step().at(0.5),
    lambda: one_step().at(0.5, steps=3),
    lambda: one_step(prediction_type="sample").at(0.5),
    lambda: one_step().with_source("0"),
    lambda: Compose(one_step().at(0.25), Scaled()),
    lambda: Compose(one_step().at(0.5), Scaled()),
    lambda: Compose(one_step().at(0.5), Scaled(1)),
    lambda: load_denoiser(nn.Identity()),
]

SEGMENTER: dict[str, Any] = {"num_classes": 2, "output": "binary logit"}


def segmenter(network: nn.Module | None = None, **settings: Any) -> SegmentationModel:
    return SegmentationModel(network or conv(), **(SEGMENTER | settings))


def three() -> nn.Module:
    return seeded(lambda: nn.Conv2d(3, 1, 1))


SEGMENTERS: list[Callable[[], Any]] = [
    segmenter,
    lambda: segmenter(Scaled(0.25)),
    lambda: segmenter(Scaled(0.5)),
    lambda: segmenter(output="logits"),
    lambda: segmenter(output="logits", num_classes=3),
    lambda: segmenter(output="binary probability"),
    lambda: segmenter(mean=0.5),
    lambda: segmenter(std=0.5),
    lambda: segmenter(multiple_of=8),
    lambda: segmenter(window=SlidingWindow(8)),
    lambda: segmenter(window=SlidingWindow(16)),
    lambda: segmenter(window=SlidingWindow(8, overlap=0.5)),
    lambda: segmenter(window=SlidingWindow(8, mode="constant")),
    lambda: segmenter(three(), in_channels=3),
    lambda: segmenter(three(), in_channels=3, mean=[0.1, 0.2, 0.3]),
    lambda: segmenter(three(), in_channels=3, mean=[0.2, 0.1, 0.3]),
    lambda: segmenter(three(), in_channels=3, channel_order="bgr"),
    lambda: segmenter(configuration={"a": 1}),
    lambda: segmenter(configuration={"a": 2}),
    lambda: segmenter(configuration={"a": 1}, mean=0.5),
    lambda: segmenter().with_source("0"),
    lambda: segmenter().with_source("1"),
    lambda: NativeSegmenter(segmenter(), None, None),
    lambda: NativeSegmenter(segmenter(), 1, None),
    lambda: NativeSegmenter(segmenter(), None, (8, 8)),
    lambda: NativeSegmenter(segmenter(), None, (8, 16)),
]


def classifier(network: Callable[[], nn.Module] | None = None, **settings: Any) -> ClassificationModel:
    made = seeded(network or (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2))))
    return ClassificationModel(made, **{"input_shape": (1, 8, 8), **settings})


def flat(gain: float) -> nn.Module:
    return nn.Sequential(Scaled(gain), nn.Flatten(), nn.Linear(64, 2))


CLASSIFIERS: list[Callable[[], Any]] = [
    classifier,
    lambda: classifier(lambda: flat(0.25)),
    lambda: classifier(lambda: flat(0.5)),
    lambda: classifier(class_names=("a", "b")),
    lambda: classifier(class_names=("b", "a")),
    lambda: classifier(mean=(0.5,)),
    lambda: classifier(mean=(0.50000001,)),
    lambda: classifier(std=(0.5,)),
    lambda: classifier(resize="shortest"),
    lambda: classifier(interpolation="bicubic"),
    lambda: classifier(input_shape=(1, 4, 16)),
    lambda: classifier().with_source("0"),
    lambda: NativeModel(classifier()),
    lambda: ZeroShotClassifier(TinyVLM(), CLASS_NAMES, "a photo of {}."),
    lambda: ZeroShotClassifier(TinyVLM(), CLASS_NAMES[::-1], "a photo of {}."),
    lambda: ZeroShotClassifier(TinyVLM(), CLASS_NAMES, "a slide showing {}."),
    lambda: ZeroShotClassifier(TinyVLM(1), CLASS_NAMES, "a photo of {}."),
]


@pytest.mark.parametrize("builds", [DENOISERS, SEGMENTERS, CLASSIFIERS], ids=["denoisers", "segmenters", "classifiers"])
def test_each_setting_is_another_identity_and_two_builds_are_one(builds: list[Callable[[], Any]]) -> None:
    identities = [build().identity for build in builds]
    assert all(len(identity) == 64 for identity in identities)
    twins = [(i, j) for i in range(len(builds)) for j in range(i) if identities[i] == identities[j]]
    assert not twins
    assert identities == [build().identity for build in builds]


def test_only_adapters_that_know_all_of_it_are_complete() -> None:
    own = segmenter(configuration={"a": 1})
    assert is_complete(own) and is_complete(NativeSegmenter(own, None, None))
    assert not is_complete(own.with_source("0"))
    for build in (segmenter, classifier, one_step, lambda: ModuleDenoiser(conv())):
        assert not is_complete(build())
    assert not is_complete(Compose(one_step().at(0.5), own)) and not is_complete(NativeModel(classifier()))


def test_versions_name_the_libraries_of_a_model() -> None:
    assert "torchvision" in model_versions(segmenter(libraries=("torchvision",)), nn.Identity())
    assert model_versions(segmenter(libraries=("no-such-library",))) == {"no-such-library": "unknown"}
    torchvision = pytest.importorskip("torchvision")
    assert set(model_versions(torchvision.models.resnet18())) == {"torchvision"}


def test_combining_keeps_parts_apart() -> None:
    assert len({combined("a", "b"), combined("ab"), combined("b", "a"), combined("a", None), combined(["a", "b"])}) == 5


# --- caches ---------------------------------------------------------------------------------------------------------


def encoded(cache: EmbeddingCache, vlm: TinyVLM, denoiser: nn.Module | None = None) -> Tensor:
    return cache.embeddings(
        ModelStream(vlm, denoiser), class_images(vlm, 1)[0][0], Float32Gaussian(0.5), KEY, 20, batch_size=20
    )


def test_a_cache_tells_living_objects_apart_where_identity_is_not_complete() -> None:
    """Weights, code and constants equal, and yet other answers: a global object decides, which no digest sees."""
    cache = EmbeddingCache()
    outside: dict[str, float] = {}

    class Reads(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self._read = Reader(name)

        def forward(self, x: Tensor) -> Tensor:
            return x * self._read()

    class Reader:
        __slots__ = ("name",)

        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self) -> float:
            return outside[self.name]

    outside.update(half=0.5, tenth=0.1)
    vlm = TinyVLM()
    half, tenth = Reads("half").eval(), Reads("tenth").eval()
    assert identity_of(half) == identity_of(tenth)
    first = encoded(cache, vlm, half)
    assert not torch.equal(encoded(cache, vlm, tenth), first)
    assert torch.equal(encoded(cache, vlm, half), first) and len(cache) == 2


def test_a_cache_shares_what_is_declared_complete() -> None:
    cache = EmbeddingCache()
    vlm, twin = TinyVLM(), TinyVLM()
    vlm.identity_complete = twin.identity_complete = False
    encoded(cache, vlm)
    encoded(cache, twin)
    assert (len(cache), twin.image_calls) == (2, 1)
    vlm.identity_complete = twin.identity_complete = True
    encoded(cache, vlm)
    calls = twin.image_calls
    encoded(cache, twin)
    assert (len(cache), twin.image_calls) == (3, calls)


def test_denoisers_of_other_levels_have_entries_of_their_own() -> None:
    cache, vlm = EmbeddingCache(), TinyVLM()
    vlm.identity_complete = True
    found = [encoded(cache, vlm, ModuleDenoiser(Scaled(gain)).at(0.5).eval()) for gain in (0.25, 0.5)]
    assert not torch.equal(*found) and len(cache) == 2
