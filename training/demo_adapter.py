"""Build the demo's adapter: LoRA for the demo CLIP, learnt under noise on 16 tuning slices of each class.

python -m training.demo_adapter build
python -m training.demo_adapter document

The first learns (a minute of one core) and writes; both measure on the held-out slices and write the model card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from certimed.adapters import Adaptation, AdapterPlan, Draw, tune_adapter
from certimed.assets import asset, demo_prompts
from certimed.data import Dataset
from certimed.prompts import TuningProgress, load_images
from certimed.runs import DataSpec
from certimed.vlm import VisionLanguageModel, load
from training.measure import SIGMAS, agreement, noisy_features

SHOTS, SEED, DRAWS = 16, 0, 50
FOLDER, FILE = "demo_lora", "lora.safetensors"
CARD = """# Demo LoRA

An adapter for the demo CLIP (`../demo_clip`): low-rank updates of the weights that an image passes, learnt under noise.
The CLIP itself and its text side are as they were. For certificates only; no medical device.

    certimed certify classes --model demo --data IMAGES --methods plain,{path} --sigma 1 --out RUN

- **Learnt**: {size:,} numbers ({bytes:,} bytes): LoRA of rank {rank} on the linear and convolution layers of the image
  side.
- **From**: {shots} slices of each class, drawn with seed {seed} out of `../demo_tuning_images`; no held-out slice.
- **How**: {steps} steps of {batch} noisy copies of AdamW (peak rate {lr:g}), cross-entropy on the frozen captions,
  noise levels {sigmas} mixed. {seconds:.0f} s of wall clock on a share of one core. Rebuild with
  `python -m training.demo_adapter build`.
- **Identity**: adapter `{identity}`, of model `{model}`.

## Measured on the {test} held-out slices

Gaussian noise (std sigma in [0, 1] units), each cell "accuracy on single noisy copies / share of slices whose right
class gets at least 54.9 % of {draws} copies"; the second stands for certified accuracy at radius 0 with n = 1 000.

{table}

Clean accuracy: {plain_clean:.3f} without, {clean:.3f} with the adapter. All numbers: `metrics.json`.

## Licence

As the demo CLIP: derived from the MNI152 template, whose notice in `../demo_clip/README.md` must stay with every copy.
"""


def datasets() -> tuple[Dataset, Dataset]:
    """Tuning and held-out slices."""
    entries = tuple(f"{slug}={text}" for slug, text in demo_prompts()["classes"].items())
    tuning, test = (DataSpec(str(asset(name)), entries).open() for name in ("demo_tuning_images", "demo_images"))
    return tuning, test


def build(folder: Path) -> None:
    """Learn and write the adapter."""
    tuning, test = datasets()
    names, templates = tuple(demo_prompts()["classes"].values()), tuple(demo_prompts()["templates"])

    def said(state: TuningProgress) -> None:
        print(f"step {state.done}/{state.total}, loss {state.loss:.3f}", flush=True)

    plan, draw = AdapterPlan(seed=SEED), Draw(SHOTS)
    found = tune_adapter(load("demo"), tuning, names, plan, draw, test=test, templates=templates, progress=said)
    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / FILE)


def document(folder: Path) -> None:
    """Measure the adapter on the held-out slices, and write its numbers and model card."""
    learnt, vlm = Adaptation.load(folder / FILE), load("demo")
    test = datasets()[1]
    images, labels = load_images(vlm, test, range(len(test)))
    text = learnt.text_features(vlm)
    models: dict[str, VisionLanguageModel] = {"plain": vlm, "LoRA": learnt.apply(vlm)}
    metrics = {name: measured(model, images, labels, text) for name, model in models.items()}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    lines = ["| | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |", "|---" * (len(SIGMAS) + 1) + "|"]
    for name, rows in metrics.items():
        cells = [f"{rows[f'{s:g}']['noisy']:.2f} / {rows[f'{s:g}']['smoothed']:.2f}" for s in SIGMAS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    recipe = learnt.recipe
    card = CARD.format(
        path=f"{FOLDER}/{FILE}", size=learnt.size, bytes=(folder / FILE).stat().st_size, rank=learnt.parts.rank,
        shots=learnt.shots, seed=learnt.seed, steps=recipe["steps"], batch=recipe["batch"], lr=recipe["lr"],
        sigmas=", ".join(f"{s:g}" for s in learnt.sigmas), seconds=learnt.seconds, identity=learnt.identity,
        model=learnt.model_identity, test=len(test), draws=DRAWS, table="\n".join(lines),
        plain_clean=metrics["plain"]["0"]["noisy"], clean=metrics["LoRA"]["0"]["noisy"],
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")


def measured(model: VisionLanguageModel, images: Tensor, labels: Tensor, text: Tensor) -> dict[str, dict[str, float]]:
    """Accuracy without noise and at every sigma."""
    found = {"0": agreement(noisy_features(model, images, 0.0, 1, SEED), text, labels)}
    for sigma in SIGMAS:
        found[f"{sigma:g}"] = agreement(noisy_features(model, images, sigma, DRAWS, SEED), text, labels)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["build", "document"])
    default = Path(__file__).parents[1] / "src" / "certimed" / "assets" / FOLDER
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.action == "build":
        build(arguments.out)
    document(arguments.out)


if __name__ == "__main__":
    main()
