"""Certified segmentation on real images: what is guaranteed with and without a denoiser in front.

    python -m benchmarks.study_segmentation --set jsrt --data ../shared/data --models studies
    python -m benchmarks.study_segmentation --set isic --n 1000 --sigma 0.5 --methods denoised
    python -m benchmarks.study_segmentation --report docs/results.md

The first two certify, each sigma into a run folder; a stopped run goes on where it was. The last writes the section
of the report anew from the results of all sets. Networks and denoisers: ``python -m training.study_segmentation``.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.home import Places, numbers, report_command
from benchmarks.study_report import write_section
from certimed.engine import DENOISED, PLAIN, Acceleration
from certimed.errors import InputError
from certimed.metrics import MaskSummary
from certimed.report.series import Series
from certimed.runs import DataSpec, MaskTarget, RunSpec
from certimed.statistics import radius_from_lower
from certimed.studies import Study, run_study
from training.study_segmentation import FILES, StudySet, load_set

DENOISER_OF = {"jsrt": "xray", "jsrt4": "xray", "shenzhen": "xray", "isic": "isic", "cvc": "cvc"}
METRICS = (
    "Dice (clean)",
    "Dice (noisy)",
    "certified Dice (published)",
    "guaranteed Dice",
    "best-case Dice",
    "certified IoU (published)",
    "guaranteed IoU",
)


@dataclass(frozen=True)
class Setting:
    """Everything that decides the numbers of one set; the defaults are the published protocol.

    Attributes:
        images: certified, evenly spaced over the test part.
        bfloat16: run network and denoiser in autocast bfloat16, channels last (a third faster on a CPU with such
            instructions); the noise stays float32.
        noise: the law the recorded results were drawn with.
    """

    name: str
    images: int = 40
    n0: int = 10
    n: int = 100
    tau: float = 0.75
    alpha: float = 1e-3
    seed: int = 0
    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    methods: tuple[str, ...] = (PLAIN, DENOISED)
    bfloat16: bool = True
    noise: str = "float32"


def request(setting: Setting, places: Places, study_set: StudySet) -> RunSpec:
    """The run of one set, without its sigma."""
    network, denoiser = (
        places.models / f"unet_{setting.name}",
        places.models / f"denoiser_{DENOISER_OF[setting.name]}",
    )
    parts = {network / "config.json": f"{setting.name} --part unet"}
    parts[denoiser / "unet"] = f"{denoiser.name[9:]} --part denoiser"
    for needed, part in parts.items():
        if not needed.exists():
            raise InputError(f"{needed} is missing; train it with: python -m training.study_segmentation --set {part}")
    data = DataSpec(
        str(places.data / FILES[setting.name]),
        study_set.class_names,
        masks="masks_multi" if setting.name == "jsrt4" else "masks",
    )
    test, ids = np.flatnonzero(study_set.test), data.open().ids
    chosen = test[np.linspace(0, len(test) - 1, min(setting.images, len(test))).astype(int)]
    return RunSpec(
        f"smp:{network}",
        DataSpec(data.path, data.classes, masks=data.masks, items=tuple(ids[index] for index in chosen)),
        MaskTarget((setting.tau,)),
        methods=setting.methods,
        noise=setting.noise,
        budget=setting.n,
        n0=setting.n0,
        alpha=setting.alpha,
        seed=setting.seed,
        denoiser=f"diffusers:{denoiser}" if DENOISED in setting.methods else None,
        speed=Acceleration("bfloat16", channels_last=True) if setting.bfloat16 else Acceleration(),
    )


def results(setting: Setting, study_set: StudySet, study: Study) -> dict[str, Any]:
    """The figures of one set."""
    groups = study.series[0].groups if setting.name == "cvc" else None
    return {
        "set": setting.name,
        "setting": {**asdict(setting), "images": study.series[0].images},
        "classes": list(study_set.class_names),
        "shape": list(study_set.images.shape[1:]),
        "groups": None if groups is None else len(set(groups)),
        "sigmas": {
            f"{sigma:g}": {
                "radius": float(radius_from_lower(setting.tau, sigma)),
                "methods": {
                    one.label: method_results(one, study_set.class_names) for one in study.series if one.sigma == sigma
                },
            }
            for sigma in setting.sigmas
        },
    }


def method_results(series: Series[Any], class_names: tuple[str, ...]) -> dict[str, Any]:
    """Foreground means with intervals, the guaranteed Dice of each class, and the share abstained."""
    summary = series.dice()
    assert summary is not None
    return {
        "foreground": {metric: _cell(summary, "foreground mean", metric) for metric in METRICS},
        "classes": {name: _cell(summary, name, "guaranteed Dice") for name in class_names[1:]},
        "lower": summary.lower["foreground mean", "guaranteed Dice"],
        "abstained": 1 - summary["whole image", "share certified"].mean,
    }


def _cell(summary: MaskSummary, name: str, metric: str) -> dict[str, float]:
    found = summary[name, metric]
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: segmentation below the models")
    for name in ("images", "n"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Setting, name))
    parser.add_argument("--sigma", type=numbers, default=Setting.sigmas)
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=Setting.methods)
    parser.add_argument("--float32", action="store_true", help="no bfloat16")


def _certify(given: argparse.Namespace, places: Places) -> tuple[str, dict[str, Any]]:
    own = {name: getattr(given, name) for name in ("images", "n", "seed", "methods")}
    setting = Setting(given.name, sigmas=given.sigma, bfloat16=not given.float32, **own)
    variant = given.name if given.n == Setting.n else f"{given.name}_n{given.n}"
    study_set = load_set(setting.name, places.data)
    spec = request(setting, places, study_set)
    specs = {f"sigma-{sigma:g}": spec.changed(sigma=sigma) for sigma in setting.sigmas}
    study = run_study(specs, (given.out or places.models / "segmentation") / variant)
    return f"segmentation_{variant}", results(setting, study_set, study)


if __name__ == "__main__":
    report_command(__doc__, list(DENOISER_OF), _options, _certify, write_section, "segmentation_{}.json")
