"""Recorded full runs: which class won on each of 10 000 noisy copies of an image, so that budgets can be replayed.

Sample i of an image depends on its key and i alone, so a budget that stops after m samples would have seen exactly the
first m of a recorded run: comparing budgets costs no further forward pass. Recordings are results, not images, and are
kept with the other results; more images are added by recording on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.home import Places
from benchmarks.study_promptsmooth import World, open_world
from certimed.engine import noisy_batches
from certimed.errors import InputError
from certimed.noise import Float32Gaussian, NoiseKey
from certimed.prompts import Prompt
from certimed.vlm import PromptedClassifier, ZeroShotClassifier

Winners = NDArray[np.uint8]

SEED = 0
PUBLISHED_SIGMAS = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Run:
    """One image, prompt and sigma: the winners of its selection and estimation samples, in order."""

    image: int
    label: int
    method: str
    sigma: float
    classes: int
    selection: Winners
    estimation: Winners


def record(name: str, places: Places, *, images: int, n0: int, n: int, sigmas: tuple[float, ...]) -> Path:
    """Record what is missing of the first ``images`` test images, image by image, and return the file.

    Raises:
        InputError: the file there belongs to another model, n or set of sigmas.
    """
    path = recording_path(places.results, name)
    world = open_world(name, places, images, SEED)
    heads = classifiers(world, places.models.joinpath("promptsmooth", name, "mixed.safetensors"))
    about = {
        "set": name,
        "model": world.vlm.identity,
        "n0": n0,
        "n": n,
        "sigmas": list(sigmas),
        "methods": list(heads),
        "classes": len(world.names),
        "seed": SEED,
    }
    arrays = _open(path, about)
    for index, item in enumerate(world.test.ids):
        if (digest := hashlib.sha256(item.encode()).hexdigest()[:16]) in arrays["items"]:
            continue
        image = world.test.load(index)
        x = world.vlm.preprocess(torch.from_numpy(image.pixels))
        won = np.stack([_winners(world, heads, x, image.id, sigma, n0, n) for sigma in sigmas])
        arrays["items"] = np.append(arrays["items"], digest)
        arrays["labels"] = np.append(arrays["labels"], np.int64(image.label or 0))
        arrays["winners"] = np.concatenate([arrays["winners"], won[None]])
        _save(path, about, arrays)
        print(f"recorded {name} image {len(arrays['items'])} of {len(world.test)}", flush=True)
    return path


def recording_path(results: Path, name: str) -> Path:
    """Where the recording of a set is kept."""
    return results / f"recording_{name}.npz"


def runs(path: Path, images: int | None = None) -> Iterator[Run]:
    """The runs of a recording, of its first ``images`` images."""
    with np.load(path, allow_pickle=False) as content:
        about = json.loads(str(content["about"]))
        labels, winners = content["labels"][:images], content["winners"][:images]
    for image, (label, of_image) in enumerate(zip(labels, winners)):
        for sigma, of_sigma in zip(about["sigmas"], of_image):
            for method, won in zip(about["methods"], of_sigma):
                n0 = about["n0"]
                yield Run(image, int(label), method, sigma, about["classes"], won[:n0], won[n0:])


def classifiers(world: World, prompt: Path) -> dict[str, PromptedClassifier]:
    """Plain zero-shot prompts, and the study's few-shot prompt where it has been learnt."""
    template = f"{world.context} {{}}."
    heads: dict[str, PromptedClassifier] = {"plain": ZeroShotClassifier(world.vlm, world.names, template)}
    if prompt.is_file():
        heads["few-shot"] = Prompt.load(prompt).classifier(world.vlm)
    return heads


def _winners(
    world: World, heads: dict[str, PromptedClassifier], x: Tensor, item: str, sigma: float, n0: int, n: int
) -> Winners:
    """uint8 ``(methods, n0 + n)``: the engine's own noise, each copy embedded once for all prompts."""
    parts: list[Tensor] = []
    with torch.inference_mode():
        for phase, count in (("selection", n0), ("estimation", n)):
            for batch in noisy_batches(x, Float32Gaussian(sigma), NoiseKey(SEED, item, phase), count, batch_size=128):
                embedded = world.vlm.encode_image(batch)
                parts.append(torch.stack([head.logits(embedded).argmax(dim=1) for head in heads.values()]))
    return torch.cat(parts, dim=1).to(torch.uint8).numpy()


def _open(path: Path, about: dict[str, Any]) -> dict[str, NDArray[Any]]:
    if not path.exists():
        shape = (0, len(about["sigmas"]), len(about["methods"]), about["n0"] + about["n"])
        return {"items": np.zeros(0, "<U16"), "labels": np.zeros(0, np.int64), "winners": np.zeros(shape, np.uint8)}
    with np.load(path, allow_pickle=False) as content:
        before = json.loads(str(content["about"]))
        changed = [key for key in about if before.get(key) != about[key]]
        if changed:
            raise InputError(
                f"{path} was recorded with {changed[0]} {before.get(changed[0])}, now {about[changed[0]]}; "
                "move the file away to record anew"
            )
        return {key: content[key] for key in ("items", "labels", "winners")}


def _save(path: Path, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    partial.replace(path)
