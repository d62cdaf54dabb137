"""One row for every kind of weights file the project loads: how it is written, loaded and asked for an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from vlm_families import FAMILIES, write_medclip

State = dict[str, Tensor]


def read(path: Path) -> State:
    """The tensors of a file, without the project's reader."""
    state: State = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return state


def write(path: Path, state: Mapping[str, Any]) -> None:
    """The file again, in its own format."""
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path, {"format": "pt"})
    else:
        torch.save(dict(state), path)


@dataclass(frozen=True)
class FileKind:
    """One row.

    Attributes:
        write: puts a small random model into a folder.
        file: its weights file there.
        tensor: name of one of its tensors, which no other is tied to.
        load: the loader under test, given the folder.
        answer: what the loaded model says of an image.
    """

    write: Callable[[Path], object]
    file: str
    tensor: str
    load: Callable[[Path], Any]
    answer: Callable[[Any], Tensor]


def grey(*shape: int) -> Tensor:
    """A fixed random image."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def _vlm(family: str, file: str, tensor: str, write: Callable[[Path], object] | None = None) -> FileKind:
    from certimed.vlm import load

    def answer(model: Any) -> Tensor:
        image = grey(1, *model.input_shape)
        return torch.cat([model.encode_image(image), model.encode_texts(["melanoma"])])

    row = FAMILIES[family]
    return FileKind(write or row.write, file, tensor, lambda folder: load(f"{row.spec}{folder}"), answer)


def _smp(folder: Path) -> Any:
    import segmentation_models_pytorch as smp

    network = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=2)
    network.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "w.pt")
    return network


def _monai(folder: Path) -> None:
    from monai.networks.nets import UNet

    shape = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    for name in ("configs", "models"):
        (folder / name).mkdir()
    document = {"network_def": {"_target_": "UNet", **shape}}
    (folder / "configs" / "inference.json").write_text(json.dumps(document))
    torch.save(UNet(**shape).state_dict(), folder / "models" / "model.pt")


def _segformer(folder: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    sizes = {"depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1] * 4}
    config = SegformerConfig(**sizes, decoder_hidden_size=16, num_labels=3)
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor().save_pretrained(folder)


def unet(**changes: Any) -> Any:
    """A small U-Net of diffusers with one attention."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        **{
            "sample_size": 16, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "norm_num_groups": 4,
            "layers_per_block": 1, "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
            **changes,
        }
    )  # fmt: skip


def write_diffusers(folder: Path, **changes: Any) -> None:
    """A folder of a diffusion pipeline."""
    from diffusers import DDPMScheduler

    unet(**changes).save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")


def _guided(folder: Path) -> None:
    from guided_diffusion_files import SMALL, random_checkpoint

    torch.save(random_checkpoint(SMALL), folder / "guided.pt")


def _load_guided(folder: Path) -> Any:
    from guided_diffusion_files import SMALL

    from certimed.denoising import wrap_unet
    from certimed.denoising.guided_diffusion import SCHEDULER_CONFIG, read_guided_diffusion

    network, notes = read_guided_diffusion(folder / "guided.pt", SMALL)
    return wrap_unet(network, SCHEDULER_CONFIG, notes=notes)


def _small_unet(folder: Path) -> None:
    from certimed.segmenters import SmallUNet

    SmallUNet(1, 2, (4, 8)).save(folder)


def _segment(spec: str, **settings: Any) -> Callable[[Path], Any]:
    from certimed.segmenters import load_segmenter

    return lambda folder: load_segmenter(spec.format(folder), **settings)


def _denoise(folder: Path) -> Any:
    from certimed.denoising import load_denoiser

    return load_denoiser(folder)


def _mask(model: Any) -> Tensor:
    scores: Tensor = model(grey(1, model.in_channels, 64, 64))
    return scores


def _denoised(model: Any) -> Tensor:
    clean: Tensor = model.at(0.25)(grey(1, 3, 32, 32))
    return clean


CHECKPOINT = {"output": "logits", "normalise": "none"}
FILES = {
    "transformers": _vlm("transformers", "model.safetensors", "visual_projection.weight"),
    "open_clip": _vlm("open_clip", "open_clip_pytorch_model.bin", "visual.proj"),
    "biomedclip": _vlm("biomedclip", "open_clip_model.safetensors", "text.proj.0.weight"),
    "medclip": _vlm("medclip", "pytorch_model.bin", "vision_model.projection_head.weight"),
    "medclip, resnet": _vlm(
        "medclip", "pytorch_model.bin", "vision_model.model.layer1.0.conv1.weight", lambda f: write_medclip(f, True)
    ),
    "smp folder": FileKind(_smp, "model.safetensors", "decoder.blocks.0.conv1.0.weight", _segment("smp:{}"), _mask),
    "smp checkpoint": FileKind(
        _smp, "w.pt", "encoder.features.1.conv.1.weight", _segment("smp:Unet:mobilenet_v2:{}/w.pt", **CHECKPOINT), _mask
    ),
    "monai": FileKind(
        _monai, "models/model.pt", "model.0.conv.weight", _segment("monai:{}", **CHECKPOINT), _mask
    ),
    "segformer": FileKind(_segformer, "model.safetensors", "decode_head.classifier.weight", _segment("hf:{}"), _mask),
    "small unet": FileKind(_small_unet, "model.safetensors", "head.weight", _segment("unet:{}"), _mask),
    "diffusers": FileKind(
        write_diffusers, "unet/diffusion_pytorch_model.safetensors", "mid_block.resnets.0.conv1.weight", _denoise,
        _denoised,
    ),
    "guided diffusion": FileKind(_guided, "guided.pt", "middle_block.0.out_layers.3.weight", _load_guided, _denoised),
}  # fmt: skip
