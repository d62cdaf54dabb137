"""Models of published sizes with random weights: time and memory do not depend on what the weights have learnt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from certimed.denoising import Compose, NoiseSchedule, OneStepDenoiser
from certimed.denoising.one_step import DenoiserOptions
from certimed.denoising.training import build_unet
from certimed.vlm import VisionLanguageModel, load
from training.segmenter import smp_unet
from training.study_segmentation import DENOISERS


@dataclass(frozen=True)
class ClipSize:
    """What decides the cost of a CLIP; the defaults are those of PLIP (ViT-B/32 at 224)."""

    image: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    text_width: int = 512
    text_layers: int = 12


PLIP = ClipSize()
SMALL = ClipSize(image=64, patch=16, width=128, layers=3, text_width=128, text_layers=3)


def clip_sized(folder: Path, size: ClipSize = PLIP) -> VisionLanguageModel:
    """A CLIP with random weights and CLIP's own vocabulary, written and loaded like a real one."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    words = SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(word, word): index for word, index in words.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in words.bpe_ranks), ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    last = len(vocabulary) - 1
    text = {
        "bos_token_id": last - 1,
        "eos_token_id": last,
        "pad_token_id": last,
        "hidden_size": size.text_width,
        "intermediate_size": 4 * size.text_width,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.text_width // 64,
    }
    vision = {
        "image_size": size.image,
        "patch_size": size.patch,
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 64,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    side = {"height": size.image, "width": size.image}
    CLIPImageProcessor(size={"shortest_edge": size.image}, crop_size=side).save_pretrained(folder)
    return load(f"hf:{folder}")


def denoised_segmenter(sigma: float, side: int, classes: int = 2, *, autocast: torch.dtype | None = None) -> nn.Module:
    """The segmentation study's U-Net (ResNet-18) behind its X-ray denoiser, one channel, random weights."""
    config = DENOISERS["xray"][1]
    options = DenoiserOptions(
        prediction_type=config.prediction_type,
        channels=1,
        patch=config.patch,
        multiple=config.multiple,
        autocast=autocast,
    )
    denoiser = OneStepDenoiser(build_unet(config, 1, (side, side)), NoiseSchedule.linear(), options)
    return Compose(denoiser.at(sigma), smp_unet(1, classes)).eval().requires_grad_(False)
