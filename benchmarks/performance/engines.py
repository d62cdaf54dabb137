"""Section about engines: forward passes of the same model, in every engine and precision, one beside the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import clip_sized, denoised_segmenter
from benchmarks.performance.settings import Scale
from benchmarks.timing import alternate, ratios, spread
from certimed.assets import asset
from certimed.engine import Acceleration, ModelStream
from certimed.errors import InputError, MissingExtraError
from certimed.segmenters.small_unet import load_small_unet
from certimed.vlm import VisionLanguageModel, cosine_logits

BARE, BARE_LOW = "PyTorch, float32", "PyTorch, bfloat16 autocast"
SIDES = {
    "OpenVINO, float32": Acceleration(engine="openvino"),
    "OpenVINO, bfloat16": Acceleration("bfloat16", engine="openvino"),
    "onnxruntime, float32": Acceleration(engine="onnxruntime"),
}
BATCH = 32


EXACT = SIDES["OpenVINO, float32"]


def fastest() -> Acceleration:
    """OpenVINO in the lowest precision that this processor has."""
    try:
        SIDES["OpenVINO, bfloat16"].wrap(nn.Identity().eval())
    except InputError:
        return EXACT
    return SIDES["OpenVINO, bfloat16"]


class Encoded(nn.Module):
    """A prompted classifier whose image encoder runs in an engine, as in a run; text features stay float32."""

    def __init__(self, vlm: VisionLanguageModel, text: Tensor, acceleration: Acceleration) -> None:
        super().__init__()
        self.stream, self.text, self.scale = ModelStream(vlm, acceleration=acceleration), text, vlm.logit_scale
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, K)``."""
        return cosine_logits(self.stream(x), self.text, self.scale)


def engines(scale: Scale) -> dict[str, Any]:
    """Seconds a sample of bare forward passes, on models of the sizes that users have."""
    with tempfile.TemporaryDirectory() as folder:
        vlm = clip_sized(Path(folder), scale.clip)
    models: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "ViT, PLIP's size": (_Encoder(vlm), vlm.input_shape),
        "demo U-Net": (load_small_unet(asset("demo_unet")), (1, 128, 128)),
        "denoiser and U-Net (ResNet-18)": (denoised_segmenter(0.25, scale.engine_side), (1, *2 * (scale.engine_side,))),
    }
    return {"batch": BATCH, "models": {name: _one(model, shape, scale) for name, (model, shape) in models.items()}}


class _Encoder(nn.Module):
    def __init__(self, vlm: VisionLanguageModel) -> None:
        super().__init__()
        self.vlm = vlm
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.vlm.encode_image(x)


def _one(model: nn.Module, shape: tuple[int, ...], scale: Scale) -> dict[str, Any]:
    x = torch.rand((BATCH, *shape), generator=torch.Generator().manual_seed(0))

    def bare(low: bool) -> Callable[[], object]:
        def run() -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
                found: Tensor = model(x)
                return found

        return run

    sides, missing = {BARE: bare(False), BARE_LOW: bare(True)}, {}
    for name, acceleration in SIDES.items():
        try:
            wrapped = acceleration.wrap(model)
            with torch.no_grad():
                wrapped(x)
        except (InputError, MissingExtraError) as error:
            missing[name] = str(error)
            continue
        sides[name] = torch.no_grad()(lambda run=wrapped: run(x))
    times = alternate(sides, scale.repeats)
    return {
        "seconds a sample": {name: spread([run.seconds / BATCH for run in runs]) for name, runs in times.items()},
        "over bfloat16": {name: ratios(times[BARE_LOW], runs) for name, runs in times.items()},
        "missing": missing,
    }
