"""Options that several verbs share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_DATA = "Data"
_NOISE = "Smoothing"

Model = Annotated[
    str | None,
    typer.Option(
        help="hf:ORG/NAME, open_clip:hf-hub:ORG/NAME, medclip:FOLDER, a folder, demo; your own: python:MODULE:FACTORY."
    ),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Consent to run the code of a python: model; read it first.")
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder of images or class subfolders, a single image, or an .npz.", rich_help_panel=_DATA),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="CSV with columns image,label for a flat folder.", rich_help_panel=_DATA),
]
Split = Annotated[
    str | None,
    typer.Option(help="Part of the data set to use, e.g. test, where it names its parts.", rich_help_panel=_DATA),
]
Window = Annotated[
    str | None,
    typer.Option(help="DICOM window as CENTER,WIDTH; default: the header's.", rich_help_panel=_DATA),
]
Frame = Annotated[int, typer.Option(min=0, help="Frame of multi-frame files, counted from 0.", rich_help_panel=_DATA)]
Axis = Annotated[str, typer.Option(help="NIfTI plane: sagittal, coronal or axial.", rich_help_panel=_DATA)]
Slice = Annotated[
    int | None,
    typer.Option("--slice", help="NIfTI slice, counted from 0; default: the middle one.", rich_help_panel=_DATA),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Use the first N images only (class-balanced where labelled).", rich_help_panel=_DATA),
]
Classes = Annotated[
    str | None,
    typer.Option(help="Class names in words, separated by commas, or a text file with one a line; FOLDER=WORDS maps."),
]
Template = Annotated[
    list[str] | None,
    typer.Option(help="Caption with {} where the class name goes; repeat for several, which are averaged."),
]
_RUN = "Running"
Resume = Annotated[
    Path | None,
    typer.Option(help="Run folder to go on with, by its own options if no other is given.", rich_help_panel=_RUN),
]
RetryFailed = Annotated[bool, typer.Option(help="Do failed images again (with --resume).", rich_help_panel=_RUN)]
ShardOf = Annotated[
    str | None, typer.Option("--shard", help="Part I of N of the images, as I/N.", rich_help_panel=_RUN)
]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes.", rich_help_panel=_RUN)]
ExecutorName = Annotated[str, typer.Option("--executor", help="local or ray.", rich_help_panel=_RUN)]
Address = Annotated[str | None, typer.Option(help="Address of the Ray cluster, e.g. auto.", rich_help_panel=_RUN)]
_PROMPTS = "Prompts"
Prompts = Annotated[
    str,
    typer.Option(
        help="Methods and prompt files, by commas: none, zero-shot, both, per-sample, split, denoised, FILE.",
        rich_help_panel=_PROMPTS,
    ),
]
InitialContext = Annotated[
    str | None,
    typer.Option(help="Words a context starts from; default: the template's, before {}.", rich_help_panel=_PROMPTS),
]
Copies = Annotated[int, typer.Option(min=1, help="Noisy copies for per-image tuning.", rich_help_panel=_PROMPTS)]
TuningSteps = Annotated[int, typer.Option(min=1, help="Steps of per-image tuning.", rich_help_panel=_PROMPTS)]
TuningRate = Annotated[float, typer.Option(help="Learning rate of per-image tuning.", rich_help_panel=_PROMPTS)]
Sigma = Annotated[
    float, typer.Option(help="Noise standard deviation in [0, 1] intensity units.", rich_help_panel=_NOISE)
]
SelectionSamples = Annotated[
    int | None,
    typer.Option("--n0", help="Noisy copies that choose the class; 100, or 10 a mask.", rich_help_panel=_NOISE),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--n", help="So many noisy copies bound its probability (--budget fixed:N); 100 a mask.", rich_help_panel=_NOISE
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop sampling once the answer is known, alpha covering all looks: grid (default: published radii, "
        "at most 10000 copies), grid:0,0.25,0.5@N, betting:RADIUS, precision:5%, looks:100,1000,10000, fixed:N; masks: "
        "pixels:100,200,400/0.01.",
        rich_help_panel=_NOISE,
    ),
]
Protocol = Annotated[
    str | None,
    typer.Option(help="published: the paper's --n0 and --n, exactly.", rich_help_panel=_NOISE),
]
_MASKS = "Segmentation"
Masks = Annotated[
    Path | None, typer.Option(help="Folder of masks, if not masks/ beside images/.", rich_help_panel=_MASKS)
]
Denoiser = Annotated[
    str | None,
    typer.Option(help="Denoiser in front: a diffusers folder or id, guided-diffusion:FILE.pt.", rich_help_panel=_MASKS),
]
Methods = Annotated[
    str | None,
    typer.Option(help="plain, denoised or both; default: all that can be had.", rich_help_panel=_MASKS),
]
Tau = Annotated[
    str,
    typer.Option(
        help="Agreement to exceed; sets the radius. Several by commas, fixed beforehand: alpha is shared.",
        rich_help_panel=_MASKS,
    ),
]
Correction = Annotated[str, typer.Option(help="holm or bonferroni.", rich_help_panel=_MASKS)]
Size = Annotated[
    str | None,
    typer.Option(
        help="Resize to HEIGHTxWIDTH first; default: native. Also the input size of a python: classifier.",
        rich_help_panel=_MASKS,
    ),
]
Empty = Annotated[
    str, typer.Option(help="Dice of a class absent from truth and answer: one, zero, skip.", rich_help_panel=_MASKS)
]
Output = Annotated[
    str | None,
    typer.Option(
        help="What the network returns, where its files do not say: logits, probabilities, 'binary logit'.",
        rich_help_panel=_MASKS,
    ),
]
Pictures = Annotated[int, typer.Option(min=0, help="Panels to draw of the first N images.", rich_help_panel=_MASKS)]
Alpha = Annotated[float, typer.Option(help="Failure probability of each certificate.", rich_help_panel=_NOISE)]
Bound = Annotated[str, typer.Option(help="one-sided, two-sided or best.", rich_help_panel=_NOISE)]
Seed = Annotated[int, typer.Option(help="Seed of all noise.", rich_help_panel=_NOISE)]
Space = Annotated[
    str,
    typer.Option(
        help="Where noise is added and radii live: input (after resizing) or native (before it).",
        rich_help_panel=_NOISE,
    ),
]
_SPEED = "Speed"
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
AutoBatchSize = Annotated[
    str | None,
    typer.Option(
        "--batch-size",
        help="Noisy copies a forward pass, or auto: probed once, then recorded; does not change the noise.",
        rich_help_panel=_SPEED,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16 or (GPU) float16: what is certified is the model that ran.", rich_help_panel=_SPEED
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model first; takes a minute.", rich_help_panel=_SPEED)
]
ChannelsLast = Annotated[
    bool,
    typer.Option("--channels-last", help="Memory layout that suits some convolutions.", rich_help_panel=_SPEED),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Noisy copies a forward pass; does not change the noise."),
]
Progress = Annotated[str, typer.Option(help="bar, plain, none or auto.", rich_help_panel=_RUN)]
