"""nnU-Net v2 result folders: built from plans, equal to nnU-Net's own predictor where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certimed import DataSpec, RunSpec
from certimed.data import ReadOptions
from certimed.errors import InputError
from certimed.models.sources import read_json
from certimed.runs import MaskTarget
from certimed.segmenters import load_segmenter
from certimed.segmenters.nnunet import NnUNet, window_starts

pytest.importorskip("dynamic_network_architectures")
LABELS = {"background": 0, "shell": 1, "core": 2}


def architecture(axes: int, channels: int = 4) -> dict[str, Any]:
    """A network of two stages, as nnU-Net's planner writes it."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [channels, channels],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * 2,
            "strides": [[1] * axes, [2] * axes],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def write_folder(root: Path, name: str = "3d_fullres", folds: int = 2, **changes: Any) -> Path:
    """What nnUNetv2_train leaves, with weights from a seed and, like it, numbers of NumPy in the log."""
    from certimed.segmenters.nnunet import _build

    axes = 2 if name == "2d" else 3
    configuration = {
        "patch_size": [8] * axes,
        "spacing": [3.0, 2.0, 1.0][-axes:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture(axes),
        **changes,
    }
    folder = root / f"nnUNetTrainer__nnUNetPlans__{name}"
    folder.mkdir(parents=True, exist_ok=True)
    statistics = {"percentile_00_5": -100.0, "percentile_99_5": 300.0, "mean": 50.0, "std": 80.0}
    plans = {
        "transpose_forward": [0, 1, 2],
        "configurations": {name: configuration},
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": LABELS}))
    for fold in range(folds):
        torch.manual_seed(fold)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        network = _build({"architecture": architecture(axes)}, 1, 3, folder)
        content = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "dice": [np.float32(0.25)]},
            "trainer_name": "nnUNetTrainer",
        }
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def test_folds_are_averaged_and_axes_come_back(tmp_path: Path) -> None:
    both = load_segmenter(f"nnunet:{write_folder(tmp_path / 'both')}")
    assert (both.num_classes, both.in_channels, both.identity_complete) == (3, 1, True)
    x = torch.rand(2, 1, 9, 12, 8)
    alone = []
    for fold in (0, 1):
        place = write_folder(tmp_path / f"only{fold}")
        other = place / f"fold_{1 - fold}"
        (other / "checkpoint_final.pth").unlink()
        alone.append(load_segmenter(f"nnunet:{place}")(x))
    torch.testing.assert_close(both(x), torch.stack(alone).mean(0), atol=1e-5, rtol=1e-5)
    network = both.network
    assert isinstance(network, NnUNet)
    reverse = network.logits(network.normalised(x.permute(0, 1, 4, 3, 2))).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(both(x), reverse)
    assert any("--resample 1,2,3" in note for note in both.notes)


def test_a_network_of_planes_answers_planes_and_volumes(tmp_path: Path) -> None:
    model = load_segmenter(f"nnunet:{write_folder(tmp_path, '2d')}")
    assert model(torch.rand(1, 1, 10, 12)).shape == (1, 3, 10, 12)
    volume = torch.rand(1, 1, 9, 10, 4)
    assert model(volume).shape == (1, 3, 9, 10, 4)


def test_the_choice_between_configurations(tmp_path: Path) -> None:
    for name in ("2d", "3d_fullres"):
        write_folder(tmp_path, name)
    assert "3d_fullres" in load_segmenter(f"nnunet:{tmp_path}:3d_fullres").name
    with pytest.raises(InputError, match="holds the configurations 2d, 3d_fullres; choose one"):
        load_segmenter(f"nnunet:{tmp_path}")


def test_ct_needs_the_window_of_its_training(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, normalization_schemes=["CTNormalization"])
    model = load_segmenter(f"nnunet:{folder}")
    network = model.network
    assert isinstance(network, NnUNet)
    x = torch.tensor([-0.5, 0.0, 0.25, 1.0]).view(1, 1, 1, 1, 4)
    hounsfield = torch.tensor([-100.0, -100, 0, 300])
    torch.testing.assert_close(network.normalised(x).flatten(), (hounsfield - 50) / 80)
    spec = RunSpec(f"nnunet:{folder}", DataSpec(str(tmp_path), reading=ReadOptions(volume=True)), target=MaskTarget())
    from certimed.data import Dataset, Item
    from certimed.data.dataset import FileStore

    nothing = Dataset((Item("a.nii", tmp_path / "a.nii"),), None, str(tmp_path), 0, spec.data.reading, FileStore())
    with pytest.raises(InputError, match="--window 100,400"):
        spec.load(dataset=nothing)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_mask_for_norm": [True]}, "voxels that are not 0"),
        ({"normalization_schemes": ["NoNormalization"]}, "normalises by NoNormalization"),
        ({"normalization_schemes": []}, "does not say how its 1 channels are normalised"),
        ({"previous_stage": "3d_lowres"}, "a stage of a cascade"),
        ({"patch_size": None}, "no architecture and patch_size"),
        ({"architecture": {"network_class_name": "os.system"}}, "names 'os.system', which is no layer"),
    ],
)
def test_what_cannot_be_certified_is_said(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_segmenter(f"nnunet:{write_folder(tmp_path, **changes)}")


def test_regions_and_missing_folds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for checkpoint in folder.glob("fold_*/*"):
        checkpoint.unlink()
    with pytest.raises(InputError, match=r"no fold_\*/checkpoint_final"):
        load_segmenter(f"nnunet:{folder}")
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"whole": [1, 2]}}))
    with pytest.raises(InputError, match="regions"):
        load_segmenter(f"nnunet:{folder}")


def test_windows_cover_an_axis_evenly() -> None:
    for size in (8, 9, 12, 13, 40):
        starts = window_starts(size, 8)
        assert starts[0] == 0
        assert starts[-1] == size - 8
        assert max(np.diff(starts), default=0) <= 4


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
@pytest.mark.parametrize("shape", [(8, 8, 8), (11, 17, 9)])
def test_logits_are_those_of_nnunets_predictor(
    tmp_path: Path, name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same preprocessed array; nnU-Net sums in half precision, which is replaced here by single."""
    inference = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    folder = write_folder(tmp_path, name)
    predictor = inference.nnUNetPredictor(0.5, True, False, False, torch.device("cpu"), allow_tqdm=False)
    model = load_segmenter(f"nnunet:{folder}")
    network = model.network
    assert isinstance(network, NnUNet)
    monkeypatch.setattr(torch, "half", torch.float32)
    plans = inference.PlansManager(read_json(folder / "plans.json", "plans"))
    dataset = read_json(folder / "dataset.json", "data")
    weights = [fold.state_dict() for fold in network.folds]
    predictor.manual_initialization(
        network.folds[0], plans, plans.get_configuration(name), weights, dataset, "nnUNetTrainer", None
    )
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    known = predictor.predict_logits_from_preprocessed_data(x)
    fresh = load_segmenter(f"nnunet:{folder}").network
    assert isinstance(fresh, NnUNet)
    torch.testing.assert_close(fresh.logits(x[None])[0], known.float(), atol=1e-4, rtol=0)
