"""Training a denoiser: resume equals no interruption, it learns, it writes what can be loaded, and refuses nonsense."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from certimed.denoising import DenoiserTraining, OneStepDenoiser, load_denoiser, train_denoiser
from certimed.errors import InputError

pytest.importorskip("diffusers")

TINY = DenoiserTraining(
    widths=(16, 16), patch=2, steps=8, batch=4, learning_rate=3e-3, warmup=2, ema=0.9, augment="affine"
)


def stripes(n: int = 12, channels: int = 1) -> NDArray[np.float32]:
    """Images a denoiser can learn in seconds: light and dark stripes of random phase."""
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(n, 1, 1, 1))
    columns = np.sin(np.arange(16) / 16 * 4 * np.pi + phase)
    return np.broadcast_to(0.5 + 0.4 * columns, (n, channels, 16, 16)).astype(np.float32)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / "unet").glob("*.safetensors")
    return load_file(path)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = train_denoiser(stripes(), tmp_path / "whole", TINY)
    for stop in (3, 5, None):
        part = train_denoiser(stripes(), tmp_path / "part", TINY, stop_after=stop)
    assert json.loads((part / "certimed.json").read_text())["steps_done"] == 8
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(part)[key]), key


def test_the_seed_decides_and_the_global_generator_does_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = weights(train_denoiser(stripes(), tmp_path / "a", TINY, stop_after=2))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = weights(train_denoiser(stripes(), tmp_path / "b", TINY, stop_after=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = weights(train_denoiser(stripes(), tmp_path / "c", replace(TINY, seed=1), stop_after=2))
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_training_beats_the_best_constant(prediction_type: str, tmp_path: Path) -> None:
    config = replace(TINY, steps=100, batch=16, augment="none", prediction_type=prediction_type)
    denoiser = load_denoiser(train_denoiser(stripes(), tmp_path, config))
    assert isinstance(denoiser, OneStepDenoiser)
    assert denoiser.options.prediction_type == prediction_type
    clean = torch.from_numpy(stripes())
    noisy = clean + 0.25 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    error = float((denoiser.at(0.25)(noisy) - clean).square().mean())
    linear = float(clean.var() * 0.25**2 / (clean.var() + 0.25**2))
    assert error < 0.7 * linear


def test_what_is_written(tmp_path: Path) -> None:
    seen: list[int] = []
    folder = train_denoiser(
        (stripes(channels=3) * 255).astype(np.uint8), tmp_path, TINY, checkpoint_every=4,
        progress=lambda step, loss: seen.append(step),
    )  # fmt: skip
    assert seen == [4, 8]
    assert (folder / "samples.png").stat().st_size > 0
    assert json.loads((folder / "certimed.json").read_text())["patch"] == 2
    denoiser = load_denoiser(f"diffusers:{folder}")
    assert isinstance(denoiser, OneStepDenoiser)
    assert (denoiser.options.channels, denoiser.options.patch, denoiser.options.multiple) == (3, 2, 4)
    assert denoiser.at(0.5)(torch.rand(2, 3, 17, 30)).shape == (2, 3, 17, 30)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 16, 16)), r"\(N, C, H, W\)"),
        (np.zeros((0, 1, 16, 16)), "N >= 1"),
        (np.zeros((4, 2, 16, 16)), "C 1 or 3"),
        (np.zeros((4, 1, 16, 18)), "multiples of 4"),
        (np.full((4, 1, 16, 16), 2.0), r"lie in \[0, 1\]"),
        (np.full((4, 1, 16, 16), np.nan), "finite"),
    ],
)
def test_bad_images(images: NDArray[np.float64], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train_denoiser(images, tmp_path, TINY)


def test_bad_settings_and_another_training_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="augment='mirror'"):
        DenoiserTraining(augment="mirror")
    with pytest.raises(InputError, match="multiples of 8"):
        DenoiserTraining(widths=(20,))
    with pytest.raises(InputError, match="prediction_type"):
        DenoiserTraining(prediction_type="x0")
    train_denoiser(stripes(), tmp_path, TINY, stop_after=1)
    with pytest.raises(InputError, match="choose another output folder"):
        train_denoiser(stripes(), tmp_path, replace(TINY, seed=3))
