"""The demo's own U-Net: shapes, round trip through a folder, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from certimed.errors import InputError, ModelError
from certimed.segmenters.small_unet import SmallUNet, load_small_unet


def network() -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallUNet(1, 3, (4, 8), patch=2)


@pytest.mark.parametrize("size", [(16, 16), (4, 12)])
def test_scores_of_every_pixel(size: tuple[int, int]) -> None:
    assert network()(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = network().eval()
    images = torch.rand(2, 1, 16, 16)
    model.save(tmp_path)
    loaded = load_small_unet(tmp_path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded(images), model(images))
    assert "widths=(4, 8), patch=2" in repr(loaded)


def test_sides_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ModelError, match="multiple of 4"):
        network()(torch.rand(1, 1, 18, 16))


def test_folders_without_a_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        load_small_unet(tmp_path)
    network().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "Other"}))
    with pytest.raises(InputError, match="'Other'"):
        load_small_unet(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "classes": 4}))
    with pytest.raises(
        ModelError, match=r"2 of another shape \(head.weight of shape \(12, 4, 1, 1\), not \(16, 4, 1, 1\)"
    ):
        load_small_unet(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "widths": 4}))
    with pytest.raises(InputError, match="gives no channels, classes, widths and patch"):
        load_small_unet(tmp_path)
    with pytest.raises(InputError, match="classes >= 2"):
        SmallUNet(1, 1)
