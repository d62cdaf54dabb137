"""Train the two small CLIPs of the real-image study, without noise, on the training part of LC25000 or Kermany.

python -m training.study_clips lc25000 --data ../shared/data --out studies
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
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

Arrays = dict[str, NDArray[np.generic]]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Study:
    """One data set: its file, words, split and recipe."""

    file: str
    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    initial_context: str
    split: Callable[[Arrays, int], tuple[Indices, Indices]]
    recipe: Recipe


def split_by_class(arrays: Arrays, seed: int, each: int = 22) -> tuple[Indices, Indices]:
    """Random ``each`` test images of every class, the rest for training; for sets with one image a group."""
    order = np.random.default_rng(seed).permutation(len(arrays["labels"]))
    labels = arrays["labels"][order]
    test = np.concatenate([order[labels == label][:each] for label in np.unique(labels)])
    return np.sort(test), np.setdiff1d(order, test)


def split_as_given(arrays: Arrays, seed: int) -> tuple[Indices, Indices]:
    """The set's own test part; training images of a patient who is also in the test part are left out."""
    test = np.flatnonzero(arrays["split"] == "test")
    train_part = arrays["split"] == "train"
    seen = np.isin(arrays["patient"], np.unique(arrays["patient"][test]))
    return test, np.flatnonzero(train_part & ~seen)


CONDITIONS = (
    Condition(("a blurred picture of {}.", "a very soft {}."), {"blur": 4.0, "blur_floor": 1.5}),
    Condition(("a dark picture of {}.", "an underexposed {}."), {"gamma_centre": 0.6}),
    Condition(("a bright picture of {}.", "an overexposed {}."), {"gamma_centre": -0.6}),
    Condition(("a faint picture of {}.", "a low contrast {}."), {"contrast_centre": -0.8}),
    Condition(("a harsh picture of {}.", "a high contrast {}."), {"contrast_centre": 0.6}),
    Condition(("a close picture of {}.", "an enlarged {}."), {"zoom_centre": -0.25}),
    Condition(("a partly hidden picture of {}.", "an incomplete {}."), {"cutouts": 4}),
    Condition(("a shaded picture of {}.", "an unevenly lit {}."), {"shading": 0.6}),
)
STUDIES = {
    "lc25000": Study(
        "cls_histo_lc25000.npz",
        (
            "colon adenocarcinoma",
            "benign colonic tissue",
            "lung adenocarcinoma",
            "benign lung tissue",
            "lung squamous cell carcinoma",
        ),
        (
            ("a gland forming cancer of the colon", "malignant colonic glands"),
            ("normal colon mucosa", "healthy large bowel"),
            ("a gland forming cancer of the lung", "malignant lung glands"),
            ("normal alveoli", "healthy lung parenchyma"),
            ("a squamous cancer of the lung", "keratinising lung carcinoma"),
        ),
        (
            "{}.",
            "an h&e image patch of {}.",
            "an h&e image of {}.",
            "a histopathology slide showing {}.",
            "a patch: {}.",
        ),
        "an h&e image patch of",
        split_by_class,
        Recipe(
            image_size=128,
            mean=0.65,
            std=0.2,
            steps=1500,
            learning_rate=6e-4,
            augmentation=Strength(
                rotation=20,
                cutouts=1,
                warp=0.015,
                gamma=0.25,
                contrast=0.2,
                offset=0.06,
                shading=0.1,
                flip_horizontal=True,
                flip_vertical=True,
            ),
        ),
    ),
    "kermany": Study(
        "cls_cxr_kermany.npz",
        ("normal", "bacterial pneumonia", "viral pneumonia"),
        (
            ("clear lungs", "no pneumonia", "healthy lungs"),
            ("lobar consolidation", "focal pneumonia from bacteria"),
            ("diffuse interstitial infiltrates", "pneumonia from a virus"),
        ),
        ("{}.", "a chest x-ray showing {}.", "a radiograph of a child with {}.", "chest film: {}."),
        "a chest x-ray showing",
        split_as_given,
        Recipe(
            image_size=128,
            mean=0.48,
            std=0.23,
            steps=1500,
            learning_rate=6e-4,
            augmentation=Strength(rotation=8, cutouts=1, warp=0.015, zoom=0.1, gamma=0.3, contrast=0.2, shading=0.15),
        ),
    ),
}


def images_and_labels(arrays: Arrays, chosen: Indices, size: int) -> tuple[Tensor, Tensor]:
    """Model inputs ``(N, 1 or 3, size, size)`` and labels."""
    pixels = torch.from_numpy(arrays["images"][chosen].astype(np.float32) / 255)
    pixels = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
    return to_input(pixels, size), torch.from_numpy(arrays["labels"][chosen].astype(np.int64))


def write_index_files(study: Study, folder: Path, arrays: Arrays, parts: dict[str, Indices]) -> None:
    """classes.json and split.json: the words, and which images of the set are test and training."""
    words = {
        "classes": dict(zip(map(str, arrays["class_names"]), study.names)),
        "templates": [f"{study.initial_context} {{}}."],
        "initial_context": study.initial_context,
    }
    split = {"file": study.file, **{part: chosen.tolist() for part, chosen in parts.items()}}
    (folder / "classes.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    (folder / "split.json").write_text(json.dumps(split) + "\n", encoding="utf-8")


def run(name: str, data: Path, out: Path, seed: int, minutes: float, recipe: Recipe | None = None) -> None:
    """Train one study model into ``out/clip_NAME`` and measure it."""
    torch.set_num_threads(1)
    study = STUDIES[name]
    recipe = recipe or study.recipe
    folder = out / f"clip_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data / study.file, allow_pickle=False) as stored:
        arrays: Arrays = {key: stored[key] for key in stored.files}
    parts = dict(zip(("test", "train"), study.split(arrays, seed)))
    write_index_files(study, folder, arrays, parts)
    said = Captions(study.names, study.synonyms, study.templates, CONDITIONS)
    vocabulary = write_tokenizer(said.all(), folder, context_length=recipe.context_length)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    model = build_model(recipe, vocabulary, seed)
    test, tune = (images_and_labels(arrays, parts[part], recipe.image_size) for part in ("test", "train"))
    template = f"{study.initial_context} {{}}."

    @torch.no_grad()
    def watch(current: CLIPModel) -> dict[str, float]:
        texts = text_features(current, tokenizer, [template.format(words) for words in study.names])
        right = (image_features(current, test[0], recipe) @ texts.T).argmax(1) == test[1]
        return {"test accuracy": right.float().mean().item()}

    checkpoint = folder / "checkpoint.pt"
    train(model, tokenizer, *tune, said, recipe, seed=seed, checkpoint=checkpoint, watch=watch, minutes=minutes)
    save(model, recipe, folder)
    generator = Generator().manual_seed(seed)
    few = torch.randperm(len(test[1]), generator=generator)[:120]
    vlm = load(str(folder))
    colour = [(images.expand(-1, 3, -1, -1), labels) for images, labels in ((test[0][few], test[1][few]), tune)]
    found = report(vlm, study.names, [template], study.initial_context, *colour, seed=seed, draws=50)
    found["recipe"] = asdict(replace(recipe))
    (folder / "metrics.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"clean {found['clean']:.3f}\n{table(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "studies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    run(arguments.study, arguments.data, arguments.out, arguments.seed, arguments.minutes)


if __name__ == "__main__":
    main()
