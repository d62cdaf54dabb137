"""``certimed train denoiser`` and ``certimed convert``: get a denoiser that knows your kind of image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certimed.cli import options as opt
from certimed.cli.console import harmless, one_sentence_errors, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from certimed.data import Dataset

app = typer.Typer(
    help="Train the parts certification needs on your own images.", no_args_is_help=True, rich_markup_mode="rich"
)

HELP = """Train a small denoising diffusion model on your own images; interrupted, the same command goes on.

An ImageNet model is out of domain for X-rays: train on images like those you certify, never on the test images.

[bold]Examples[/]

  certimed train denoiser --data xrays/train --size 128x128 --channels 1 --out my_ddpm

  certimed train denoiser --data slides/train --size 256x256 --steps 5000 --augment flip --device cuda --out my_ddpm
"""
CONVERT_HELP = """Convert OpenAI's guided-diffusion checkpoint into a diffusers folder.

[bold]Examples[/]

  certimed convert 256x256_diffusion_uncond.pt guided_256/
"""
_TRAINING = "Training"


_Widths = Annotated[str, typer.Option(help="Channels of each level, multiples of 8.", rich_help_panel=_TRAINING)]
_Patch = Annotated[
    int, typer.Option(help="Pixel blocks folded into channels; 1 sharpest, 8 fastest.", rich_help_panel=_TRAINING)
]
_Augment = Annotated[
    str, typer.Option(help="none, flip, jitter, affine; no flip where sides matter.", rich_help_panel=_TRAINING)
]


@app.command(help=HELP)
def denoiser(
    data: opt.Data = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder to write, or to go on with.")] = None,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH the images are resized to.")] = "128x128",
    channels: Annotated[int, typer.Option(help="1 grey or 3 colour.")] = 1,
    steps: Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING)] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.", rich_help_panel=_TRAINING)] = 16,
    learning_rate: Annotated[float, typer.Option(rich_help_panel=_TRAINING)] = 1e-3,
    widths: _Widths = "64,128,192",
    patch: _Patch = 4,
    max_sigma: Annotated[float, typer.Option(help="Largest noise level needed.", rich_help_panel=_TRAINING)] = 1.0,
    augment: _Augment = "jitter",
    bfloat16: Annotated[bool, typer.Option(help="Train in bfloat16 autocast.", rich_help_panel=_TRAINING)] = False,
    checkpoint_every: Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING)] = 200,
    seed: opt.Seed = 0,
    split: opt.Split = None,
    window: opt.Window = None,
    frame: opt.Frame = 0,
    axis: opt.Axis = "axial",
    slice_: opt.Slice = None,
    device: opt.Device = "auto",
) -> None:
    """See :data:`HELP`."""
    with one_sentence_errors():
        import numpy as np

        from certimed.cli import inputs
        from certimed.denoising import DenoiserTraining, train_denoiser
        from certimed.errors import InputError
        from certimed.runs import DataSpec

        if channels not in (1, 3):
            raise InputError(f"--channels {channels} is unusual; use 1 for grey or 3 for colour images")
        shape = inputs.size("--size", size)
        reading = inputs.read_options(window=window, frame=frame, axis=axis, slice_=slice_)
        source = DataSpec(str(inputs.needed("--data", data, "xrays/train")), split=split, reading=reading)
        target = inputs.needed("--out", out_folder, "my_ddpm")
        config = DenoiserTraining(
            widths=tuple(int(width) for width in inputs.numbers("--widths", widths)),
            patch=patch,
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            max_sigma=max_sigma,
            augment=augment,
            bfloat16=bfloat16,
            seed=seed,
        )
        images = _prepared(source.open(), channels, shape)
        say(f"training on {len(images)} images of {size}, {steps} steps of {batch}")

        def report(step: int, loss: float) -> None:
            say(f"step {step}/{steps}, loss {loss:.4f}")

        folder = train_denoiser(
            np.stack(images), target, config, device=device, checkpoint_every=checkpoint_every, progress=report
        )
        place, samples = harmless(str(folder)), harmless(str(folder / "samples.png"))
        say(f"denoiser written to {place}; look at {samples}")


def _prepared(dataset: Dataset, channels: int, shape: tuple[int, int] | None) -> list[NDArray[np.float32]]:
    """Every image at the training's size and number of channels."""
    import torch

    from certimed.operators import apply
    from certimed.segmenters.native import mask_geometry

    images = []
    for index in range(len(dataset)):
        pixels = torch.from_numpy(dataset.load(index).pixels)
        pixels = apply(mask_geometry(tuple(pixels.shape), channels, shape), pixels)
        images.append(pixels.expand(channels, -1, -1).clamp(0, 1).numpy())
    return images


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="256x256_diffusion_uncond.pt or one of its layout.")],
    folder: Annotated[Path, typer.Argument(help="New diffusers folder.")],
) -> None:
    """See :data:`CONVERT_HELP`."""
    with one_sentence_errors():
        from certimed.denoising import convert_guided_diffusion

        written = convert_guided_diffusion(checkpoint, folder)
        place = harmless(str(written))
        say(f"written to {place}; use it as --denoiser {place}")
