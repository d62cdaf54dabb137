"""How large every part is: the full run behind the document, and a quick one that only shows that it runs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.models import PLIP, SMALL, ClipSize


@dataclass(frozen=True)
class Scale:
    """Sizes of one run; its name is kept with the results, so a quick result never passes for a full one.

    Attributes:
        n0, n: selection samples and cap (the published protocol in full).
        repeats: runs of each side of a comparison.
        recorded, replays: images a set whose full runs are recorded; orders each is replayed in.
        every: of the studies' images, every one so many is drawn.
        clip, clip_samples: the vision-language model, and samples of each phase on it.
        demo_images, demo_sigmas: certified end to end on the demo model.
        verdict_images, verdict_n: images, and samples a verdict, in either precision.
        side, mask_n, statistics_sides: images of the segmentation loop, its samples, sides for the statistics alone.
        memory_n: samples at which peak memory is compared.
        growth_n, sizes, classes, prompts, growth_samples: points of the growth curves.
        engine_side: side of the images that engines segment.
    """

    name: str = "full"
    n0: int = 100
    n: int = 10_000
    repeats: int = 3
    recorded: int = 2
    replays: int = 10
    every: int = 1
    clip: ClipSize = PLIP
    clip_samples: int = 30
    demo_images: int = 2
    demo_sigmas: tuple[float, ...] = (0.25, 0.5)
    verdict_images: int = 22
    verdict_n: int = 1_000
    side: int = 128
    mask_n: int = 100
    statistics_sides: tuple[int, ...] = (64, 128, 256, 512)
    memory_n: tuple[int, ...] = (400, 3_000, 20_000)
    growth_n: tuple[int, ...] = (100, 300, 1_000, 3_000)
    sizes: tuple[int, ...] = (64, 112, 160, 224)
    classes: tuple[int, ...] = (2, 8, 32, 128)
    prompts: tuple[int, ...] = (1, 2, 4, 8)
    growth_samples: int = 200
    engine_side: int = 128


FULL = Scale()
QUICK = Scale(
    name="quick",
    n0=20,
    n=1_000,
    repeats=1,
    recorded=1,
    replays=2,
    every=40,
    clip=SMALL,
    clip_samples=20,
    demo_images=1,
    demo_sigmas=(0.5,),
    verdict_images=2,
    verdict_n=50,
    side=64,
    mask_n=70,
    statistics_sides=(16, 32),
    memory_n=(200, 400),
    growth_n=(50, 100),
    sizes=(32, 64),
    classes=(2, 4),
    prompts=(1, 2),
    growth_samples=20,
    engine_side=64,
)
