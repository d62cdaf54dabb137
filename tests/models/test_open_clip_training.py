"""What open_clip's training writes, ``epoch_N.pt``, under the name of its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from certimed.errors import InputError, ModelError
from certimed.vlm import load

TEXTS = ["an image of melanoma", "normal"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An architecture of two small layers, known to open_clip by name, and its training's file."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-8", config)
    torch.manual_seed(0)
    model = open_clip.create_model("Tiny-8").eval()
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    kept = {"epoch": 3, "name": "2026_01_01", "state_dict": state, "optimizer": {"param_groups": [{"lr": 1e-3}]}}
    torch.save(kept, tmp_path / "epoch_3.pt")
    return model


@torch.no_grad()
def test_features_equal_the_library_s(tiny: Any, tmp_path: Path) -> None:
    vlm = load(f"open_clip:Tiny-8:{tmp_path / 'epoch_3.pt'}")
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (vlm.preprocessing.mean, vlm.preprocessing.std))
    assert vlm.preprocessing.mean == open_clip.constants.OPENAI_DATASET_MEAN
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(vlm.encode_image(x), tiny.encode_image((x - mean) / std), rtol=0, atol=1e-5)
    want = tiny.encode_text(open_clip.SimpleTokenizer()(TEXTS))
    torch.testing.assert_close(vlm.encode_texts(TEXTS), want, rtol=0, atol=1e-5)
    assert any("module." in note for note in vlm.notes)
    assert load(f"open_clip:Tiny-8:{tmp_path / 'epoch_3.pt'}").identity == vlm.identity


def test_refusals(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no architecture 'Tiny-9'"):
        load(f"open_clip:Tiny-9:{tmp_path / 'epoch_3.pt'}")
    with pytest.raises(ModelError, match="the architecture and the weights do not belong together"):
        load(f"open_clip:ViT-S-32-alt:{tmp_path / 'epoch_3.pt'}")
    with pytest.raises(InputError, match="there is no weights file"):
        load("open_clip:Tiny-8:nowhere.pt")
