"""PromptSmooth on real images: what noise costs a small CLIP, and what prompts learnt under noise bring back.

    python -m benchmarks.study_promptsmooth --set demo
    python -m benchmarks.study_promptsmooth --set lc25000 --data ../shared/data --models studies
    python -m benchmarks.study_promptsmooth --report docs/results.md

The first two certify, each sigma into a run folder; a stopped run goes on where it was. The last writes the section
of the report anew from the results of all sets. Models of the studies: ``python -m training.study_clips``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.home import Places, numbers, report_command
from benchmarks.study_report import write_section
from certimed.assets import asset, demo_prompts
from certimed.data import Dataset, class_balanced, few_shot_indices, overlap
from certimed.engine import Engine, Head, Method, ModelStream, Subject, embed_copies
from certimed.errors import InputError
from certimed.metrics import PUBLISHED_RADII, mean_interval
from certimed.noise import NoiseKey
from certimed.prompts import RECIPES, Prompt, PromptLearner, few_shot, load_images, pool
from certimed.report.series import Series
from certimed.runs import ClassJob, DataSpec, Job, Prompting, RunSpec, Tuning
from certimed.studies import Study, run_study
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
        noise: the law the recorded results were drawn with.
    """

    name: str
    images: int = 100
    n: int = 1_000
    n0: int = 100
    alpha: float = 1e-3
    seed: int = 0
    sigmas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    shots: int = 16
    epochs: int = 300
    copies: int = 100
    rate: float = 1.0
    noise: str = "float32"


@dataclass(frozen=True)
class World:
    """A model, its words, and disjoint test and tuning images."""

    model: str
    vlm: VisionLanguageModel
    names: tuple[str, ...]
    context: str
    source: DataSpec
    tuning: Dataset

    @cached_property
    def test(self) -> Dataset:
        """The test images."""
        return self.source.open()


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


def open_world(name: str, places: Places, images: int, seed: int) -> World:
    """Load one set; the split of a study model is the one it was trained with."""
    if name == "demo":
        words, spec = demo_prompts(), "demo"
        entries = tuple(f"{slug}={text}" for slug, text in words["classes"].items())
        source = DataSpec(str(asset("demo_images")), entries)
        test, tuning = source.open(), DataSpec(str(asset("demo_tuning_images")), entries).open()
    else:
        folder = places.models / f"clip_{name}"
        if not (folder / "split.json").is_file():
            raise InputError(f"{folder} has no split.json; train the model with: python -m training.study_clips {name}")
        words, split = (
            json.loads((folder / file).read_text(encoding="utf-8")) for file in ("classes.json", "split.json")
        )
        entries = tuple(f"{slug}={text}" for slug, text in words["classes"].items())
        source = DataSpec(str(places.data / split.get("file", FILES[name])), entries)
        everything = source.open()
        test, tuning = (everything.subset(split[part]) for part in ("test", "train"))
        spec = str(folder)
    chosen = class_balanced(test, min(images, len(test)), seed)
    names = tuple(words["classes"].values())
    return World(spec, load(spec), names, words["initial_context"], replace(source, items=chosen.ids), tuning)


def tuned_prompts(world: World, setting: Setting, folder: Path) -> dict[str, Path]:
    """Every prompt of the comparison, learnt once and kept: mixed, shared, one for each sigma, and the pool's."""
    drawn = few_shot_indices(world.tuning, setting.shots, setting.seed)
    if overlap(world.tuning.subset(drawn), world.test):
        raise InputError(f"the set {setting.name} has images in both parts; check its split.json")
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_images(world.vlm, world.tuning, drawn)
    mixed = (0.0, *setting.sigmas)
    wanted: dict[str, dict[str, Any]] = {
        "mixed": {"sigmas": mixed, "per_class": True},
        "shared": {"sigmas": mixed},
        **{f"sigma-{sigma:g}": {"sigmas": (sigma,), "per_class": True} for sigma in setting.sigmas},
    }
    how = {"context": world.context, "recipe": RECIPE, "epochs": setting.epochs, "shots": setting.shots}
    paths = {name: folder.resolve() / f"{name}.safetensors" for name in (*wanted, "pool")}
    for name, options in wanted.items():
        if not paths[name].exists():
            few_shot(world.vlm, images, labels, world.names, seed=setting.seed, **how, **options).save(paths[name])
        elif (before := Prompt.load(paths[name]).recipe.get("epochs")) != setting.epochs:
            raise InputError(f"{paths[name]} was learnt with {before} epochs, now {setting.epochs}; use another --out")
    if not paths["pool"].exists():
        pooled, _ = load_images(world.vlm, class_balanced(world.tuning, POOL_IMAGES, setting.seed), range(POOL_IMAGES))
        lr, sigmas = rate(world, setting), setting.sigmas
        made = pool(world.vlm, pooled, world.names, sigmas=sigmas, context=world.context, lr=lr, seed=setting.seed)
        made.save(paths["pool"])
    return paths


def rate(world: World, setting: Setting) -> float:
    """Learning rate of test-time tuning: the published one, scaled to the spread of this model's token embeddings."""
    return setting.rate * 5e-3 * PromptLearner(world.vlm, world.names, world.context).spread / TOKEN_SPREAD_OF_CLIP


def fitted_probe(world: World, setting: Setting, name: str, sigmas: Sequence[float]) -> Probe:
    """Logistic regression on as many noisy copies of the very shots as few-shot learns from: what is to be had."""
    shots = few_shot_indices(world.tuning, setting.shots, setting.seed)
    images, labels = load_images(world.vlm, world.tuning, shots)
    encoder, levels = ModelStream(world.vlm), torch.tensor(tuple(sigmas)).repeat(RECIPE.copies or 1)
    rows = [
        embed_copies(encoder, image, levels, NoiseKey(setting.seed, f"shot {index}", "probe"))
        for index, image in enumerate(images)
    ]
    weights, bias = linear_probe(functional.normalize(torch.stack(rows), dim=-1), labels, len(world.names))
    return Probe(name, weights, bias)


def certify(world: World, setting: Setting, folder: Path) -> Study:
    """All methods at every sigma on one set of embedded noisy copies; what is on disk is gone on with."""
    files = tuned_prompts(world, setting, folder)
    probe = fitted_probe(world, setting, PROBE, (0.0, *setting.sigmas))
    spec = RunSpec(
        world.model,
        world.source,
        noise=setting.noise,
        budget=setting.n,
        n0=setting.n0,
        alpha=setting.alpha,
        seed=setting.seed,
        templates=(f"{world.context} {{}}.",),
        tuning=Tuning(world.context, setting.copies, lr=rate(world, setting)),
    )
    specs = {}
    # The largest noise first: that is where prompts learnt under noise can matter.
    for sigma in sorted(setting.sigmas, reverse=True):
        own = (f"few-shot={files['mixed']}", "zero-shot", f"pool={files['pool']}")
        more = (f"{ONE_SIGMA}={files[f'sigma-{sigma:g}']}", f"{SHARED}={files['shared']}")
        specs[f"sigma-{sigma:g}"] = spec.changed(sigma=sigma, methods=("plain", *own, *more))

    def with_probes(one: RunSpec) -> Job:
        job = one.load(model=world.vlm)
        assert isinstance(job, ClassJob)
        methods = [*job.engine.methods, probe, fitted_probe(world, setting, ONE_SIGMA_PROBE, (one.sigma,))]
        engine = Engine(
            job.engine.streams, methods, job.engine.law, space=one.space, device=job.engine.device, share_copies=True
        )
        prompting = Prompting.read(one.methods, one.tuning)
        return ClassJob(one, job.dataset, job.class_names, engine, job.target, job.model, None, prompting)

    return run_study(specs, folder, load=with_probes)


def results(world: World, setting: Setting, study: Study) -> dict[str, Any]:
    """The figures of one set."""
    by_sigma = {f"{sigma:g}": [one for one in study.series if one.sigma == sigma] for sigma in setting.sigmas}
    return {
        "set": setting.name,
        "setting": {**asdict(setting), "images": len(world.test)},
        "model": {"identity": world.vlm.identity, "input_shape": list(world.vlm.input_shape)},
        "classes": len(world.names),
        "radii": list(PUBLISHED_RADII),
        "sigmas": {sigma: sigma_results(own) for sigma, own in by_sigma.items() if own},
        "unfinished": [float(sigma) for sigma, own in by_sigma.items() if not own],
    }


def sigma_results(series: Sequence[Series[Any]]) -> dict[str, Any]:
    """Per method the certified accuracy curve; and paired differences of few-shot, with intervals over images."""
    methods: dict[str, Any] = {}
    at_zero: dict[str, list[float]] = {}
    for one in series:
        found, labels = one.accuracy(PUBLISHED_RADII), one.labels or ()
        at_zero[one.label] = [float(c.prediction == y and not c.abstained) for c, y in zip(one.certificates, labels)]
        methods[one.label] = {
            "scope": one.first.scope,
            "clean": found.clean_accuracy,
            "noisy": found.noisy_accuracy,
            "certified": found.certified_accuracy,
            "intervals": found.intervals,
            "lower": found.accuracy_lower,
            "too_few_samples": found.too_few_samples,
            "unstable": found.unstable,
        }
    pairs = {"few-shot": "plain", SHARED: "plain", PROBE: "plain", ONE_SIGMA: "few-shot"}
    return {
        "methods": methods,
        "differences": {f"{a} - {b}": difference(at_zero[a], at_zero[b]) for a, b in pairs.items()},
    }


def difference(first: list[float], second: list[float]) -> dict[str, float]:
    """Mean of paired differences at radius 0 with its 95 % interval over images (bootstrap)."""
    found = mean_interval([a - b for a, b in zip(first, second, strict=True)])
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: promptsmooth below the models")
    for name in ("images", "n", "shots", "epochs", "copies"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Setting, name))
    parser.add_argument("--sigma", type=numbers, default=Setting.sigmas)


def _certify(given: argparse.Namespace, places: Places) -> tuple[str, dict[str, Any]]:
    own = {name: getattr(given, name) for name in ("images", "n", "seed", "shots", "epochs", "copies")}
    setting = Setting(given.name, sigmas=given.sigma, **own)
    world = open_world(setting.name, places, setting.images, setting.seed)
    study = certify(world, setting, (given.out or places.models / "promptsmooth") / setting.name)
    return f"promptsmooth_{setting.name}", results(world, setting, study)


if __name__ == "__main__":
    report_command(__doc__, SETS, _options, _certify, write_section, "promptsmooth_{}.json")
