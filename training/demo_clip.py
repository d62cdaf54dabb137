"""Build the embedded demo: slices of the MNI152 T1 template and a small CLIP trained on them.

python -m training.demo_clip build --seed 0
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from certimed.vlm import load
from training.augment import Strength
from training.clip import (
    Captions,
    Condition,
    Recipe,
    build_model,
    image_features,
    save,
    text_features,
    to_input,
    train,
)
from training.measure import report, table
from training.tokenizer import write_tokenizer

DRAWS = 100
RECIPE = Recipe(
    layers=3,
    text_width=128,
    text_layers=3,
    embedding_dim=128,
    rough_share=0.15,
    steps=750,
    learning_rate=6e-4,
    augmentation=Strength(cutouts=1, warp=0.015, rotation=10, zoom=0.12, shift=0.06, shear=0.06),
)
# World coordinate (mm) of voxel 0 along x (left to right), y (back to front), z (bottom to top) at 1 mm.
ORIGIN = (-98, -134, -72)
WIDTH = 27
TEST = range(9, 17)
GUARD = 1


@dataclass(frozen=True)
class Level:
    """One class: ``WIDTH`` consecutive 1 mm slices along an axis, from world coordinate ``first`` on."""

    slug: str
    axis: int
    first: int
    name: str
    synonyms: tuple[str, ...]

    def slices(self, held_out: bool) -> list[int]:
        """World coordinates (mm) of the held-out slab, or of the training slabs on both sides of it."""
        if held_out:
            return [self.first + i for i in TEST]
        return [self.first + i for i in range(WIDTH) if i < TEST.start - GUARD or i >= TEST.stop + GUARD]


LEVELS = (
    Level(
        "axial-cerebellum",
        2,
        -54,
        "axial brain MRI at the level of the cerebellum",
        ("transverse section through the posterior fossa", "axial MRI slice of the cerebellum and temporal poles"),
    ),
    Level(
        "axial-thalamus",
        2,
        -20,
        "axial brain MRI at the level of the midbrain and thalamus",
        ("transverse section through the midbrain", "axial MRI slice of the thalamus and basal ganglia"),
    ),
    Level(
        "axial-ventricles",
        2,
        12,
        "axial brain MRI at the level of the lateral ventricles",
        ("transverse section through the bodies of the ventricles", "axial MRI slice of the lateral ventricles"),
    ),
    Level(
        "axial-vertex",
        2,
        44,
        "axial brain MRI near the vertex",
        ("transverse section above the ventricles", "axial MRI slice of the upper frontal and parietal gyri"),
    ),
    Level(
        "coronal-occipital",
        1,
        -100,
        "coronal brain MRI through the occipital lobes",
        ("frontal section at the back of the brain", "coronal MRI slice of the visual cortex"),
    ),
    Level(
        "coronal-cerebellum",
        1,
        -66,
        "coronal brain MRI through the cerebellum and parietal lobes",
        ("frontal section through the fourth ventricle", "coronal MRI slice of the cerebellum and parietal lobes"),
    ),
    Level(
        "coronal-brainstem",
        1,
        -32,
        "coronal brain MRI through the thalamus and brainstem",
        ("frontal section through the third ventricle", "coronal MRI slice of the pons and hippocampus"),
    ),
    Level(
        "coronal-caudate",
        1,
        2,
        "coronal brain MRI through the caudate heads",
        ("frontal section through the frontal horns", "coronal MRI slice of the caudate and temporal poles"),
    ),
    Level(
        "coronal-frontal",
        1,
        38,
        "coronal brain MRI through the frontal poles",
        ("frontal section at the front of the brain", "coronal MRI slice of the prefrontal cortex"),
    ),
    Level(
        "sagittal-midline",
        0,
        -13,
        "sagittal brain MRI through the midline",
        ("median section through the corpus callosum", "sagittal MRI slice of the brainstem and corpus callosum"),
    ),
    Level(
        "sagittal-temporal",
        0,
        24,
        "sagittal brain MRI through the temporal lobe",
        ("parasagittal section beside the ventricles", "sagittal MRI slice of the insula and temporal lobe"),
    ),
)
TEMPLATES = (
    "{}.",
    "a {}.",
    "an image of {}.",
    "a picture showing {}.",
    "a slice: {}.",
    "{}, t1 weighted.",
    "a scan showing {}.",
    "one image of a study, {}.",
    "a good quality {}.",
    "a single image slice of {}.",
    "a single image slice of {}.",
)
CONDITIONS = (
    Condition(("a blurred image slice of {}.", "a very soft {}."), {"blur": 4.0, "blur_floor": 2.0}),
    Condition(("a dark image slice of {}.", "an underexposed {}."), {"gamma_centre": 0.7}),
    Condition(("a bright image slice of {}.", "an overexposed {}."), {"gamma_centre": -0.7}),
    Condition(("a faint image slice of {}.", "a low contrast {}."), {"contrast_centre": -0.9}),
    Condition(("a harsh image slice of {}.", "a high contrast {}."), {"contrast_centre": 0.6}),
    Condition(("a tilted image slice of {}.", "a badly positioned {}."), {"rotation": 25.0, "shift": 0.12}),
    Condition(("a close image slice of {}.", "an enlarged {}."), {"zoom_centre": -0.2}),
    Condition(("a distant image slice of {}.", "a small {}."), {"zoom_centre": 0.3}),
    Condition(("a partly hidden image slice of {}.", "an incomplete {}."), {"cutouts": 4}),
    Condition(("a shaded image slice of {}.", "an unevenly lit {}."), {"shading": 0.7}),
    Condition(("a distorted image slice of {}.", "a warped {}."), {"warp": 0.05}),
)
INITIAL_CONTEXT = "a single image slice of"
PLAIN_TEMPLATE = f"{INITIAL_CONTEXT} {{}}."


def captions() -> Captions:
    return Captions([level.name for level in LEVELS], [level.synonyms for level in LEVELS], TEMPLATES, CONDITIONS)


def template_volume() -> NDArray[np.float32]:
    """The MNI152 T1 template as packaged in nilearn, 1 mm, [0, 1], ``(197, 233, 189)``."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    if tuple(image.affine[:3, 3].astype(int)) != ORIGIN:
        raise ValueError(f"the template's origin is {image.affine[:3, 3]}, not {ORIGIN}: nilearn packages another one")
    volume: NDArray[np.float32] = np.clip(image.get_fdata(dtype=np.float32), 0, 1)
    return volume


def slice_pixels(volume: NDArray[np.float32], axis: int, millimetre: int) -> NDArray[np.float32]:
    """One slice as radiographs are hung: ``(H, W)``, up is up."""
    return np.ascontiguousarray(np.rot90(np.take(volume, millimetre - ORIGIN[axis], axis=axis)))


def tensors(volume: NDArray[np.float32], held_out: bool, size: int) -> tuple[Tensor, Tensor]:
    """Model inputs ``(N, 1, size, size)`` and labels of the held-out or the training slabs."""
    images, labels = [], []
    for label, level in enumerate(LEVELS):
        for millimetre in level.slices(held_out):
            pixels = torch.from_numpy(slice_pixels(volume, level.axis, millimetre).copy())[None, None]
            images.append(to_input(torch.round(pixels * 255) / 255, size)[0])
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


def write_images(volume: NDArray[np.float32], folder: Path, held_out: bool) -> None:
    """Slices at native resolution as 8-bit grey PNG, ``folder/SLUG/axis-millimetre.png``."""
    if folder.exists():
        shutil.rmtree(folder)
    for level in LEVELS:
        (folder / level.slug).mkdir(parents=True)
        for millimetre in level.slices(held_out):
            pixels = np.round(slice_pixels(volume, level.axis, millimetre) * 255).astype(np.uint8)
            name = f"{'xyz'[level.axis]}{millimetre:+04d}.png"
            Image.fromarray(pixels).save(folder / level.slug / name, optimize=True)


def write_words(folder: Path) -> None:
    """classes.json (what the command line reads) and split.json (which slices trained, which are held out)."""
    words = {
        "classes": {level.slug: level.name for level in LEVELS},
        "templates": [PLAIN_TEMPLATE],
        "initial_context": INITIAL_CONTEXT,
    }
    split = {
        level.slug: {"axis": "xyz"[level.axis], "training": level.slices(False), "held_out": level.slices(True)}
        for level in LEVELS
    }
    (folder / "classes.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    (folder / "split.json").write_text(json.dumps(split, indent=2) + "\n", encoding="utf-8")


NOTICE = (
    "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, "
    "McGill University. Permission to use, copy, modify, and distribute this software and its documentation "
    "for any purpose and without fee is hereby granted, provided that the above copyright notice appear in all "
    "copies. The authors and McGill University make no representations about the suitability of this software "
    'for any purpose. It is provided "as is" without express or implied warranty. The authors are not '
    "responsible for any data loss, equipment damage, property loss, or injury to subjects or patients "
    "resulting from the use or misuse of this software package."
)
CARD = """# Demo CLIP

A small CLIP that names the plane and level of a brain MRI slice. It exists to show certificates and prompt learning
on real images within a minute; it is no medical device and says nothing about patients.

- **Data**: slices of the MNI152 T1 template (ICBM152 2009, release a, 1 mm, as packaged in nilearn
  {nilearn}). One template, so the {test} held-out and {train} training slices are not independent patients.
- **Classes**: {classes}, each {width} neighbouring slices, with at least 5 mm between the levels of one plane.
- **Split** (`split.json`, world coordinates in mm): in every class the slab of {held} slices in the middle is held
  out (`../demo_images`), {guard} slice on each side of it is used for nothing, the rest are the training slices
  (`../demo_tuning_images`, also the pool few-shot prompts are drawn from).
- **Model**: transformers `CLIPModel`, {parameters:,} parameters, {size} px, patches of {patch}, own byte-pair
  tokenizer of {vocabulary} tokens; class names, template and initial context in `classes.json`.
- **Training**: from scratch, {steps} steps of {batch} images, seed {seed}; random geometry, contrast, blur, shading
  and cut-outs; **no noise**. Rebuild with `python -m training.demo_clip build --seed {seed}` in a clone of the
  repository with the development extras installed. Same seed and library versions give the same weights on one kind of
  processor; elsewhere rounding may differ.

## Measured on the held-out slices

Clean zero-shot accuracy: **{clean:.3f}** ({test} slices, {count} classes, chance {chance:.2f}).

Under Gaussian noise (std sigma in [0, 1] units, added after resize and crop, not clipped), each cell
"accuracy on single noisy copies / share of slices whose right class gets at least 54.9 % of {draws} copies"; the second
stands for certified accuracy at radius 0 with n = 1 000, alpha = 0.001. Linear probe: logistic regression on the
frozen noisy embeddings of {shots} training slices a class, at each sigma. Few-shot: a context of 5 tokens learnt
on the same slices (AdamW at 0.05, 200 steps), shared by all classes or one for each class.

{table}

All numbers: `metrics.json`.

## Licence

The weights and the two image folders are derived from the template, whose notice must stay with every copy:

> {notice}
"""


def train_model(volume: NDArray[np.float32], folder: Path, recipe: Recipe, seed: int, checkpoint: Path | None) -> None:
    """Train from scratch and write the model folder."""
    said = captions()
    vocabulary = write_tokenizer(said.all(), folder, context_length=recipe.context_length)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    model = build_model(recipe, vocabulary, seed)
    test, labels = tensors(volume, True, recipe.image_size)

    @torch.no_grad()
    def watch(current: CLIPModel) -> dict[str, float]:
        texts = text_features(current, tokenizer, [PLAIN_TEMPLATE.format(level.name) for level in LEVELS])
        right = (image_features(current, test, recipe) @ texts.T).argmax(1) == labels
        return {"held-out accuracy": right.float().mean().item()}

    images, truth = tensors(volume, False, recipe.image_size)
    train(model, tokenizer, images, truth, said, recipe, seed=seed, checkpoint=checkpoint, watch=watch)
    save(model, recipe, folder)


def measure(volume: NDArray[np.float32], folder: Path, recipe: Recipe, seed: int) -> dict[str, object]:
    """Accuracy of the saved model, through certimed itself."""
    vlm = load(str(folder))
    sets = []
    for held_out in (True, False):
        images, labels = tensors(volume, held_out, recipe.image_size)
        sets.append((images.expand(-1, 3, -1, -1), labels))
    names = [level.name for level in LEVELS]
    found = report(vlm, names, [PLAIN_TEMPLATE], INITIAL_CONTEXT, *sets, seed=seed, draws=DRAWS)
    parameters = sum(parameter.numel() for parameter in vlm.parameters())
    return {"identity": vlm.identity, "seed": seed, "parameters": parameters, "draws": DRAWS, **found}


def write_card(folder: Path, recipe: Recipe, metrics: dict[str, object]) -> None:
    """README.md of the model folder, from the measured values."""
    vocabulary = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    facts = {
        "nilearn": version("nilearn"), "classes": len(LEVELS), "count": len(LEVELS), "chance": 1 / len(LEVELS),
        "width": WIDTH, "held": len(TEST), "guard": GUARD, "vocabulary": vocabulary, "size": recipe.image_size,
        "patch": recipe.patch_size, "steps": recipe.steps, "batch": recipe.batch_size, "table": table(metrics),
        "notice": NOTICE,
        "test": sum(len(level.slices(True)) for level in LEVELS),
        "train": sum(len(level.slices(False)) for level in LEVELS),
    }  # fmt: skip
    (folder / "README.md").write_text(CARD.format(**metrics, **facts), encoding="utf-8")


def build(assets: Path, seed: int, checkpoint: Path | None = None) -> None:
    """Everything the demo ships: weights, tokenizer, images, words, split, metrics and model card."""
    volume = template_volume()
    folder = assets / "demo_clip"
    train_model(volume, folder, RECIPE, seed, checkpoint)
    write_words(folder)
    write_images(volume, assets / "demo_images", held_out=True)
    write_images(volume, assets / "demo_tuning_images", held_out=False)
    document(assets, seed)


def document(assets: Path, seed: int) -> None:
    """Measure the model in ``assets`` again and write its metrics and model card."""
    folder = assets / "demo_clip"
    metrics = measure(template_volume(), folder, RECIPE, seed)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    write_card(folder, RECIPE, metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["build", "document"], help="document: measure again, do not train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src" / "certimed" / "assets")
    parser.add_argument("--checkpoint", type=Path, help="continue from, and write to, this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.action == "build":
        build(arguments.out, arguments.seed, arguments.checkpoint)
    else:
        document(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
