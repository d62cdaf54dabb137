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
Workers = Annotated[int, typer.Option(min=1, help="Worker processes.", rich_help_panel=_RUN)]
_MASKS = "Segmentation"
Masks = Annotated[
    Path | None, typer.Option(help="Folder of masks, if not masks/ beside images/.", rich_help_panel=_MASKS)
]
Denoiser = Annotated[
    str | None,
    typer.Option(help="Denoiser in front: a diffusers folder or id, guided-diffusion:FILE.pt.", rich_help_panel=_MASKS),
]
Output = Annotated[
    str | None,
    typer.Option(
        help="What the network returns, where its files do not say: logits, probabilities, 'binary logit'.",
        rich_help_panel=_MASKS,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all noise.", rich_help_panel=_NOISE)]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Noisy copies a forward pass; does not change the noise."),
]
Progress = Annotated[str, typer.Option(help="bar, plain, none or auto.", rich_help_panel=_RUN)]
