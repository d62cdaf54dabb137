"""Build the segmentation demo: MNI152 slices, a small U-Net trained on clean ones, and a small DDPM in front of it.

    python -m training.demo_segmentation build      # images, U-Net, denoiser, measurement; about half an hour on a core
    python -m training.demo_segmentation compare    # time candidate denoisers; --steps N also trains them

Source: the ICBM 2009a nonlinear symmetric MNI152 template and its grey and white matter maps, as packaged by nilearn.
Axial slices at 1.5 mm. The test slices lie in whole slabs kept out of every training; it is still one average brain, so
the demo shows what a certificate is, not how a network generalises.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from certimed.denoising import Compose, DenoiserTraining, load_denoiser, train_denoiser, wrap_unet
from certimed.denoising.training import build_unet
from certimed.segmenters.small_unet import SmallUNet, load_small_unet
from training.certified_dice import CertifiedDice, certified_dice
from training.segmenter import SegmenterTraining, train_segmenter

ASSETS = Path(__file__).resolve().parents[1] / "src" / "certimed" / "assets"
WORK = Path("studies") / "demo_segmentation"
CLASS_NAMES = ("background", "grey matter", "white matter")
SIZE, WINDOW, CENTRE = 128, 192, (98, 118)
SLICES = range(30, 140)
TEST_SLABS = ((48, 54), (74, 80), (100, 106), (122, 128))
GUARD = 2
SHOWN = (49, 52, 75, 78, 101, 104, 123, 126)
SIGMAS = (0.25, 0.5)

UNET = SegmenterTraining(steps=600, batch=16, flip=True)
DENOISER = DenoiserTraining(
    prediction_type="sample", widths=(64, 96, 128), patch=8, steps=3000, augment="flip", bfloat16=True
)
CANDIDATES = {
    "patch 4, 48-64-96": replace(DENOISER, widths=(48, 64, 96), patch=4),
    "patch 4, 64-96-128": replace(DENOISER, patch=4),
    "patch 4, 64-128-192": replace(DENOISER, widths=(64, 128, 192), patch=4),
    "patch 2, 32-48-64-96": replace(DENOISER, widths=(32, 48, 64, 96), patch=2),
    "patch 8, 128-192": replace(DENOISER, widths=(128, 192)),
    "no patch, 16-32-64-96": replace(DENOISER, widths=(16, 32, 64, 96), patch=1),
}
TRAINED = ("patch 4, 64-96-128 (shipped before)", "patch 8, 64-96-128 (shipped)")
"""Trained to the end and measured on every test slice."""


CARD = """# Demo segmentation models

Two networks for `certimed demo`, both trained by `python -m training.demo_segmentation build` on axial slices (128x128
at 1.5 mm) of the ICBM 2009a nonlinear symmetric MNI152 template, classes background / grey matter / white matter from
its tissue maps, as packaged by nilearn.

* `demo_unet`: a small U-Net, {unet_steps} steps of 16 clean images. Geometry, contrast and blur are varied; noise is
  never added.
* `demo_denoiser`: a denoising diffusion model (diffusers layout, half-precision weights, x0-prediction, pixel blocks of
  8 folded into channels), {steps} steps of {batch}, timesteps up to sigma = {sigma:g} only.
* `demo_segmentation_images`: slices of four slabs kept out of both trainings with two guard slices on either side.

Not for clinical use. The template is one average brain: neighbouring slabs resemble each other, so the figures show
what a certificate is, not how a network generalises. Every slice is in the template's fixed pose, and the
denoiser relies on it: it is of no use for other scans.

## Measured

{count} test slices, mean over grey and white matter; n0 = 10, n = 100, tau = .75, alpha = .001, Holm; the denoiser runs
in bfloat16. "clean" is the U-Net alone on clean images, "noisy" the model on one noisy copy.

| sigma | model | clean | noisy | guaranteed Dice | certified Dice (published) | abstained |
|---|---|---|---|---|---|---|
"""
TRADEOFF = """
## Why it answers the clean image

Guaranteed Dice at sigma .25 / .5 on two of the test slices while training: velocity prediction with flips, turns and
shifts .277 / .154 after 600 steps; clean-image prediction with flips alone .372 / .144 after 200 and .632 / .544 after
600. The two differ in augmentation as well, so the gain is not all the target's; the grain that velocity prediction
left in the image (pixel noise it cannot reproduce through folded channels) was gone by step 200.

## Accuracy per second

Processor time of one 128x128 sample in a batch of 25 on one core (AMX bfloat16 where the processor has it), and
guaranteed Dice: of the candidates, trained for 150 steps of 16 images, on every second test slice; of those trained to
the end on every one.

| denoiser | parameters | steps | ms float32 | ms bfloat16 | guaranteed Dice at .25 | at .5 |
|---|---|---|---|---|---|---|
"""
UNTRAINED = "not trained"


@dataclass(frozen=True)
class Slices:
    """``images`` uint8 ``(N, 1, 128, 128)``, ``masks`` int64 ``(N, 128, 128)``, ``levels`` axial template indices."""

    images: NDArray[np.uint8]
    masks: NDArray[np.int64]
    levels: tuple[int, ...]


def load_slices(levels: list[int]) -> Slices:
    """Axial slices of the template, front up, and the most probable tissue of each pixel."""
    from nilearn import datasets

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images, masks = [], []
    t1, grey, white = (np.asarray(load(resolution=1).dataobj, dtype=np.float32) for load in loaders)
    for level in levels:
        pixels, gm, wm = (_resample(volume[:, :, level]) for volume in (t1, grey, white))
        images.append(np.round(pixels.clip(0, 1) * 255).astype(np.uint8)[None])
        masks.append(np.stack([1 - gm - wm, gm, wm]).argmax(axis=0))
    return Slices(np.stack(images), np.stack(masks).astype(np.int64), tuple(levels))


def _resample(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """A 192 mm square around the brain's middle at 1.5 mm, front of the head up."""
    rows, columns = (slice(centre - WINDOW // 2, centre + WINDOW // 2) for centre in CENTRE)
    square = torch.from_numpy(np.ascontiguousarray(plane[rows, columns].T[::-1]))
    small = F.interpolate(square[None, None], (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    resampled: NDArray[np.float32] = small[0, 0].numpy()
    return resampled


def training_levels() -> list[int]:
    """Axial indices outside the test slabs and their guard slices."""
    held_out = {i for first, last in TEST_SLABS for i in range(first - GUARD, last + GUARD)}
    return [i for i in SLICES if i not in held_out]


def write_images(slices: Slices, folder: Path) -> None:
    """``images/`` and ``masks/`` as 8-bit PNG; mask values are class numbers. ``classes.json`` names them."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image, mask, level in zip(slices.images, slices.masks, slices.levels):
        Image.fromarray(image[0]).save(folder / "images" / f"axial_{level:03d}.png", optimize=True)
        Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"axial_{level:03d}.png", optimize=True)
    (folder / "classes.json").write_text(json.dumps(list(CLASS_NAMES)) + "\n")


def build_segmenter() -> None:
    """Train the U-Net on clean training slices and write ``assets/demo_unet``."""
    train = load_slices(training_levels())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallUNet(1, len(CLASS_NAMES), (32, 64, 96))
    train_segmenter(model, train.images, train.masks, WORK / "unet", UNET, progress=_reporter("U-Net"))
    model.eval().save(ASSETS / "demo_unet")


def build_denoiser() -> None:
    """Train the DDPM on training slices and write ``assets/demo_denoiser``, weights in half precision to stay small."""
    train = load_slices(training_levels())
    folder = train_denoiser(train.images, WORK / "denoiser", DENOISER, progress=_reporter("denoiser"))
    target = ASSETS / "demo_denoiser"
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "certimed.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text((folder / name).read_text())
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    halved = {key: value.half() for key, value in weights.items()}
    save_file(halved, target / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def measure(denoiser_folder: Path, sigma: float, test: Slices) -> CertifiedDice:
    """Dice of the demo's U-Net behind one denoiser."""
    unet = load_small_unet(ASSETS / "demo_unet")
    denoiser = load_denoiser(f"diffusers:{denoiser_folder}", autocast=torch.bfloat16).at(sigma)
    images = torch.from_numpy(test.images).float() / 255
    return certified_dice(Compose(denoiser, unet), images, test.masks, sigma, len(CLASS_NAMES))


def milliseconds(config: DenoiserTraining, autocast: torch.dtype | None) -> float:
    """Processor time of one 128x128 sample in a batch of 25, best of three; does not depend on the weights."""
    unet: Any = build_unet(config, 1, (SIZE, SIZE))
    denoiser = wrap_unet(unet, {"prediction_type": "sample"}, patch=config.patch, autocast=autocast).at(0.5)
    batch = torch.rand(25, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    times = []
    with torch.inference_mode():
        for _ in range(4):
            begin = time.process_time()
            denoiser(batch)
            times.append(time.process_time() - begin)
    return 1000 * min(times[1:]) / len(batch)


def compare(steps: int) -> None:
    """Time every candidate; with ``steps`` > 0 also train each that long and certify every second test slice.

    The table is written after each; Dice of an earlier comparison as long is kept, so a stopped one goes on.
    """
    path = ASSETS / "demo_denoiser" / "tradeoff.json"
    rows: dict[str, dict[str, Any]] = {}
    if path.is_file():
        rows = {row["denoiser"]: row for row in json.loads(path.read_text())}
    for name, config in CANDIDATES.items():
        row = rows.setdefault(name, {"denoiser": name, "steps": 0, "dice": {}})
        row["parameters"] = sum(value.numel() for value in build_unet(config, 1, (SIZE, SIZE)).parameters())
        row["ms_float32"], row["ms_bfloat16"] = milliseconds(config, None), milliseconds(config, torch.bfloat16)
        if steps and row["steps"] != steps:
            test = load_slices(list(SHOWN[::2]))
            folder = WORK / "candidates" / name.replace(", ", "_").replace(" ", "")
            train_denoiser(load_slices(training_levels()).images, folder, replace(config, steps=steps))
            row["steps"], row["dice"] = steps, {f"{sigma:g}": asdict(measure(folder, sigma, test)) for sigma in SIGMAS}
        print(json.dumps(row), flush=True)
        path.write_text(json.dumps([rows[n] for n in (*CANDIDATES, *TRAINED) if n in rows], indent=2) + "\n")
    write_card()


def summarise() -> None:
    """Measure the finished demo with and without the denoiser and write the model card beside the weights."""
    test = load_slices(list(SHOWN))
    unet = load_small_unet(ASSETS / "demo_unet")
    images = torch.from_numpy(test.images).float() / 255
    result = {
        f"{sigma:g}": {
            "plain": asdict(certified_dice(unet, images, test.masks, sigma, len(CLASS_NAMES))),
            "denoised": asdict(measure(ASSETS / "demo_denoiser", sigma, test)),
        }
        for sigma in SIGMAS
    }
    print(json.dumps(result, indent=2))
    (ASSETS / "demo_denoiser" / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    write_card()


def write_card() -> None:
    """Write the model card from the stored results and the table of candidates."""
    card = ASSETS / "demo_denoiser"
    result = json.loads((card / "results.json").read_text())
    table = card / "tradeoff.json"
    rows = json.loads(table.read_text()) if table.is_file() else []
    (card / "README.md").write_text(model_card(result, rows))


def model_card(result: dict[str, dict[str, dict[str, float]]], rows: list[dict[str, Any]]) -> str:
    """What the demo's two networks are, how they were trained, what they reach and what they are not for."""
    text = CARD.format(
        steps=DENOISER.steps,
        batch=DENOISER.batch,
        unet_steps=UNET.steps,
        sigma=DENOISER.max_sigma,
        count=len(SHOWN),
    )
    for sigma, pair in result.items():
        for name, row in pair.items():
            text += f"| {sigma} | {name} | {row['clean']:.3f} | {row['noisy']:.3f} | {row['guaranteed']:.3f} "
            text += f"| {row['published']:.3f} | {row['abstained']:.3f} |\n"
    if rows:
        text += TRADEOFF
        for row in rows:
            trained = [row["dice"].get(f"{sigma:g}") for sigma in SIGMAS]
            dice = " | ".join(f"{cell['guaranteed']:.3f}" if cell else UNTRAINED for cell in trained)
            text += f"| {row['denoiser']} | {row['parameters'] / 1e6:.2f} M | {row['steps']} | {row['ms_float32']:.1f} "
            text += f"| {row['ms_bfloat16']:.1f} | {dice} |\n"
    return text


def _reporter(what: str) -> Callable[[int, float], None]:
    begin = time.perf_counter()

    def show(step: int, loss: float) -> None:
        print(f"{what}: step {step}, loss {loss:.4f}, {time.perf_counter() - begin:.0f} s", flush=True)

    return show


def main() -> None:
    stages = {
        "images": lambda: write_images(load_slices(list(SHOWN)), ASSETS / "demo_segmentation_images"),
        "unet": build_segmenter,
        "denoiser": build_denoiser,
        "compare": lambda: compare(arguments.steps),
        "summarise": summarise,
        "card": write_card,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["build", *stages])
    parser.add_argument("--steps", type=int, default=0, help="compare: training steps of every candidate")
    arguments = parser.parse_args()
    stage = arguments.stage
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    WORK.mkdir(parents=True, exist_ok=True)
    for name in ("images", "unet", "denoiser", "summarise") if stage == "build" else (stage,):
        stages[name]()


if __name__ == "__main__":
    main()
