"""What measurements cost beside the masks they are read off: the same noisy copies with and without them.

    python -m benchmarks.measurements

CPU seconds of this process, the least of some repeats, as disturbances only ever add.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from certimed.assets import asset
from certimed.budgets import Fixed
from certimed.data import read_image
from certimed.denoising import Compose, load_denoiser
from certimed.engine import PLAIN, Engine, ModelStream, Scores
from certimed.measurements import parse_measurement
from certimed.noise import as_law
from certimed.segmenters import load_segmenter
from certimed.targets import Interval, Pixels

SIGMA = 0.25
CLASSES = ("background", "grey matter", "white matter")
KINDS = ("area", "count", "diameter", "centroid_x", "intensity", "dice")
PICTURE = asset("demo_segmentation_images") / "images" / "axial_049.png"


@dataclass(frozen=True)
class Cost:
    """CPU seconds with the masks alone and with measurements, for one image.

    Attributes:
        masks, both: seconds.
        copies: noisy copies.
    """

    masks: float
    both: float
    copies: int

    @property
    def share(self) -> float:
        """What the measurements add, of the masks' seconds."""
        return self.both / self.masks - 1


def cost(measurements: Sequence[str], *, denoised: bool, n: int = 100, repeats: int = 3) -> Cost:
    """Measure on the demo's first image.

    Args:
        measurements: spellings, of the demo's classes.
        denoised: the demo denoiser in front.
        n: estimation samples.
        repeats: of each; the least counts.
    """
    model: nn.Module = load_segmenter(str(asset("demo_unet")))
    if denoised:
        model = Compose(load_denoiser(str(asset("demo_denoiser")), torch.device("cpu")).at(SIGMA).eval(), model).eval()
    image = torch.from_numpy(read_image(PICTURE).pixels)
    measured = tuple(parse_measurement(text, CLASSES) for text in measurements)
    truth = torch.zeros(image.shape[1:], dtype=torch.int64).numpy()
    pixels, interval = Pixels(3), Interval(3, measured, (0.1,), truth=truth)
    law = as_law("grid", SIGMA)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for targets in ([pixels], [pixels, interval]):
            streams = {PLAIN: ModelStream(model)}
            engine = Engine(streams, [Scores(PLAIN)], law, space="model input", device=torch.device("cpu"))
            begin = time.process_time()
            engine.run(image, targets, Fixed(n), n0=10, clean=False)
            found[len(targets)].append(time.process_time() - begin)
    return Cost(min(found[1]), min(found[2]), n + 10)


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print(f"{'measurement':<28}{'denoiser':<10}{'masks, s':>10}{'both, s':>10}{'added':>8}")
    for denoised in (False, True):
        for kinds in [(kind,) for kind in KINDS] if not denoised else [KINDS]:
            texts = [f"{kind}:grey matter" for kind in kinds]
            one = cost(texts, denoised=denoised, repeats=1 if denoised else 3)
            name = kinds[0] if len(kinds) == 1 else f"all {len(kinds)}"
            print(f"{name:<28}{'yes' if denoised else 'no':<10}{one.masks:>10.2f}{one.both:>10.2f}{one.share:>8.1%}")


if __name__ == "__main__":
    main()
