"""Sections about segmentation: the published loop behind a denoiser, and its statistics alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.models import denoised_segmenter
from benchmarks.performance.engines import EXACT, fastest
from benchmarks.performance.replay import ALPHA
from benchmarks.performance.settings import Scale
from benchmarks.reference.segcertify import all_predictions, segcertify, test_pixels
from benchmarks.timing import alternate, ratios, seconds, spread, timed
from certimed.engine import Acceleration
from certimed.noise import NoiseKey, NoiseStream
from certimed.segmentation import SmoothedSegmenter
from certimed.statistics import count_threshold

PUBLISHED, OURS, LOW = "published loop", "certimed, float32", "certimed, bfloat16"
PUBLISHED_LOW = "published loop, bfloat16 autocast"
FAST, FAST_EXACT = "certimed, OpenVINO", "certimed, OpenVINO float32"
SIGMA, TAU, N0, CLASSES = 0.25, 0.75, 10, 2
INNER = 20


def loop(scale: Scale) -> dict[str, Any]:
    """One image through U-Net and denoiser: the published loop against this package at the same n."""
    side, n = scale.side, scale.mask_n
    model = denoised_segmenter(SIGMA, side, CLASSES)
    image = smooth_image(side)
    plain = SmoothedSegmenter(model, CLASSES, SIGMA, noise="float32")
    low = SmoothedSegmenter(Acceleration("bfloat16", channels_last=True).wrap(model), CLASSES, SIGMA, noise="float32")
    fast, exact = (SmoothedSegmenter(how.wrap(model), CLASSES, SIGMA, noise="float32") for how in (fastest(), EXACT))
    settings: dict[str, Any] = {"n0": N0, "n": n, "tau": TAU, "alpha": ALPHA, "item_id": "a"}
    masks: dict[str, NDArray[np.bool_]] = {}

    def published() -> None:
        masks[PUBLISHED] = published_loop(model, image, n)

    def ours(name: str, segmenter: SmoothedSegmenter) -> Callable[[], None]:
        def certify() -> None:
            masks[name] = segmenter.certify(image, **settings).certified

        return certify

    sides = {PUBLISHED: published, OURS: ours(OURS, plain), LOW: ours(LOW, low)}
    sides |= {PUBLISHED_LOW: torch.autocast("cpu", torch.bfloat16)(published), FAST: ours(FAST, fast)}
    sides[FAST_EXACT] = ours(FAST_EXACT, exact)
    for one in (fast, exact):
        one.certify(image, n0=1, n=60, tau=TAU)  # compiled
    times = alternate(sides, scale.repeats, warm=False)
    return {
        "side": side,
        "n": n,
        "n0": N0,
        "seconds": {name: seconds(runs) for name, runs in times.items()},
        "speed-up": {name: ratios(times[PUBLISHED], times[name]) for name in (OURS, LOW, FAST, FAST_EXACT)},
        "speed-up over its best": {name: ratios(times[PUBLISHED_LOW], times[name]) for name in (LOW, FAST)},
        "fast": str(fastest()),
        "pixels that differ": {
            name: float((masks[PUBLISHED] != masks[name]).mean()) for name in (OURS, LOW, FAST, FAST_EXACT)
        },
        "certified": float(masks[PUBLISHED].mean()),
    }


def published_loop(model: nn.Module, image: Tensor, n: int) -> NDArray[np.bool_]:
    """Certified pixels, on the engine's own noise: one copy at a time, all predictions kept, a test a pixel."""
    streams = {phase: NoiseStream(NoiseKey(0, "a", phase), tuple(image.shape)) for phase in ("selection", "estimation")}
    votes = [
        all_predictions(model, (image + SIGMA * streams[phase].draw(1)[0] for _ in range(count)))
        for phase, count in (("selection", N0), ("estimation", n))
    ]
    return segcertify(*votes, tau=TAU, alpha=ALPHA)[1]


def smooth_image(side: int) -> Tensor:
    """One channel in [0, 1]: low frequencies, so that neighbouring pixels agree as in a radiograph."""
    coarse = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)[0]


def statistics(scale: Scale) -> dict[str, Any]:
    """From agreement counts to certified pixels: a binomial test a pixel and a sort, against one count threshold."""
    found = {}
    for side in scale.statistics_sides:
        counts = agreement_counts(side, scale.mask_n)
        runs = scale.repeats if side == scale.statistics_sides[-1] else 1
        equal = bool((published_tests(counts, scale.mask_n) == our_tests(counts, scale.mask_n)).all())
        theirs, mine = [], []
        for _ in range(runs):
            theirs.append(timed(lambda: published_tests(counts, scale.mask_n)).seconds)  # noqa: B023 - called at once
            mine.append(timed(lambda: [our_tests(counts, scale.mask_n) for _ in range(INNER)]).seconds / INNER)  # noqa: B023
        found[str(side)] = {
            PUBLISHED: spread(theirs),
            "certimed": spread(mine),
            "speed-up": spread([a / b for a, b in zip(theirs, mine)]),
            "equal masks": equal,
        }
    return {"n": scale.mask_n, "sides": found}


def agreement_counts(side: int, n: int) -> NDArray[np.int16]:
    """Counts of pixels whose probability falls from one to a half across the image."""
    rng = np.random.default_rng(0)
    p = np.linspace(0.5, 1.0, side * side).reshape(side, side)
    return rng.binomial(n, p).astype(np.int16)


def published_tests(counts: NDArray[np.int16], n: int) -> NDArray[np.bool_]:
    """As published."""
    return test_pixels(counts.ravel().astype(np.int64), n, tau=TAU, alpha=ALPHA).reshape(counts.shape)


def our_tests(counts: NDArray[np.int16], n: int) -> NDArray[np.bool_]:
    """Holm's procedure as one count threshold."""
    threshold = count_threshold(np.bincount(counts.ravel(), minlength=n + 1), n, TAU, ALPHA)
    return np.zeros(counts.shape, dtype=bool) if threshold is None else np.asarray(counts >= threshold)
