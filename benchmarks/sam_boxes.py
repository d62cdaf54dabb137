"""What a certificate on the box of a promptable segmenter costs: one embedding, then the decoder alone.

    python -m benchmarks.sam_boxes [--n 1000] [--model sam:FOLDER]

Without a model a tiny random SamModel is made, in the published layout and by transformers itself: the ratio of encoder
and decoder of a ViT-B is larger by far. Both ways see the same boxes at the same batch size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certimed.budgets import Fixed
from certimed.data import MedicalImage, Step
from certimed.engine import Engine, Origin
from certimed.noise import as_law
from certimed.runs.prompted import Prompting
from certimed.segmenters import PromptedSegmenter, load_segmenter
from certimed.settings import read_vary
from certimed.targets import Pixels

SIDE = 64
BATCH = 50


def write_sam(folder: Path, seed: int = 0) -> Any:
    """Write a random SamModel a millisecond large and its processor into a folder; returns the model."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor
    from transformers.models.sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    torch.manual_seed(seed)
    vision = SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=2, num_attention_heads=2, num_pos_feats=8,
        image_size=SIDE, patch_size=8, window_size=4, global_attn_indexes=[1], mlp_dim=32,
    )  # fmt: skip
    prompts = SamPromptEncoderConfig(hidden_size=16, image_size=SIDE, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=16
    )
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6)  # the library starts so small that all logits are 1e-6
    model.save_pretrained(folder)
    images = SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    images.save_pretrained(folder)
    SamProcessor(images).save_pretrained(folder)
    return model


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measured(segmenter: PromptedSegmenter, n: int) -> dict[str, float]:
    """Seconds a box with the image embedded once and with it embedded for every box, and how often the encoder ran."""
    pixels = np.random.default_rng(0).random((1, SIDE, SIDE)).astype(np.float32)
    image = MedicalImage("image", pixels, None, (Step("unit"),), "benchmark")
    cpu, calls = torch.device("cpu"), 0
    prompting = Prompting(read_vary(["box=2px"]), image, (16.0, 16.0, 48.0, 48.0), segmenter, cpu)

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = segmenter.model.vision_encoder.register_forward_hook(count)
    engine = Engine.alone(prompting.answer, as_law("grid", 1.0), identity="0" * 64, space="settings", device=cpu)
    target, origin = Pixels(2, (0.75,), space=(SIDE, SIDE)), Origin("random", settings=prompting.varied)
    once = seconds(
        lambda: engine.run(
            prompting.start, target, Fixed(n), n0=10, item_id="image", batch_size=BATCH, origin=origin, clean=False
        )
    )
    hook.remove()
    x = torch.from_numpy(pixels).expand(BATCH, -1, -1, -1)
    with torch.no_grad():
        every = seconds(lambda: [segmenter.embed(x) for _ in range(n // BATCH)])
    return {"once": once / n, "every": once / n + every / n, "calls": calls}


def main() -> None:
    """Print a box's cost both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model is None:
            write_sam(Path(folder))
        segmenter: Any = load_segmenter(given.model or f"sam:{folder}")
        found = measured(segmenter, given.n)
    print(
        f"n = {given.n} boxes: {1000 * found['once']:.2f} ms a box, the encoder ran {found['calls']:.0f} time(s); "
        f"embedding for every box: {1000 * found['every']:.2f} ms a box"
    )


if __name__ == "__main__":
    main()
