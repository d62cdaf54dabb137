"""Sections about classification: the published loop, precision, the share of forward passes, images end to end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.home import Places
from benchmarks.models import ClipSize, clip_sized
from benchmarks.performance.engines import EXACT, Encoded, fastest
from benchmarks.performance.replay import ALPHA, BETTING, GRID, PLANNED, budgets
from benchmarks.performance.settings import Scale
from benchmarks.reference.cohen_promptsmooth import PromptedModel, Result, certify
from benchmarks.study_promptsmooth import World, open_world
from benchmarks.timing import alternate, ratios, spread, stopwatch, timed
from certimed.budgets import PUBLISHED_RADII, Fixed
from certimed.certificates import ClassCertificate
from certimed.classification import SmoothedClassifier
from certimed.engine import Acceleration
from certimed.noise import NoiseKey, NoiseStream
from certimed.studies import classification_preset
from certimed.vlm import VisionLanguageModel, ZeroShotClassifier

PUBLISHED, OURS, LOW = "published loop", "certimed, float32", "certimed, bfloat16"
PUBLISHED_LOW = "published loop, bfloat16 autocast"
FAST, FAST_EXACT = "certimed, OpenVINO", "certimed, OpenVINO float32"
BFLOAT16 = Acceleration("bfloat16")
PUBLISHED_BATCH = 100
KATHER = classification_preset("kather")
SIGMA = 0.25


@contextmanager
def temporary_clip(size: ClipSize) -> Iterator[VisionLanguageModel]:
    """A CLIP with random weights, gone from disk afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield clip_sized(Path(folder), size)


def random_image(shape: tuple[int, ...]) -> Tensor:
    """Values in [0, 1], always the same."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def published_loop(
    model: PromptedModel, classes: int, image: Tensor, sigma: float, *, n0: int, n: int, item: str = "a"
) -> Result:
    """The published procedure on the engine's own noise for this item."""
    streams = [NoiseStream(NoiseKey(0, item, phase), tuple(image.shape)) for phase in ("selection", "estimation")]
    draws = (streams[0].draw, streams[1].draw)
    return certify(model, classes, image, sigma, draws, n0=n0, n=n, alpha=ALPHA, batch_size=PUBLISHED_BATCH)


def loop(scale: Scale) -> dict[str, Any]:
    """Seconds a sample of the published loop and of this package, float32 and bfloat16, on a model of PLIP's size."""
    names, context, samples = list(KATHER.class_names), KATHER.initial_context, scale.clip_samples
    with temporary_clip(scale.clip) as vlm:
        image = random_image(vlm.input_shape)
        model = ZeroShotClassifier(vlm, names, f"{context} {{}}.")
        published = PromptedModel(vlm, names, context)
        plain = SmoothedClassifier(model, len(names), SIGMA, noise="float32")
        low = SmoothedClassifier(BFLOAT16.wrap(model), len(names), SIGMA, noise="float32")
        run = Encoded(vlm, model.text_features, fastest())
        fast = SmoothedClassifier(run, len(names), SIGMA, noise="float32")
        exact = SmoothedClassifier(Encoded(vlm, model.text_features, EXACT), len(names), SIGMA, noise="float32")
        settings: dict[str, Any] = {"n0": samples, "n": samples, "item_id": "a"}

        def theirs() -> Result:
            return published_loop(published, len(names), image, SIGMA, n0=samples, n=samples)

        sides: dict[str, Callable[[], object]] = {
            PUBLISHED: theirs,
            OURS: lambda: plain.certify(image, **settings),
            LOW: lambda: low.certify(image, **settings),
            PUBLISHED_LOW: torch.autocast("cpu", torch.bfloat16)(theirs),
            FAST: lambda: fast.certify(image, **settings),
            FAST_EXACT: lambda: exact.certify(image, **settings),
        }
        for one in (fast, exact):
            one.certify(image, n0=1, n=20)  # compiled
        times = alternate(sides, scale.repeats, warm=False)
        shares = {OURS: forward_share(model, len(names), image, samples, scale.repeats)}
        shares[LOW] = forward_share(BFLOAT16.wrap(model), len(names), image, samples, scale.repeats)
        shares[FAST] = forward_share(run, len(names), image, samples, scale.repeats)
        same = plain.certify(image, **settings).counts == tuple(theirs().estimation)
    each = {side: spread([run.seconds / (2 * samples) for run in runs]) for side, runs in times.items()}
    return {
        "parameters": vlm_size(scale.clip),
        "samples": 2 * samples,
        "classes": len(names),
        "seconds a sample": each,
        "speed-up a sample": {side: ratios(times[PUBLISHED], times[side]) for side in (OURS, LOW, FAST, FAST_EXACT)},
        "speed-up over its best": {side: ratios(times[PUBLISHED_LOW], times[side]) for side in (LOW, FAST)},
        "fast": str(fastest()),
        "bfloat16 over float32": ratios(times[OURS], times[LOW]),
        "equal counts": same,
        "forward share": shares,
    }


def vlm_size(size: ClipSize) -> str:
    """In words."""
    return f"ViT, {size.layers} layers of {size.width}, patches of {size.patch}, images of {size.image}"


class _Watched(nn.Module):
    """A model that adds up the time of its forward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seconds = 0.0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        begin = stopwatch()
        scores: Tensor = self.model(x)
        self.seconds += stopwatch() - begin
        return scores


def forward_share(model: Any, classes: int, image: Tensor, samples: int, repeats: int) -> dict[str, Any]:
    """Share of the time of ``certify`` that is spent inside the model."""
    watched = _Watched(model)
    smoothed = SmoothedClassifier(watched, classes, SIGMA, noise="float32")
    shares = []
    for _ in range(repeats):
        watched.seconds = 0.0
        total = timed(lambda: smoothed.certify(image, n0=samples, n=samples)).seconds
        shares.append(watched.seconds / total)
    return spread(shares)


def demo_shares(scale: Scale, places: Places) -> dict[str, Any]:
    """:func:`forward_share` on the demo model, at the published number of samples and under the default budget."""
    world = demo_world(places, 1)
    model = zero_shot(world)
    samples = scale.n // 5
    image = inputs(world)[0][1]
    return {OURS: forward_share(model, len(world.names), image, samples, scale.repeats), "samples": 2 * samples}


def demo_world(places: Places, images: int) -> World:
    """The demo model and its test images, evenly over the classes."""
    return open_world("demo", places, images, 0)


def zero_shot(world: World) -> ZeroShotClassifier:
    """Plain prompts."""
    return ZeroShotClassifier(world.vlm, world.names, f"{world.context} {{}}.")


def inputs(world: World) -> list[tuple[str, Tensor, int]]:
    """Ids, images in the certified space, labels."""
    loaded = [world.test.load(index) for index in range(len(world.test))]
    return [(one.id, world.vlm.preprocess(torch.from_numpy(one.pixels)), int(one.label or 0)) for one in loaded]


def images(scale: Scale, places: Places) -> dict[str, Any]:
    """Images of the demo certified from end to end, the published loop and the budgets in turn on each."""
    world = demo_world(places, scale.demo_images)
    published = PromptedModel(world.vlm, list(world.names), world.context)
    rows = []
    for sigma in scale.demo_sigmas:
        smoothed = SmoothedClassifier(zero_shot(world), len(world.names), sigma, noise="float32")
        smoothed.certify(inputs(world)[0][1], n0=scale.n0, n=scale.n0)
        rows += [_every_way(smoothed, published, one, scale) for one in inputs(world)]
    return {"rows": rows, "n0": scale.n0, "n": scale.n, "sides": [name for name in rows[0] if name not in ABOUT]}


ABOUT = ("sigma", "label")


def _every_way(
    smoothed: SmoothedClassifier, published: PromptedModel, one: tuple[str, Tensor, int], scale: Scale
) -> dict[str, Any]:
    """One image: seconds, estimation samples and radius of every side."""
    (item, x, label), sigma = one, smoothed.law.sigma
    begin = stopwatch()
    found = published_loop(published, smoothed.target.num_classes, x, sigma, n0=scale.n0, n=scale.n, item=item)
    row: dict[str, Any] = {"sigma": sigma, "label": label}
    row[PUBLISHED] = {"seconds": stopwatch() - begin, "samples": scale.n, "radius": found.radius}
    chosen = budgets(sigma, scale.n)
    kept = {"certimed, fixed n": Fixed(scale.n), **{name: chosen[name] for name in (BETTING, GRID, PLANNED)}}
    for name, budget in kept.items():
        begin = stopwatch()
        made = smoothed.certify(x, n0=scale.n0, budget=budget, item_id=item)
        row[name] = {"seconds": stopwatch() - begin, "samples": made.n, "radius": made.radius}
    return row


def verdicts(scale: Scale, places: Places) -> dict[str, Any]:
    """How many verdicts differ between float32 and bfloat16 on the same noise, on the trained demo model."""
    world = demo_world(places, scale.verdict_images)
    model, classes = zero_shot(world), len(world.names)
    different = {"prediction or abstention": 0, "place among the reported radii": 0}
    moved, radius, total = [], [], 0
    for sigma in scale.demo_sigmas:
        plain = SmoothedClassifier(model, classes, sigma, noise="float32")
        low = SmoothedClassifier(BFLOAT16.wrap(model), classes, sigma, noise="float32")
        for item, x, _ in inputs(world):
            a, b = (side.certify(x, n0=scale.n0, n=scale.verdict_n, item_id=item) for side in (plain, low))
            different["prediction or abstention"] += (a.prediction, a.abstained) != (b.prediction, b.abstained)
            different["place among the reported radii"] += _place(a) != _place(b)
            moved.append(sum(abs(p - q) for p, q in zip(a.counts, b.counts)) / (2 * scale.verdict_n))
            radius.append(abs(a.radius - b.radius) / sigma)
            total += 1
    return {
        "verdicts": total,
        "n": scale.verdict_n,
        "different": {name: count / total for name, count in different.items()},
        "counts moved": float(np.mean(moved)),
        "radius moved, in sigmas": float(np.mean(radius)),
    }


def _place(certificate: ClassCertificate) -> tuple[int, int]:
    reached = 0 if certificate.abstained else sum(certificate.radius > r for r in PUBLISHED_RADII)
    return (certificate.prediction if reached else -1, reached)
