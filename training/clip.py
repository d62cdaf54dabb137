"""Train a small CLIP from scratch on image tensors, labels and captions, and save it in the transformers format."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from training.augment import Strength, augment


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run except the data and the seed."""

    image_size: int = 112
    patch_size: int = 16
    width: int = 128
    layers: int = 4
    heads: int = 4
    text_width: int = 96
    text_layers: int = 3
    text_heads: int = 4
    embedding_dim: int = 96
    context_length: int = 48
    mean: float = 0.25
    std: float = 0.25
    logit_scale: float = 20.0
    smooth_frequencies: int = 6
    rough_share: float = 0.0
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    captions_per_class: int = 2
    conditions_from: float = 0.4
    augmentation: Strength = field(default_factory=Strength)


@dataclass(frozen=True)
class Condition:
    """A way images can look, as random changes, and sentences that say so."""

    templates: Sequence[str]
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Captions:
    """What a class is called: words for zero-shot use, further words, the sentences they stand in, and conditions."""

    class_names: Sequence[str]
    synonyms: Sequence[Sequence[str]]
    templates: Sequence[str]
    conditions: Sequence[Condition] = ()

    def all(self) -> list[str]:
        """Every caption training can draw; the tokenizer is learnt from these."""
        return [
            template.format(words)
            for name, others in zip(self.class_names, self.synonyms)
            for words in (name, *others)
            for template in [*self.templates, *(t for condition in self.conditions for t in condition.templates)]
        ]

    def draw(self, templates: Sequence[str], generator: Generator) -> list[str]:
        """One random caption for each class."""
        drawn = []
        for name, others in zip(self.class_names, self.synonyms):
            words = (name, name, *others)
            which = int(torch.randint(len(words), (), generator=generator))
            template = int(torch.randint(len(templates), (), generator=generator))
            drawn.append(templates[template].format(words[which]))
        return drawn


def to_input(pixels: Tensor, size: int) -> Tensor:
    """Resize the shorter side of ``(N, C, H, W)`` to ``size`` and crop the centre, as CLIP does, in float."""
    height, width = pixels.shape[-2:]
    scale = size / min(height, width)
    target = (max(size, int(height * scale)), max(size, int(width * scale)))
    resized = F.interpolate(pixels, size=target, mode="bicubic", antialias=True, align_corners=False)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return resized[..., top : top + size, left : left + size]


def _cosines(size: int, count: int) -> Tensor:
    """The lowest two-dimensional cosine waves on a patch, unit norm: ``(count**2, size, size)``."""
    position = (torch.arange(size) + 0.5) / size
    waves = torch.stack([torch.cos(torch.pi * k * position) for k in range(count)])
    waves = waves / waves.norm(dim=1, keepdim=True)
    return torch.einsum("ai,bj->abij", waves, waves).reshape(-1, size, size)


def _smooth_patches(model: CLIPModel, recipe: Recipe, generator: Generator) -> None:
    """Start the patch embedding from smooth filters: photographs of anatomy hold little in single pixels."""
    weight = model.vision_model.embeddings.patch_embedding.weight
    waves = _cosines(recipe.patch_size, recipe.smooth_frequencies)
    frequency = torch.arange(recipe.smooth_frequencies)
    # Anatomy has a spectrum of about 1/f: louder high waves make all of them count alike at the start.
    loudness = torch.sqrt(1.0 + frequency[:, None] ** 2 + frequency[None, :] ** 2).flatten() / recipe.patch_size
    mixing = torch.randn((len(weight), 3, len(waves)), generator=generator) * loudness / math.sqrt(3 * len(waves))
    smooth = torch.einsum("ocw,wij->ocij", mixing, waves)
    rough = torch.randn(weight.shape, generator=generator) / math.sqrt(3) / recipe.patch_size
    with torch.no_grad():
        weight.copy_(smooth + recipe.rough_share * rough)


def build_model(recipe: Recipe, vocabulary: int, seed: int) -> CLIPModel:
    """A CLIP of the recipe's size with random weights; the global random state is left as it was."""
    config = CLIPConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": recipe.text_width,
            "intermediate_size": 4 * recipe.text_width,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": recipe.text_heads,
            "max_position_embeddings": recipe.context_length,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
        vision_config={
            "hidden_size": recipe.width,
            "intermediate_size": 4 * recipe.width,
            "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads,
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
        },
        projection_dim=recipe.embedding_dim,
        logit_scale_init_value=math.log(recipe.logit_scale),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        # The library's initial sizes suit wide towers; in a narrow one, tokens so small would all look alike.
        model.text_model.embeddings.token_embedding.weight.normal_(0, 0.3, generator=generator)
        model.text_model.embeddings.position_embedding.weight.normal_(0, 0.1, generator=generator)
        model.vision_model.embeddings.position_embedding.weight.normal_(0, 0.5, generator=generator)
        for tower in (model.text_model.encoder, model.vision_model.encoder):
            for layer in tower.layers:
                for linear in (m for m in layer.modules() if isinstance(m, torch.nn.Linear)):
                    linear.weight.normal_(0, 1 / math.sqrt(linear.in_features), generator=generator)
                for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                    last.weight.mul_(1 / math.sqrt(2 * len(tower.layers)))
        for head in (model.text_projection, model.visual_projection):
            head.weight.normal_(0, 1 / math.sqrt(head.in_features), generator=generator)
    _smooth_patches(model, recipe, generator)
    model.logit_scale.requires_grad_(False)
    return model


def image_features(model: CLIPModel, x: Tensor, recipe: Recipe) -> Tensor:
    """Normalised image features ``(B, D)`` of ``(B, 1 or 3, S, S)`` in [0, 1] (plus noise)."""
    pixels = ((x - recipe.mean) / recipe.std).expand(-1, 3, -1, -1)
    pooled = model.vision_model(pixel_values=pixels).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=-1)


def text_features(model: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Normalised text features ``(N, D)``."""
    encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
    pooled = model.text_model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def contrastive_loss(images: Tensor, texts: Tensor, labels: Tensor, text_labels: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy both ways between images ``(B, D)`` and captions ``(T, D)``; all captions of a class are right."""
    logits = scale * images @ texts.T
    same = (labels[:, None] == text_labels[None, :]).float()
    to_text = -(F.log_softmax(logits, dim=1) * same).sum(1) / same.sum(1)
    count = same.sum(0)
    to_image = -(F.log_softmax(logits, dim=0) * same).sum(0)[count > 0] / count[count > 0]
    return to_text.mean() + 0.25 * to_image.mean()


def _rate(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / 100)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _balanced(labels: Tensor, count: int, generator: Generator) -> Tensor:
    """``count`` indices with every class equally likely."""
    weights = 1.0 / torch.bincount(labels).float()[labels]
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def _optimizer(model: CLIPModel, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _step_loss(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: Tensor,
    labels: Tensor,
    captions: Captions,
    recipe: Recipe,
    generator: Generator,
    step: int,
) -> Tensor:
    """A batch as it comes with neutral captions; later, half of it may be under a condition they name."""
    looks = [(captions.templates, recipe.augmentation)]
    if captions.conditions and step >= recipe.conditions_from * recipe.steps and step % 2:
        condition = captions.conditions[int(torch.randint(len(captions.conditions), (), generator=generator))]
        looks.append((condition.templates, replace(recipe.augmentation, **condition.changes)))
    parts = list(zip(images.tensor_split(len(looks)), labels.tensor_split(len(looks)), looks))
    batch = torch.cat([augment(part, look, generator) for part, _, (_, look) in parts])
    copies = range(recipe.captions_per_class)
    texts = [text for templates, _ in looks for _ in copies for text in captions.draw(templates, generator)]
    seen = image_features(model, batch, recipe).tensor_split(len(looks))
    said = text_features(model, tokenizer, texts).tensor_split(len(looks))
    text_labels = torch.arange(len(captions.class_names)).repeat(len(copies))
    scale = model.logit_scale.exp()
    losses = [
        contrastive_loss(images_seen, texts_said, part[1], text_labels, scale)
        for images_seen, texts_said, part in zip(seen, said, parts)
    ]
    return torch.stack(losses).mean()


def train(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    images: Tensor,
    labels: Tensor,
    captions: Captions,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    log: Callable[[str], None] = print,
    watch: Callable[[CLIPModel], Mapping[str, float]] | None = None,
    minutes: float | None = None,
) -> None:
    """Train in place on float images ``(N, 1 or 3, S, S)`` in [0, 1], without noise.

    Args:
        checkpoint: a file written every 200 steps; an existing one is continued from.
        watch: called every 200 steps; what it returns is logged.
        minutes: the learning-rate schedule is by steps, but stop (keeping the weights) when this time is up.
    """
    optimizer = _optimizer(model, recipe)
    generator = Generator().manual_seed(seed + 1)
    first, start = 0, time.monotonic()
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first = int(state["step"])
    model.train()
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, recipe)
        chosen = _balanced(labels, recipe.batch_size, generator)
        loss = _step_loss(model, tokenizer, images[chosen], labels[chosen], captions, recipe, generator, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = step + 1 == recipe.steps
        if (step + 1) % 50 == 0 or last:
            model.eval()
            found = watch(model) if watch else {}
            model.train()
            told = " ".join(f"{key} {value:.3f}" for key, value in found.items())
            log(f"step {step + 1} loss {loss.item():.3f} {told} {time.monotonic() - start:.0f} s")
            if checkpoint is not None:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save({**state, "generator": generator.get_state()}, checkpoint)
        if minutes is not None and time.monotonic() - start > 60 * minutes:
            log(f"stopped by time at step {step + 1}")
            break
    model.eval()


def save(model: CLIPModel, recipe: Recipe, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json beside the tokenizer files."""
    model.save_pretrained(folder, safe_serialization=True)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": recipe.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": recipe.image_size, "width": recipe.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [recipe.mean] * 3,
        "image_std": [recipe.std] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
