"""nnU-Net's own training and predictor beside ours, in an environment that has nnunetv2 and certimed.

``python -m benchmarks.nnunet_reference FOLDER`` makes six volumes of balls, lets nnunetv2 plan, preprocess and train
two folds of each of 2d and 3d_fullres for a few steps on the CPU (networks and patches cut to a size for that), and
compares the logits of its predictor with :mod:`certimed.segmenters.nnunet` on the same preprocessed arrays: with its
sums in half precision, as it runs, and in single precision.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAME = "Dataset001_Balls"
ARRAYS = {"2d": [(2, 30, 24), (3, 50, 31)], "3d_fullres": [(24, 24, 24), (33, 40, 24)]}


def make_volumes(raw: Path, count: int = 6) -> None:
    """A ball with a core, in noise."""
    import nibabel

    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        centre = np.array([20, 22, 18]) + rng.integers(-4, 5, 3)
        far = ((np.indices((40, 44, 36)) - centre[:, None, None, None]) ** 2).sum(0)
        classes = (far < 100).astype(np.uint8) + (far < 30)
        image = classes.astype(float) * 300 + rng.normal(size=far.shape) * 60 + 100
        for part, values in (("imagesTr", image.astype(np.float32)), ("labelsTr", classes)):
            ending = "_0000.nii.gz" if part == "imagesTr" else ".nii.gz"
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), raw / part / f"b_{number:03d}{ending}")
    about = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "shell": 1, "core": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))


def make_smaller(plans: Path, stages: int = 3) -> None:
    """Networks and patches that train in seconds."""
    content = json.loads(plans.read_text())
    for name in ARRAYS:
        configuration = content["configurations"][name]
        kinds = configuration["architecture"]["arch_kwargs"]
        for field in ("kernel_sizes", "strides"):
            kinds[field] = kinds[field][:stages]
        kinds |= {"n_stages": stages, "features_per_stage": [4, 8, 8]}
        kinds |= {"n_conv_per_stage": [1] * stages, "n_conv_per_stage_decoder": [1] * (stages - 1)}
        configuration |= {"batch_size": 2, "patch_size": [24] * len(configuration["patch_size"])}
    plans.write_text(json.dumps(content))


def train(root: Path) -> Path:
    """Two folds of both configurations; the folder of results."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.run.run_training import get_trainer_from_args

    planning.extract_fingerprints([1], num_processes=1, check_dataset_integrity=False)
    planning.plan_experiments([1])
    make_smaller(root / "preprocessed" / NAME / "nnUNetPlans.json")
    planning.preprocess([1], "nnUNetPlans", configurations=list(ARRAYS), num_processes=[1] * len(ARRAYS))
    for name in ARRAYS:
        for fold in (0, 1):
            trainer = get_trainer_from_args("1", name, fold, device=torch.device("cpu"))
            trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 4, 1
            trainer.run_training()
    return root / "results" / NAME


class _Single:
    """torch, with single in place of half precision where nnU-Net makes its sums."""

    half = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def compare(results: Path) -> None:
    """Print the largest difference of logits for each array."""
    from nnunetv2.inference import predict_from_raw_data as inference

    from certimed.segmenters.nnunet import nnunet_folder

    for name, shapes in ARRAYS.items():
        network: Any = nnunet_folder(f"{results}:{name}").network
        predictor = inference.nnUNetPredictor(0.5, True, False, False, torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(
            str(results / f"nnUNetTrainer__nnUNetPlans__{name}"), (0, 1), "checkpoint_final.pth"
        )
        for shape in shapes:
            x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
            with torch.no_grad():
                ours = network.logits(x[None])[0]
            off = {}
            for words, library in (("half", torch), ("single", _Single())):
                inference.torch = library
                known = predictor.predict_logits_from_preprocessed_data(x).float()
                off[words] = float((ours - known).abs().max())
            print(f"{name} {shape}: largest difference {off['single']:.1e} (single), {off['half']:.1e} (half)")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    root = parser.parse_args().folder.resolve()
    for part in ("raw", "preprocessed", "results"):
        (root / part).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(root / part)
    os.environ |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "nnUNet_compile": "0"}
    results = root / "results" / NAME
    if not results.is_dir():
        make_volumes(root / "raw" / NAME)
        results = train(root)
    compare(results)


if __name__ == "__main__":
    main()
