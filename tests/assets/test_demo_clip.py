"""The shipped demo model: what it weighs, what it was trained on, and that it still reads held-out slices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from certimed.assets import asset, demo_prompts
from certimed.vlm import ZeroShotClassifier, load
from certimed.vlm.protocol import VisionLanguageModel

MODEL_FILES = {
    "README.md",
    "classes.json",
    "config.json",
    "merges.txt",
    "metrics.json",
    "model.safetensors",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "split.json",
    "tokenizer_config.json",
    "vocab.json",
}


def _metrics() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((asset("demo_clip") / "metrics.json").read_text(encoding="utf-8"))
    return content


def _images(folder: str) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(asset(folder).glob("*/*.png"))]


@pytest.fixture(scope="module")
def vlm() -> VisionLanguageModel:
    return load("demo")


@pytest.fixture(scope="module")
def held_out(vlm: VisionLanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Held-out images in the certified space, and their labels."""
    slugs = list(demo_prompts()["classes"])
    images, labels = [], []
    for path, slug in _images("demo_images"):
        pixels = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255)
        images.append(vlm.preprocess(pixels[None]))
        labels.append(slugs.index(slug))
    return torch.stack(images), torch.tensor(labels)


def test_files_and_sizes() -> None:
    folder = asset("demo_clip")
    assert {path.name for path in folder.iterdir()} == MODEL_FILES
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    pictures = sum(path.stat().st_size for name in ("demo_images", "demo_tuning_images") for path, _ in _images(name))
    assert pictures <= 6_000_000


def test_parameter_count(vlm: VisionLanguageModel) -> None:
    assert sum(parameter.numel() for parameter in vlm.parameters()) <= 3_000_000


def test_metrics_belong_to_these_weights(vlm: VisionLanguageModel) -> None:
    """The numbers of the model card were measured on the weights beside it."""
    assert _metrics()["identity"] == vlm.identity


def test_clean_accuracy_on_held_out_slices(
    vlm: VisionLanguageModel, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    prompts = demo_prompts()
    classifier = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    with torch.no_grad():
        right = (classifier(held_out[0]).argmax(dim=1) == held_out[1]).float().mean().item()
    assert right >= 0.90
    assert right == pytest.approx(_metrics()["clean"], abs=0.02)


def test_noise_breaks_plain_prompts_and_not_the_embeddings() -> None:
    """At some sigma plain zero-shot loses 25 points while a probe of the same embeddings stays 15 above it."""
    metrics = _metrics()
    assert any(
        metrics["clean"] - row["plain"]["noisy"] >= 0.25
        and row["linear probe"]["noisy"] - row["plain"]["noisy"] >= 0.15
        for sigma, row in metrics["sigma"].items()
        if 0.25 <= float(sigma) <= 1
    )


def test_noisy_accuracy_is_the_recorded_one(
    vlm: VisionLanguageModel, held_out: tuple[torch.Tensor, torch.Tensor]
) -> None:
    prompts = demo_prompts()
    classifier = ZeroShotClassifier(vlm, list(prompts["classes"].values()), prompts["templates"])
    images, labels = held_out
    generator = torch.Generator().manual_seed(7)
    right = []
    with torch.no_grad():
        for _ in range(5):
            noisy = images + torch.randn(images.shape, generator=generator)
            right.append((classifier(noisy).argmax(dim=1) == labels).float().mean().item())
    assert np.mean(right) == pytest.approx(_metrics()["sigma"]["1"]["plain"]["noisy"], abs=0.07)


def test_split_keeps_held_out_slabs_apart() -> None:
    """Held-out slices lie in no training slab, have a guard beside them, and classes of a plane keep a gap."""
    split = json.loads((asset("demo_clip") / "split.json").read_text(encoding="utf-8"))
    assert list(split) == list(demo_prompts()["classes"])
    for row in split.values():
        training, held = set(row["training"]), row["held_out"]
        assert held == list(range(min(held), max(held) + 1))
        assert not training & set(range(min(held) - 1, max(held) + 2))
        assert 6 <= len(held) <= 12
        assert len(training) >= 16
    for first in split.values():
        for second in split.values():
            if first is not second and first["axis"] == second["axis"]:
                everything = [set(row["training"]) | set(row["held_out"]) for row in (first, second)]
                assert min(abs(a - b) for a in everything[0] for b in everything[1]) >= 5


@pytest.mark.parametrize(("folder", "part"), [("demo_images", "held_out"), ("demo_tuning_images", "training")])
def test_images_are_the_slices_of_the_split(folder: str, part: str) -> None:
    split = json.loads((asset("demo_clip") / "split.json").read_text(encoding="utf-8"))
    found: dict[str, list[int]] = {slug: [] for slug in split}
    for path, slug in _images(folder):
        assert path.name[0] == split[slug]["axis"]
        found[slug].append(int(path.stem[1:]))
    assert {slug: sorted(slices) for slug, slices in found.items()} == {
        slug: sorted(row[part]) for slug, row in split.items()
    }


def test_no_held_out_image_is_a_tuning_image() -> None:
    pixels = {
        folder: {path.read_bytes() for path, _ in _images(folder)} for folder in ("demo_images", "demo_tuning_images")
    }
    assert not pixels["demo_images"] & pixels["demo_tuning_images"]


def test_mirror_twins_are_one_class() -> None:
    """No class is the left-right mirror image of another: sagittal classes lie on one side or across the midline."""
    split = json.loads((asset("demo_clip") / "split.json").read_text(encoding="utf-8"))
    sagittal = [set(row["training"]) | set(row["held_out"]) for row in split.values() if row["axis"] == "x"]
    for first in sagittal:
        for second in sagittal:
            if first is not second:
                assert not {-place for place in first} & second


def test_words_are_short_prompts(vlm: VisionLanguageModel) -> None:
    """Every word of the demo's classes and templates is a token of its own, and prompts leave room for a context."""
    prompts = demo_prompts()
    for words in prompts["classes"].values():
        sentence = prompts["templates"][0].format(words)
        assert len(vlm.content_ids(sentence)) == len(sentence.replace(".", " .").split())
        assert len(vlm.content_ids(sentence)) + 16 <= vlm.context_length
    assert len(vlm.content_ids(prompts["initial_context"])) == 5


def test_features_point_in_different_directions(vlm: VisionLanguageModel) -> None:
    prompts = demo_prompts()
    texts = [prompts["templates"][0].format(words) for words in prompts["classes"].values()]
    features = functional.normalize(vlm.encode_texts(texts), dim=-1)
    cosines = features @ features.T - torch.eye(len(texts))
    assert cosines.max().item() < 0.9
