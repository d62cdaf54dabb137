"""Certified segmentation on real images: what is guaranteed with and without a denoiser in front.

    python -m benchmarks.study_segmentation --set jsrt --data ../shared/data --models studies
    python -m benchmarks.study_segmentation --set isic --n 1000 --sigma 0.5 --methods denoised
    python -m benchmarks.study_segmentation --report docs/results.md

The first two certify; every image is a line on disk, so a stopped run goes on where it was. The last writes the section
of the report anew from the results of all sets. Networks and denoisers: ``python -m training.study_segmentation``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import nn

from benchmarks.lines import check_settings, whole_lines
from benchmarks.segmentation_report import write_section
from certimed.acceleration import Accelerated, Acceleration
from certimed.data import MedicalImage, Step
from certimed.denoising import Compose, load_denoiser
from certimed.errors import InputError
from certimed.metrics import MaskScores, MaskSummary, summarise_masks
from certimed.runs import DENOISED, PLAIN, MaskCertifier, MaskSettings
from certimed.statistics import radius_from_lower
from training.segmenter import smp_unet
from training.study_segmentation import StudySet, load_set

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
        bfloat16: run network and denoiser in autocast bfloat16, the network channels last (a third faster on a CPU with
            such instructions); the noise stays float32.
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


def certified_models(setting: Setting, models: Path, study_set: StudySet, sigma: float) -> dict[str, nn.Module]:
    """The network alone, and behind the denoiser of its modality."""
    weights = models / f"unet_{setting.name}" / "model.safetensors"
    folder = models / f"denoiser_{DENOISER_OF[setting.name]}"
    for needed, part in (
        (weights, f"{setting.name} --part unet"),
        (folder / "unet", f"{folder.name[9:]} --part denoiser"),
    ):
        if not needed.exists():
            raise InputError(f"{needed} is missing; train it with: python -m training.study_segmentation --set {part}")
    network = smp_unet(study_set.images.shape[1], len(study_set.class_names))
    network.load_state_dict(load_file(weights))
    speed = Acceleration("bfloat16", channels_last=True) if setting.bfloat16 else Acceleration()
    plain = Accelerated(network.eval(), speed)
    denoiser = load_denoiser(f"diffusers:{folder}", autocast=speed.dtype)
    return {PLAIN: plain, DENOISED: Compose(denoiser.at(sigma), plain).eval()}


def held_out_images(setting: Setting, study_set: StudySet, data: Path) -> list[MedicalImage]:
    """Test images with their masks; ``group`` is the video of a colonoscopy frame."""
    test = np.flatnonzero(study_set.test)
    chosen = test[np.linspace(0, len(test) - 1, min(setting.images, len(test))).astype(int)]
    groups: dict[int, str] = {}
    if setting.name == "cvc":
        with np.load(data / "seg_polyp_cvcclinicdb.npz", allow_pickle=False) as content:
            sequence = content["sequence"]
        groups = {int(index): f"sequence {sequence[index]}" for index in chosen}
    return [
        MedicalImage(
            id=f"{setting.name} {index}",
            pixels=study_set.images[index].astype(np.float32) / 255,
            label=None,
            steps=(Step("divided", {"what": "8-bit values", "top": 255}),),
            source=setting.name,
            mask=study_set.masks[index],
            group=groups.get(int(index)),
        )
        for index in chosen
    ]


def certify(setting: Setting, data: Path, models: Path, folder: Path) -> tuple[StudySet, list[MedicalImage]]:
    """Certify what is not on disk yet; one line an image and sigma."""
    study_set = load_set(setting.name, data)
    images = held_out_images(setting, study_set, data)
    check_settings(folder, asdict(setting))
    for sigma in setting.sigmas:
        path = folder / f"sigma-{sigma:g}.jsonl"
        done = {json.loads(line)["item"] for line in whole_lines(path)}
        left = [image for image in images if image.id not in done]
        if not left:
            continue
        made = certified_models(setting, models, study_set, sigma)
        settings = MaskSettings(
            sigma=sigma, n0=setting.n0, n=setting.n, tau=setting.tau, alpha=setting.alpha, seed=setting.seed
        )
        certifier = MaskCertifier(
            {name: made[name] for name in setting.methods}, made[PLAIN], len(study_set.class_names), settings
        )
        begin = time.perf_counter()
        for image in left:
            _, scores = certifier(image)
            line = {
                "item": image.id,
                "group": image.group,
                "scores": {name: found.to_dict() for name, found in scores.items()},
            }
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        spent = (time.perf_counter() - begin) / len(left)
        print(f"{setting.name} sigma {sigma:g}: {len(left)} images, {spent:.2f} s each", flush=True)
    return study_set, images


def results(setting: Setting, study_set: StudySet, images: list[MedicalImage], folder: Path) -> dict[str, Any]:
    """The figures of one set, from its lines."""
    rows: dict[str, Any] = {}
    for sigma in setting.sigmas:
        lines = [json.loads(line) for line in whole_lines(folder / f"sigma-{sigma:g}.jsonl")]
        groups = [line["group"] for line in lines]
        rows[f"{sigma:g}"] = {
            "radius": float(radius_from_lower(setting.tau, sigma)),
            "methods": {
                method: method_results(
                    summarise_masks(
                        [MaskScores.from_dict(line["scores"][method], setting.alpha, False) for line in lines],
                        groups=None if None in groups else groups,
                        class_names=study_set.class_names,
                    ),
                    study_set.class_names,
                )
                for method in setting.methods
            },
        }
    return {
        "set": setting.name,
        "setting": {**asdict(setting), "images": len(images)},
        "classes": list(study_set.class_names),
        "shape": list(study_set.images.shape[1:]),
        "groups": len({image.group for image in images}) if images[0].group else None,
        "sigmas": rows,
    }


def method_results(summary: MaskSummary, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Foreground means with intervals, the guaranteed Dice of each class, and the share abstained."""
    share = summary["whole image", "share certified"].mean

    def cell(name: str, metric: str) -> dict[str, float]:
        found = summary[name, metric]
        return {"mean": found.mean, "low": found.low, "high": found.high}

    return {
        "foreground": {metric: cell("foreground mean", metric) for metric in METRICS},
        "classes": {name: cell(name, "guaranteed Dice") for name in class_names[1:]},
        "lower": summary.lower["foreground mean", "guaranteed Dice"],
        "abstained": 1 - share,
    }


def main() -> None:
    """Certify one set, or write the report from what is there."""
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(DENOISER_OF), dest="name")
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=root / "studies")
    parser.add_argument("--out", type=Path, default=root / "studies" / "segmentation")
    parser.add_argument("--results", type=Path, default=root / "benchmarks" / "results")
    parser.add_argument("--images", type=int, default=Setting.images)
    parser.add_argument("--n", type=int, default=Setting.n)
    parser.add_argument("--sigma", type=lambda text: tuple(map(float, text.split(","))), default=Setting.sigmas)
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=Setting.methods)
    parser.add_argument("--seed", type=int, default=Setting.seed)
    parser.add_argument("--float32", action="store_true", help="no bfloat16")
    parser.add_argument("--report", type=Path, nargs="?", const=root / "docs" / "results.md")
    given = parser.parse_args()
    if given.name is None and given.report is None:
        parser.error("give --set or --report")
    if given.name is not None:
        setting = Setting(
            given.name,
            given.images,
            n=given.n,
            seed=given.seed,
            sigmas=given.sigma,
            methods=given.methods,
            bfloat16=not given.float32,
        )
        variant = given.name if given.n == Setting.n else f"{given.name}_n{given.n}"
        folder = given.out / variant
        found = results(setting, *certify(setting, given.data, given.models, folder), folder)
        given.results.mkdir(parents=True, exist_ok=True)
        target = given.results / f"segmentation_{variant}.json"
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {target}")
    if given.report is not None:
        known = [
            path
            for name in DENOISER_OF
            for pattern in (f"segmentation_{name}.json", f"segmentation_{name}_n*.json")
            for path in sorted(given.results.glob(pattern))
        ]
        write_section(given.report, [json.loads(path.read_text(encoding="utf-8")) for path in known])
        print(f"written: {given.report}")


if __name__ == "__main__":
    main()
