"""Processor time of a step of adapter tuning on this machine: a ViT-B/32 of PLIP's size, and the demo CLIP.

    python -m benchmarks.adapter_time

The ViT has random weights: time does not depend on them. A tuning is 400 steps of 32 noisy copies.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from certimed import ClassificationModel
from certimed.adapters import RECIPES, AdapterPlan, AdapterRecipe, Examples, adapt
from certimed.assets import demo_prompts
from certimed.errors import require
from certimed.vlm import load

WARM, MEASURED = 1, 3


class Vit(nn.Module):
    """CLIP's ViT-B/32 and its projection, with 9 classes on top."""

    def __init__(self) -> None:
        super().__init__()
        transformers: Any = require("transformers", "vlm")
        sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        config = transformers.CLIPVisionConfig(**sizes, image_size=224, patch_size=32, projection_dim=512)
        self.tower = transformers.CLIPVisionModelWithProjection(config)
        self.classes = nn.Linear(512, 9)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classes(self.tower(pixel_values=x).image_embeds)
        return scores


def step_seconds(model: Any, names: tuple[str, ...], *, bfloat16: bool, templates: tuple[str, ...] = ()) -> float:
    """Seconds of one step: the difference of a long and a short tuning."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2 * len(names), *model.input_shape, generator=generator)
    examples, spent = Examples(images, torch.arange(len(images)) % len(names)), []
    for steps in (WARM, WARM + MEASURED):
        begin = time.process_time()
        plan = AdapterPlan(recipe=AdapterRecipe(steps=steps), bfloat16=bfloat16)
        adapt(model, examples, names, plan, templates=templates)
        spent.append(time.process_time() - begin)
    return (spent[1] - spent[0]) / MEASURED


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vit = ClassificationModel(Vit().eval(), input_shape=(3, 224, 224))
    words = demo_prompts()
    demo, names = load("demo"), tuple(words["classes"].values())
    steps = RECIPES["default"].steps
    for name, each in (
        ("ViT-B/32, bfloat16", step_seconds(vit, tuple("abcdefghi"), bfloat16=True)),
        ("demo CLIP, float32", step_seconds(demo, names, bfloat16=False, templates=tuple(words["templates"]))),
    ):
        print(f"{name}: {each:.2f} s a step, {each * steps / 60:.1f} min for {steps} steps, of one core")


if __name__ == "__main__":
    main()
