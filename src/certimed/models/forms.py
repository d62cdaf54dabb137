"""How models are named on the command line: one table a kind of model, one row a form.

A row says how the form is written, what it loads, an example, and which function loads it. The functions are named and
imported when asked for, so that no form pays for another's libraries.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from certimed.errors import InputError

_ONNX = ".onnx"
_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")


@dataclass(frozen=True)
class Form:
    """One way to name a model.

    Attributes:
        usage: as written, e.g. ``"timm:NAME[:CHECKPOINT]"``.
        about: what is loaded, in a few words.
        example: one that could be typed.
        loader: ``"module:function"``; called with what follows the colon, the whole name, and settings.
        prompted: the same for the vision-language models of this form, which prompts are learnt for; "" where none.
    """

    usage: str
    about: str
    example: str
    loader: str
    prompted: str = ""


@dataclass(frozen=True)
class Forms:
    """All forms of one kind of model, by their prefix.

    Attributes:
        kind: what they load, in a word.
        command: what an example is the end of.
        rows: by prefix.
    """

    kind: str
    command: str
    rows: Mapping[str, Form]

    def split(self, spec: str) -> tuple[str, str] | None:
        """Prefix and the rest of a name with a known prefix, or of a bare ``.onnx`` file; None for any other.

        Raises:
            InputError: nothing follows the colon.
        """
        prefix, colon, rest = spec.partition(":")
        if not colon and spec.lower().endswith(_ONNX) and Path(spec).expanduser().is_file():
            return "onnx", spec
        if not colon or prefix not in self.rows:
            return None
        if not rest:
            raise InputError(f"the {self.kind} {spec!r} names nothing after the colon; write {self._written(prefix)}")
        return prefix, rest

    def loader(self, prefix: str, *, prompted: bool = False) -> Callable[..., Any]:
        """The function of a row."""
        row = self.rows[prefix]
        module, _, function = (row.prompted if prompted else row.loader).partition(":")
        found: Callable[..., Any] = getattr(import_module(module), function)
        return found

    def refusal(self, spec: str, reason: str = "", *, prompted: bool = False) -> InputError:
        """What to raise for a name that is none: the nearest form, all forms, and a command.

        Args:
            spec: the name.
            reason: what is wrong with it; default: it is of no known form.
            prompted: name forms of vision-language models only.
        """
        rows = {prefix: row for prefix, row in self.rows.items() if row.prompted or not prompted}
        nearest = self._nearest(spec, rows)
        usages = ", ".join(row.usage for row in rows.values())
        said = reason or f"{spec!r:.160} is of no known form"
        meant = f"did you mean {self._written(nearest)}? By name, " if nearest else ""
        example = rows[nearest or next(iter(rows))].example
        return InputError(
            f"the {self.kind} {said}; {meant}the forms are {usages}, demo, python:MODULE:FACTORY (code of your "
            f"own, with --allow-code), or a folder of these kinds; e.g. {self.command} {example}"
        )

    def _written(self, prefix: str) -> str:
        return f"{self.rows[prefix].usage} ({self.rows[prefix].about})"

    def _nearest(self, spec: str, rows: Mapping[str, Form]) -> str | None:
        """By the prefix as typed, or by the ending of a bare file."""
        prefix, colon, _ = spec.partition(":")
        ending = Path(spec).suffix.lower()
        wanted = "onnx" if ending == _ONNX else _OF_CHECKPOINTS.get(self.kind, "") if ending in _CHECKPOINTS else ""
        if wanted in rows and not (colon and prefix in self.rows):
            return wanted
        close = difflib.get_close_matches(prefix.lower().replace("-", "_"), rows, n=1, cutoff=0.5)
        return close[0] if close else None


_OF_CHECKPOINTS = {"classifier": "timm", "segmenter": "smp", "denoiser": "guided-diffusion"}
_ONNX_LOADS = "any framework's model, through onnxruntime"

CLASSIFIERS = Forms(
    "classifier",
    "certimed certify classes --data images/ --model",
    {
        "hf": Form(
            "hf:FOLDER_OR_ID",
            "transformers: CLIP, SigLIP, or any image classifier",
            "hf:vinid/plip",
            "certimed.classifiers.hugging_face:load_hugging_face",
            "certimed.vlm.loading:load_hugging_face",
        ),
        "timm": Form(
            "timm:NAME[:CHECKPOINT]",
            "a timm model, its own weights or yours; also timm:FOLDER_OR_ID",
            "timm:resnet18:weights.pth",
            "certimed.classifiers.timm_models:load_timm",
        ),
        "torchvision": Form(
            "torchvision:NAME[:CHECKPOINT]",
            "a torchvision model, its own weights or yours",
            "torchvision:resnet18:weights.pth",
            "certimed.classifiers.torchvision_models:load_torchvision",
        ),
        "onnx": Form(
            "onnx:FILE", _ONNX_LOADS, "onnx:model.onnx --size 224x224", "certimed.classifiers.onnx_files:load_onnx"
        ),
        "open_clip": Form(
            "open_clip:hf-hub:ORG/NAME, open_clip:FOLDER or open_clip:NAME:CHECKPOINT",
            "an open_clip or CoCa model, or open_clip's training output",
            "open_clip:hf-hub:wisdomik/QuiltNet-B-32",
            "certimed.vlm.open_clip_loading:load_open_clip",
            "certimed.vlm.open_clip_loading:load_open_clip",
        ),
        "biomedclip": Form(
            "biomedclip[:FOLDER]",
            "BiomedCLIP",
            "biomedclip",
            "certimed.vlm.open_clip_loading:load_biomedclip",
            "certimed.vlm.open_clip_loading:load_biomedclip",
        ),
        "medclip": Form(
            "medclip:FOLDER",
            "MedCLIP",
            "medclip:my_medclip/",
            "certimed.vlm.medclip:load_medclip",
            "certimed.vlm.medclip:load_medclip",
        ),
    },
)
SEGMENTERS = Forms(
    "segmenter",
    "certimed certify masks --data images/ --model",
    {
        "smp": Form(
            "smp:FOLDER or smp:ARCH:ENCODER:CHECKPOINT",
            "segmentation_models_pytorch",
            'smp:Unet:resnet34:weights.pth --output "binary logit"',
            "certimed.segmenters.smp:load_smp",
        ),
        "monai": Form(
            "monai:FOLDER",
            "a MONAI bundle",
            "monai:my_bundle/ --output logits",
            "certimed.segmenters.monai:monai_bundle",
        ),
        "nnunet": Form(
            "nnunet:FOLDER[:CONFIGURATION]",
            "an nnU-Net v2 result folder, 2d or 3d",
            "nnunet:Dataset001_X/nnUNetTrainer__nnUNetPlans__3d_fullres --volume",
            "certimed.segmenters.nnunet:nnunet_folder",
        ),
        "hf": Form(
            "hf:FOLDER_OR_ID",
            "transformers semantic segmentation, e.g. SegFormer",
            "hf:my_segformer/",
            "certimed.segmenters.transformers:transformers_segmenter",
        ),
        "sam": Form(
            "sam:FOLDER_OR_ID",
            "transformers' SamModel, e.g. MedSAM: a box or click per image",
            "sam:my_medsam/",
            "certimed.segmenters.sam:sam_segmenter",
        ),
        "onnx": Form(
            "onnx:FILE", _ONNX_LOADS, "onnx:model.onnx --output logits", "certimed.segmenters.onnx_files:load_onnx"
        ),
        "unet": Form(
            "unet:FOLDER", "certimed's own small U-Net", "unet:my_unet/", "certimed.segmenters.loading:small_unet"
        ),
    },
)
DENOISERS = Forms(
    "denoiser",
    "certimed certify masks --data images/ --model smp:my_unet/ --denoiser",
    {
        "diffusers": Form(
            "diffusers:FOLDER_OR_ID",
            "an unconditional UNet2DModel with its scheduler",
            "diffusers:my_ddpm/",
            "certimed.denoising.loading:load_diffusers",
        ),
        "guided-diffusion": Form(
            "guided-diffusion:FILE",
            "OpenAI's guided-diffusion 256x256 checkpoint",
            "guided-diffusion:256x256_diffusion_uncond.pt",
            "certimed.denoising.loading:load_guided",
        ),
        "onnx": Form(
            "onnx:FILE", "noisy images to clean ones, any framework", "onnx:dncnn.onnx",
            "certimed.denoising.loading:load_onnx",
        ),
    },
)  # fmt: skip
