"""Segmenting at native resolution: every native pixel is certified, and the resize is part of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from certimed.assets import asset
from certimed.certificates import NATIVE
from certimed.cli.app import app
from certimed.data import MedicalImage
from certimed.errors import InputError
from certimed.operators import norm_bound
from certimed.runs import MaskCertifier, MaskSettings, RunFolder
from certimed.segmentation import SmoothedSegmenter
from certimed.segmenters import NativeSegmenter, mask_geometry


class Bright(nn.Module):
    """Two classes: is the pixel brighter than one half?"""

    def forward(self, x: Tensor) -> Tensor:
        level = x[:, :1] - 0.5
        return torch.cat([-level, level], dim=1)


def picture(shape: tuple[int, ...] = (3, 12, 10), seed: int = 0) -> MedicalImage:
    pixels = np.random.default_rng(seed).random(shape).astype(np.float32)
    mask = (pixels.mean(axis=0) > 0.5).astype(np.int64)
    return MedicalImage("a", pixels, label=None, steps=(), source="none", mask=mask)


@pytest.mark.parametrize("size", [(6, 5), (24, 30), (12, 10), None])
def test_each_native_pixel_gets_the_class_of_the_networks_nearest(size: tuple[int, int] | None) -> None:
    x = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    small = x.mean(dim=1, keepdim=True)
    if size is not None:
        small = functional.interpolate(small, size, mode="bilinear", antialias=True)
    answer = Bright()(small).argmax(1)
    rows, columns = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((12, 10), answer.shape[1:]))
    found = NativeSegmenter(Bright(), 1, size)(x)
    assert found.shape == (2, 2, 12, 10)
    assert torch.equal(found.argmax(1), answer[:, rows][:, :, columns])


def test_the_certificate_is_that_of_the_composed_model() -> None:
    settings = MaskSettings(0.3, n0=5, n=200, tau=0.6, alpha=0.05, size=(6, 5), space=NATIVE, seed=2)
    network = NativeSegmenter(Bright().eval(), 1, (6, 5))
    image = picture()
    assert not any(part.training for part in network.modules())
    certificates, scores = MaskCertifier({"plain": network}, network, 2, settings, channels=1)(image)
    found = certificates["plain"]
    assert (found.space, found.shape, found.native) == (NATIVE, (3, 12, 10), None)
    assert found.mask.shape == (12, 10) and found.native_radius == found.radius
    assert scores["plain"].to_dict()

    def by_hand(x: Tensor) -> Tensor:
        grey = x.mean(dim=1, keepdim=True)
        small = functional.interpolate(grey, (6, 5), mode="bilinear", antialias=True)
        return functional.interpolate(Bright()(small), (12, 10), mode="nearest-exact")

    expected = SmoothedSegmenter(by_hand, 2, 0.3).certify(
        torch.from_numpy(image.pixels), n0=5, n=200, tau=0.6, alpha=0.05, seed=2, item_id="a"
    )
    assert np.array_equal(found.mask, expected.mask) and np.array_equal(found.agreement, expected.agreement)


def test_at_the_models_input_the_radius_is_carried_over() -> None:
    settings = MaskSettings(0.3, n0=5, n=200, tau=0.6, alpha=0.05, size=(6, 5), seed=2)
    bright = Bright().eval()
    certificates, _ = MaskCertifier({"plain": bright}, bright, 2, settings, channels=1)(picture())
    found = certificates["plain"]
    geometry = mask_geometry((3, 12, 10), 1, (6, 5))
    assert found.shape == (1, 6, 5) and found.native is not None
    assert found.native.geometry == geometry and found.native.norm == norm_bound(geometry)
    assert found.native.radius > found.radius  # averaging channels and pixels shrinks perturbations


def test_volumes_are_not_resized() -> None:
    assert norm_bound(mask_geometry((1, 4, 5, 6), None, None)) == 1.0
    with pytest.raises(InputError, match="3 spatial axes"):
        mask_geometry((1, 4, 5, 6), None, (3, 3))


def test_the_command_at_native_resolution(tmp_path: Path) -> None:
    data = asset("demo_segmentation_images")
    words = [
        "certify", "--task", "segment", "--model", "demo", "--data", str(data), "--limit", "1", "--n0", "2", "--n",
        "30", "--tau", "0.6", "--alpha", "0.1", "--sigma", "0.1", "--size", "48x40",
    ]  # fmt: skip
    for space in ("native", "input"):
        result = CliRunner().invoke(app, [*words, "--space", space, "--pictures", "1", "--out", str(tmp_path / space)])
        assert result.exit_code == 0, result.output
        assert ("native resolution" in result.output) == (space == "input")
        assert CliRunner().invoke(app, ["verify", str(tmp_path / space)]).exit_code == 0
        assert len(list((tmp_path / space / "pictures").glob("*.png"))) == 1
    native = next(RunFolder.open(tmp_path / "native").mask_records())
    carried = next(RunFolder.open(tmp_path / "input").mask_records()).certificates["plain"]
    assert native.certificates["plain"].space == NATIVE
    assert carried.native is not None and carried.native.shape == native.certificates["plain"].shape
    assert carried.mask.shape == (48, 40) and native.certificates["plain"].mask.shape != (48, 40)
    assert native.certificates["plain"].provenance.model != carried.provenance.model
