"""PromptSmooth on real images: what noise costs a small CLIP, and what prompts learnt under noise bring back.

    python -m benchmarks.study_promptsmooth --set demo
    python -m benchmarks.study_promptsmooth --set lc25000 --data ../shared/data --models studies
    python -m benchmarks.study_promptsmooth --report docs/results.md

The first two certify; every image is a line on disk, so a stopped run goes on where it was. The last writes the section
of the report anew from the results of all sets. Models of the studies: ``python -m training.study_clips``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.lines import check_settings, whole_lines
from benchmarks.study_report import write_section
from certimed.assets import asset, demo_prompts
from certimed.certificates import ClassCertificate
from certimed.data import Dataset, class_balanced, few_shot_indices, open_dataset, overlap
from certimed.embeddings import ImageEncoder, embed_copies
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, mean_interval, summarise
from certimed.noise import NoiseKey
from certimed.prompts import RECIPES, Prompt, PromptComparison, PromptLearner, few_shot, pool, prompt_methods
from certimed.prompts.methods import FixedText, Head, Method, Subject
from certimed.vlm import VisionLanguageModel, load
from training.measure import linear_probe

SETS = ("demo", "lc25000", "kermany")
FILES = {"lc25000": "cls_histo_lc25000.npz", "kermany": "cls_cxr_kermany.npz"}
TOKEN_SPREAD_OF_CLIP = 0.013  # the published rate of 5e-3 is meant for token embeddings of this spread
POOL_IMAGES = 64
ONE_SIGMA, SHARED = "few-shot, one sigma", "few-shot, shared"
PROBE, ONE_SIGMA_PROBE = "linear probe", "linear probe, one sigma"
# Chosen on training images that are no shots: a small text tower needs a context for each class, and long tuning.
RECIPE = replace(RECIPES["default"], name="study", lr=0.3)


@dataclass(frozen=True)
class Setting:
    """Everything that decides the numbers of one set.

    Attributes:
        name: of the set.
        images, n0, n, alpha, seed: of the certificates.
        sigmas: certified; few-shot mixes them with the clean image.
        shots, epochs: of few-shot; the probe sees the same images.
        rate: of test-time tuning, in units of the published rate at CLIP's token spread.
    """

    name: str
    images: int
    n: int
    n0: int = 100
    alpha: float = 1e-3
    seed: int = 0
    sigmas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    shots: int = 16
    epochs: int = 300
    copies: int = 100
    rate: float = 1.0


@dataclass(frozen=True)
class World:
    """A model, its words, and disjoint test and tuning images."""

    vlm: VisionLanguageModel
    names: tuple[str, ...]
    context: str
    test: Dataset
    tuning: Dataset


@dataclass(frozen=True, eq=False)
class Probe(Method):
    """A linear classifier on normalised image features, as a method among the others: the same noise."""

    weights: Tensor
    bias: Tensor

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.bias)

    @property
    def settings(self) -> list[Any]:
        """Its numbers."""
        return ["probe", self.weights.tolist(), self.bias.tolist()]

    def head(self, subject: Subject) -> Head:
        """Logits of embeddings."""
        return lambda views: functional.normalize(views, dim=-1) @ self.weights.T + self.bias


def open_world(name: str, data: Path, models: Path, images: int, seed: int) -> World:
    """Load one set; the split of a study model is the one it was trained with."""
    if name == "demo":
        words = demo_prompts()
        entries = [f"{slug}={text}" for slug, text in words["classes"].items()]
        test, tuning = (open_dataset(asset(part), classes=entries) for part in ("demo_images", "demo_tuning_images"))
        spec = "demo"
    else:
        folder = models / f"clip_{name}"
        if not (folder / "split.json").is_file():
            raise InputError(f"{folder} has no split.json; train the model with: python -m training.study_clips {name}")
        words = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
        split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
        entries = [f"{slug}={text}" for slug, text in words["classes"].items()]
        everything = open_dataset(data / split.get("file", FILES[name]), classes=entries)
        test, tuning = (everything.subset(split[part]) for part in ("test", "train"))
        spec = str(folder)
    test = class_balanced(test, min(images, len(test)), seed)
    return World(load(spec), tuple(words["classes"].values()), words["initial_context"], test, tuning)


def to_inputs(world: World, dataset: Dataset, indices: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Images in the certified space and their labels."""
    loaded = [dataset.load(index) for index in indices]
    return [world.vlm.preprocess(torch.from_numpy(image.pixels)) for image in loaded], torch.tensor(
        [image.label for image in loaded]
    )


def tuned_prompts(world: World, setting: Setting, folder: Path) -> dict[str, Prompt]:
    """Every prompt of the comparison, learnt once and kept: mixed, shared, one for each sigma, and the pool's."""
    drawn = few_shot_indices(world.tuning, setting.shots, setting.seed)
    if overlap(world.tuning.subset(drawn), world.test):
        raise InputError(f"the set {setting.name} has images in both parts; check its split.json")
    images, labels = to_inputs(world, world.tuning, drawn)
    mixed = (0.0, *setting.sigmas)
    wanted: dict[str, dict[str, Any]] = {
        "mixed": {"sigmas": mixed, "per_class": True},
        "shared": {"sigmas": mixed},
        **{f"sigma-{sigma:g}": {"sigmas": (sigma,), "per_class": True} for sigma in setting.sigmas},
    }
    prompts = {}
    for name, options in wanted.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            few_shot(
                world.vlm,
                images,
                labels,
                world.names,
                context=world.context,
                recipe=RECIPE,
                epochs=setting.epochs,
                seed=setting.seed,
                shots=setting.shots,
                **options,
            ).save(path)
        prompts[name] = Prompt.load(path)
    path = folder / "pool.safetensors"
    if not path.exists():
        pooled, _ = to_inputs(world, class_balanced(world.tuning, POOL_IMAGES, setting.seed), range(POOL_IMAGES))
        made = pool(
            world.vlm,
            pooled,
            world.names,
            sigmas=setting.sigmas,
            context=world.context,
            lr=rate(world, setting),
            seed=setting.seed,
        )
        made.save(path)
    return {**prompts, "pool": Prompt.load(path)}


def rate(world: World, setting: Setting) -> float:
    """Learning rate of test-time tuning: the published one, scaled to the spread of this model's token embeddings."""
    return setting.rate * 5e-3 * PromptLearner(world.vlm, world.names, world.context).spread / TOKEN_SPREAD_OF_CLIP


def fitted_probe(world: World, setting: Setting, name: str, sigmas: Sequence[float]) -> Probe:
    """Logistic regression on as many noisy copies of the very shots as few-shot learns from: what is to be had."""
    images, labels = to_inputs(world, world.tuning, few_shot_indices(world.tuning, setting.shots, setting.seed))
    encoder = ImageEncoder(world.vlm)
    levels = torch.tensor(tuple(sigmas)).repeat(RECIPE.copies or 1)
    rows = []
    for index, image in enumerate(images):
        rows.append(embed_copies(encoder, image, levels, NoiseKey(setting.seed, f"shot {index}", "probe")))
    weights, bias = linear_probe(functional.normalize(torch.stack(rows), dim=-1), labels, len(world.names))
    return Probe(name, weights, bias)


def methods_at(world: World, setting: Setting, sigma: float, prompts: dict[str, Prompt], probe: Probe) -> list[Method]:
    """All rows of the table; they share one set of embedded noisy copies."""
    made = prompt_methods(
        world.vlm,
        world.names,
        ("none", "few-shot", "zero-shot", "both", "pool"),
        sigma=sigma,
        context=world.context,
        few_shot=prompts["mixed"],
        pool=prompts["pool"],
        copies=setting.copies,
        lr=rate(world, setting),
    )
    return [
        *made,
        FixedText(ONE_SIGMA, prompts[f"sigma-{sigma:g}"].classifier(world.vlm)),
        FixedText(SHARED, prompts["shared"].classifier(world.vlm)),
        probe,
        fitted_probe(world, setting, ONE_SIGMA_PROBE, (sigma,)),
    ]


def certify(world: World, setting: Setting, folder: Path) -> None:
    """Certify what is not on disk yet; one line an image and sigma."""
    check_settings(folder, {**asdict(setting), "model": world.vlm.identity, "recipe": asdict(RECIPE)})
    prompts = tuned_prompts(world, setting, folder)
    probe = fitted_probe(world, setting, PROBE, (0.0, *setting.sigmas))
    # The largest noise first: that is where prompts learnt under noise can matter.
    for sigma in sorted(setting.sigmas, reverse=True):
        path = folder / f"sigma-{sigma:g}.jsonl"
        done = {json.loads(line)["item"] for line in whole_lines(path)}
        left = [index for index, item in enumerate(world.test.ids) if item not in done]
        if not left:
            continue
        comparison = PromptComparison(world.vlm, methods_at(world, setting, sigma, prompts, probe), sigma)
        begin = time.perf_counter()
        for index in left:
            line = certified_line(world, comparison, setting, index)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        spent = (time.perf_counter() - begin) / len(left)
        print(f"{setting.name} sigma {sigma:g}: {len(left)} images, {spent:.2f} s each", flush=True)


def certified_line(world: World, comparison: PromptComparison, setting: Setting, index: int) -> dict[str, Any]:
    """All methods on one image."""
    image = world.test.load(index)
    x = world.vlm.preprocess(torch.from_numpy(image.pixels))
    found = comparison.run(x, n0=setting.n0, n=setting.n, alpha=setting.alpha, seed=setting.seed, item_id=image.id)
    return {
        "item": image.id,
        "label": image.label,
        "clean": {name: result.clean_prediction for name, result in found.items()},
        "certificates": {name: result.certificate.to_dict() for name, result in found.items()},
    }


def results(world: World, setting: Setting, folder: Path) -> dict[str, Any]:
    """The figures of one set, from its lines; a sigma that is not complete is left out and listed."""
    rows: dict[str, Any] = {}
    unfinished = []
    for sigma in setting.sigmas:
        lines = [json.loads(line) for line in whole_lines(folder / f"sigma-{sigma:g}.jsonl")]
        if len(lines) < len(world.test):
            unfinished.append(sigma)
        else:
            rows[f"{sigma:g}"] = sigma_results(lines)
    if not rows:
        raise InputError(f"{folder} has no sigma with all {len(world.test)} images yet; go on without --results-only")
    return {
        "set": setting.name,
        "setting": {**asdict(setting), "images": len(world.test)},
        "model": {"identity": world.vlm.identity, "input_shape": list(world.vlm.input_shape)},
        "classes": len(world.names),
        "radii": list(PUBLISHED_RADII),
        "sigmas": rows,
        "unfinished": unfinished,
    }


def sigma_results(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Per method the certified accuracy curve; and paired differences of few-shot, with intervals over images."""
    labels = [line["label"] for line in lines]
    methods: dict[str, Any] = {}
    at_zero: dict[str, list[float]] = {}
    for name in lines[0]["certificates"]:
        made = [ClassCertificate.from_json(json.dumps(line["certificates"][name])) for line in lines]
        found = summarise(made, labels, [line["clean"][name] for line in lines], radii=PUBLISHED_RADII)
        at_zero[name] = [float(c.prediction == y and not c.abstained) for c, y in zip(made, labels)]
        methods[name] = {
            "scope": made[0].scope,
            "clean": found.clean_accuracy,
            "noisy": found.noisy_accuracy,
            "certified": found.certified_accuracy,
            "intervals": found.intervals,
            "lower": found.accuracy_lower,
            "too_few_samples": found.too_few_samples,
            "unstable": found.unstable,
        }
    pairs = {"few-shot": "none", SHARED: "none", PROBE: "none", ONE_SIGMA: "few-shot"}
    return {
        "methods": methods,
        "differences": {f"{a} - {b}": difference(at_zero[a], at_zero[b]) for a, b in pairs.items()},
    }


def difference(first: list[float], second: list[float]) -> dict[str, float]:
    """Mean of paired differences at radius 0 with its 95 % interval over images (bootstrap)."""
    found = mean_interval([a - b for a, b in zip(first, second, strict=True)])
    return {"mean": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    """Certify one set, or write the report from what is there."""
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, dest="name")
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=root / "studies")
    parser.add_argument("--out", type=Path, default=root / "studies" / "promptsmooth")
    parser.add_argument("--results", type=Path, default=root / "benchmarks" / "results")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--n", type=int, default=1_000)
    parser.add_argument("--sigma", type=lambda text: tuple(map(float, text.split(","))), default=Setting.sigmas)
    parser.add_argument("--shots", type=int, default=Setting.shots)
    parser.add_argument("--epochs", type=int, default=Setting.epochs)
    parser.add_argument("--copies", type=int, default=Setting.copies)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results-only", action="store_true", help="certify nothing, use the lines there are")
    parser.add_argument("--report", type=Path, nargs="?", const=root / "docs" / "results.md")
    given = parser.parse_args()
    if given.name is None and given.report is None:
        parser.error("give --set or --report")
    if given.name is not None:
        setting = Setting(
            given.name,
            given.images,
            given.n,
            seed=given.seed,
            sigmas=given.sigma,
            shots=given.shots,
            epochs=given.epochs,
            copies=given.copies,
        )
        world = open_world(given.name, given.data, given.models, given.images, given.seed)
        if not given.results_only:
            certify(world, setting, given.out / given.name)
        found = results(world, setting, given.out / given.name)
        given.results.mkdir(parents=True, exist_ok=True)
        target = given.results / f"promptsmooth_{given.name}.json"
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {target}")
    if given.report is not None:
        known = [path for name in SETS if (path := given.results / f"promptsmooth_{name}.json").is_file()]
        write_section(given.report, [json.loads(path.read_text(encoding="utf-8")) for path in known])
        print(f"written: {given.report}")


if __name__ == "__main__":
    main()
