"""Adapters of segmentation networks on real images: plain, behind a denoiser, adapted, and both.

    python -m benchmarks.study_mask_adapters --set jsrt4 --data ../shared/data --models studies
    python -m benchmarks.study_mask_adapters --report docs/adapters.md

The first learns an adapter on training images and certifies, each sigma into a run folder; a stopped study goes on
where it was. The last writes its section of the page anew. Networks: ``python -m training.study_segmentation``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.home import Places, numbers, replace_section, report_command, table
from benchmarks.study_segmentation import DENOISER_OF, Setting, request, results
from certimed.adapters import RECIPES, Adaptation, AdapterPlan, Draw, Parts, tune_adapter
from certimed.engine import DENOISED, PLAIN
from certimed.runs import DataSpec, RunSpec
from certimed.segmenters import load_segmenter
from certimed.studies import run_study
from training.study_segmentation import StudySet, load_set

MARKER = "mask adapters"
SIGMAS = (0.0, 0.1, 0.25, 0.5, 1.0)
TIMED = 16
SHOWN = ("Dice (clean)", "certified Dice (published)")


def learnt(spec: RunSpec, study_set: StudySet, setting: Setting, shots: int, steps: int, path: Path) -> Path:
    """The adapter, learnt once on training images and kept."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = DataSpec(spec.data.path, spec.data.classes, masks=spec.data.masks).open()
    train, test = (whole.subset(np.flatnonzero(part).tolist()) for part in (~study_set.test, study_set.test))
    recipe = replace(RECIPES["masks"], steps=steps, batch=8)
    plan = AdapterPlan(Parts(("lora", "layernorm")), recipe, SIGMAS, bfloat16=True, noise=spec.noise, seed=setting.seed)
    model = load_segmenter(spec.model)
    found = tune_adapter(
        model, train, study_set.class_names, plan, Draw(shots), test=test, checkpoint=path.with_suffix(".checkpoint"),
        progress=lambda state: print(f"step {state.done}, loss {state.loss:.3f}", flush=True),
    )  # fmt: skip
    found.save(path)
    return path


def sample_seconds(spec: RunSpec) -> dict[str, float]:
    """Seconds of one noisy copy through each method, without the noise: the faster of two batches."""
    job = spec.load()
    x = job.prepare(job.dataset.load(0)).pixels.expand(TIMED, -1, -1, -1).contiguous()
    found = {}
    for method in job.engine.methods:
        stream, spent = method.encoder(job.engine.streams), []
        for _ in range(2):
            begin = time.process_time()
            with torch.no_grad():
                stream(x.clone())
            spent.append((time.process_time() - begin) / TIMED)
        found[method.name] = min(spent)
    return found


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: mask_adapters below the models")
    for name, default in (("images", 8), ("n", 100), ("shots", 64), ("steps", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sigma", type=numbers, default=(0.25,))
    parser.add_argument("--no-denoiser", action="store_true", help="plain and adapted only")


def _certify(given: argparse.Namespace, places: Places) -> tuple[str, dict[str, Any]]:
    methods = (PLAIN,) if given.no_denoiser else (PLAIN, DENOISED)
    setting = Setting(given.name, given.images, n=given.n, seed=given.seed, sigmas=given.sigma, methods=methods)
    study_set = load_set(setting.name, places.data)
    spec = request(setting, places, study_set)
    folder = ((given.out or places.models / "mask_adapters") / setting.name).resolve()
    file = learnt(spec, study_set, setting, given.shots, given.steps, folder / "lora.safetensors")
    more = (f"adapted={file}",) if given.no_denoiser else (f"adapted={file}", f"denoised and adapted=denoised+{file}")
    spec = spec.changed(methods=(*methods, *more))
    study = run_study({f"sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in setting.sigmas}, folder)
    made = Adaptation.load(file)
    return f"mask_adapters_{setting.name}", {
        **results(setting, study_set, study),
        "setting": {**asdict(setting), "images": study.series[0].images, "shots": given.shots, "steps": given.steps},
        "learnt": {"numbers": made.size, "bytes": file.stat().st_size, "seconds": made.seconds},
        "sample seconds": sample_seconds(spec.changed(sigma=setting.sigmas[0])),
    }


def write_section(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """The section of the page."""
    head = (
        "## Masks, measured\n\nNetworks and denoisers of [certified segmentation](results.md#certified-segmentation): "
        "U-Nets trained on clean images. One adapter for all sigmas (LoRA of rank 8, and scales; cross-entropy and "
        "Dice), learnt on training images. Seconds a sample are processor time of one core in bfloat16, without the "
        "noise. Made with `python -m benchmarks.study_mask_adapters --set SET`, then `--report docs/adapters.md`.\n"
    )
    replace_section(path, MARKER, "\n".join([head, *(section(one) for one in found)]))


def section(study: dict[str, Any]) -> str:
    """One set."""
    setting, cost = study["setting"], study["sample seconds"]
    title = (
        f"### {study['set']}\n\n{setting['images']} test images, n0 = {setting['n0']}, n = {setting['n']}, tau = "
        f"{setting['tau']:g}, alpha = {setting['alpha']:g}; adapter: {study['learnt']['numbers']:,} numbers, "
        f"{setting['steps']} steps on {setting['shots']} images.\n"
    )
    rows = []
    for sigma, one in study["sigmas"].items():
        for name, row in one["methods"].items():
            clean, published = (row["foreground"][metric]["mean"] for metric in SHOWN)
            dice = row["foreground"]["guaranteed Dice"]
            own = f"**{dice['mean']:.3f}** [{dice['low']:.3f}, {dice['high']:.3f}]"
            shares = (f"{clean:.3f}", f"{published:.3f}", own, f"{100 * row['abstained']:.1f} %")
            rows.append((sigma, name, *shares, f"{cost[name]:.3f}"))
    columns = ("sigma", "method", "clean, plain network", "published", "guaranteed", "abstained", "s a sample")
    return "\n".join([title, table(columns, rows), *readings(study), ""])


def readings(study: dict[str, Any]) -> list[str]:
    """The adapted network beside the denoised one, in sentences."""
    found, cost = [], study["sample seconds"]
    for sigma, one in study["sigmas"].items():
        dice = {name: row["foreground"]["guaranteed Dice"]["mean"] for name, row in one["methods"].items()}
        if "adapted" not in dice or DENOISED not in dice:
            continue
        found.append(
            f"* sigma {sigma}: adapted, the network reaches {100 * dice['adapted'] / dice[DENOISED]:.0f} % of the "
            f"denoised one's guaranteed Dice at {100 * cost['adapted'] / cost[DENOISED]:.0f} % of its time a sample "
            f"(this denoiser is a small one); both together {dice['denoised and adapted'] - dice[DENOISED]:+.3f}."
        )
    return found


if __name__ == "__main__":
    report_command(__doc__, list(DENOISER_OF), _options, _certify, write_section, "mask_adapters_{}.json")
