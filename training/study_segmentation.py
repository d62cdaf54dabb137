"""Train the networks of the segmentation study: a U-Net per task, trained clean, and a small DDPM per modality.

    python -m training.study_segmentation --set jsrt --part unet
    python -m training.study_segmentation --set xray --part denoiser

Sets with a U-Net: jsrt, jsrt4, shenzhen, isic, cvc. Sets with a denoiser: xray (JSRT and Shenzhen together), isic, cvc.
The data folder is ``--data`` or the environment variable CERTIMED_DATA. Results go to ``--out`` (default ``studies/``),
with ``split_SET.json`` naming the images of either side; an interrupted training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certimed.denoising.training import DenoiserTraining, train_denoiser
from training.segmenter import SMP_UNET, SegmenterTraining, smp_unet, train_segmenter

CVC_TEST_SEQUENCES = (3, 8, 13, 18, 23, 28)
"""Every fifth video: frames of one video are near-copies, so a random split would leak."""

_SMALL = DenoiserTraining(widths=(64, 96, 128), prediction_type="sample", bfloat16=True)
DENOISERS = {
    "xray": (("jsrt", "shenzhen"), replace(_SMALL, augment="jitter", steps=4000)),
    "isic": (("isic",), replace(_SMALL, augment="affine", steps=1600)),
    "cvc": (("cvc",), replace(_SMALL, augment="affine", steps=1600)),
}
SEGMENTERS = {
    "jsrt": SegmenterTraining(steps=600, flip=True),
    "jsrt4": SegmenterTraining(steps=600, flip=False),
    "shenzhen": SegmenterTraining(steps=400, flip=True),
    "isic": SegmenterTraining(steps=500, flip=True, colour=True),
    # Few videos: without strong variation the network knows them by heart and nothing of the others.
    "cvc": SegmenterTraining(steps=1500, flip=True, colour=True, turn=180.0, zoom=0.3, tint=0.2),
}


FILES = {
    "jsrt": "seg_lung_jsrt.npz",
    "jsrt4": "seg_lung_jsrt.npz",
    "shenzhen": "seg_lung_shenzhen.npz",
    "isic": "seg_skin_isic2017.npz",
    "cvc": "seg_polyp_cvcclinicdb.npz",
}


@dataclass(frozen=True)
class StudySet:
    """``images`` uint8 ``(N, C, H, W)``, ``masks`` int64 ``(N, H, W)``, and which images are for the test."""

    images: NDArray[np.uint8]
    masks: NDArray[np.int64]
    test: NDArray[np.bool_]
    class_names: tuple[str, ...]


def load_set(name: str, data: Path) -> StudySet:
    """One data set with the split that does not leak; see the data folder's own README for the sources."""
    with np.load(data / FILES[name], allow_pickle=False) as content:
        arrays = {key: content[key] for key in content.files}
    images = arrays["images"]
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    masks = arrays["masks_multi" if name == "jsrt4" else "masks"].astype(np.int64)
    names = ("background", "right lung", "left lung", "heart") if name == "jsrt4" else tuple(arrays["class_names"])
    return StudySet(np.ascontiguousarray(images), masks, _test_images(name, arrays), tuple(map(str, names)))


def _test_images(name: str, arrays: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    if name in ("jsrt", "jsrt4"):
        test = np.zeros(len(arrays["images"]), dtype=bool)
        test[np.random.default_rng(0).permutation(len(test))[:60]] = True
        return test
    if name == "cvc":
        return np.isin(arrays["sequence"], CVC_TEST_SEQUENCES)
    return np.asarray(arrays["split"] != "train")


def write_split(name: str, study_set: StudySet, out: Path) -> None:
    """``split_SET.json``: indices into the set's file."""
    split = {"train": np.flatnonzero(~study_set.test).tolist(), "test": np.flatnonzero(study_set.test).tolist()}
    (out / f"split_{name}.json").write_text(json.dumps(split) + "\n")


def train_study_denoiser(name: str, data: Path, out: Path, steps: int | None = None) -> None:
    """The DDPM of one modality, from the training images of its sets only; for fewer steps than usual where time is."""
    members, config = DENOISERS[name]
    config = config if steps is None else replace(config, steps=steps)
    sets = [load_set(member, data) for member in members]
    images = np.concatenate([member.images[~member.test] for member in sets])
    begin = time.time()
    train_denoiser(images, out / f"denoiser_{name}", config, progress=_report(begin))


def train_study_segmenter(name: str, data: Path, out: Path) -> None:
    """The U-Net of one set, trained without noise."""
    study_set = load_set(name, data)
    write_split(name, study_set, out)
    train = ~study_set.test
    classes = len(study_set.class_names)
    model = smp_unet(study_set.images.shape[1], classes)
    begin = time.time()
    images, masks = study_set.images[train], study_set.masks[train]
    train_segmenter(model, images, masks, out / f"unet_{name}", SEGMENTERS[name], progress=_report(begin))
    config = {"_model_class": "Unet", "in_channels": images.shape[1], "classes": classes, **SMP_UNET}
    (out / f"unet_{name}" / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def _report(begin: float) -> Any:
    def show(step: int, loss: float) -> None:
        print(f"step {step}: loss {loss:.4f}, {time.time() - begin:.0f} s", flush=True)

    return show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True, choices=sorted({*DENOISERS, *SEGMENTERS}))
    parser.add_argument("--part", required=True, choices=["unet", "denoiser"])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CERTIMED_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=Path("studies"))
    parser.add_argument("--steps", type=int, help="of a denoiser, where the usual number takes too long")
    arguments = parser.parse_args()
    table: dict[str, Any] = DENOISERS if arguments.part == "denoiser" else SEGMENTERS
    if arguments.set not in table:
        parser.error(f"--set {arguments.set} has no {arguments.part}; choose one of {', '.join(sorted(table))}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "denoiser":
        train_study_denoiser(arguments.set, arguments.data, arguments.out, arguments.steps)
    else:
        train_study_segmenter(arguments.set, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
