"""Classifiers by name: each a tiny model its own library wrote, its scores those of the library on its own input."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from certimed.classifiers import ClassificationModel, load_classifier, load_prompted
from certimed.errors import InputError, ModelError

EIGHT_BITS = 0.02
"""Of scores of order 1: the libraries resize 8-bit images and round; on images of the input's size nothing is."""


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(5).integers(64, 192, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def pixels_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.atleast_3d(np.asarray(image)).copy()).permute(2, 0, 1).float() / 255


def random_weights(network: nn.Module) -> nn.Module:
    """Weights that make scores differ by order 1, running statistics included."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            spread = value.std().nan_to_num(0.05).clamp_min(0.02) if value.numel() > 1 else torch.tensor(0.05)
            value.copy_(
                torch.randn(value.shape, generator=generator) * spread + (value.mean() if value.ndim < 2 else 0)
            )
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return network.eval()


def same_scores(model: Any, theirs: Callable[[Image.Image], Tensor], shortest: int) -> None:
    """Exact where the library rounds nothing (shorter side as it resizes to), near where it resizes 8-bit images."""
    for image, tolerance in (
        (picture(shortest, shortest + 7), 1e-5),
        (picture(2 * shortest, 3 * shortest), EIGHT_BITS),
    ):
        with torch.no_grad():
            ours = model(model.preprocess(pixels_of(image))[None])
            want = theirs(image)
        assert ours.shape == want.shape
        assert float((ours - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))
        assert float(want.std()) > 1e-3, "a test whose scores are all one tests nothing"


# --- timm -----------------------------------------------------------------------------------------------------------


def timm_network(classes: int = 3, **more: Any) -> Any:
    import timm

    return random_weights(timm.create_model("test_resnet", num_classes=classes, **more))


def timm_scores(network: Any) -> Callable[[Image.Image], Tensor]:
    import timm

    data = timm.data.resolve_data_config(pretrained_cfg=network.pretrained_cfg)
    transform = timm.data.create_transform(**data, is_training=False)
    return lambda image: network(transform(image)[None])


def test_timm_checkpoint_of_a_training_loop(tmp_path: Path) -> None:
    network = timm_network()
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    args = argparse.Namespace(model="test_resnet", lr=0.1, nested={"a": [1, 2]})
    torch.save({"state_dict": state, "args": args, "epoch": 3}, tmp_path / "model_best.pth.tar")
    model = load_classifier(f"timm:test_resnet:{tmp_path / 'model_best.pth.tar'}")
    assert isinstance(model, ClassificationModel) and model.num_classes == 3 and model.class_names is None
    assert model.identity_complete and set(model.libraries) >= {"timm"}
    assert any("module." in note for note in model.notes)
    edge = model.preparation.edge
    same_scores(model, timm_scores(network), edge)


def test_timm_folder_as_timm_writes_it(tmp_path: Path) -> None:
    import timm

    network = timm_network(2)
    timm.models.save_for_hf(
        network, tmp_path, model_config={"num_classes": 2, "label_names": ["no finding", "effusion"]}
    )
    for spec in (str(tmp_path), f"timm:{tmp_path}"):
        model = load_classifier(spec)
        assert model.class_names == ("no finding", "effusion")
        same_scores(model, timm_scores(network), model.preparation.edge)


def test_timm_one_channel_asks_for_its_normalisation(tmp_path: Path) -> None:
    torch.save(timm_network(2, in_chans=1).state_dict(), tmp_path / "grey.pth")
    model = load_classifier(f"timm:test_resnet:{tmp_path / 'grey.pth'}")
    assert model.input_shape[0] == 1 and "normalise" in model.warnings[0]
    stated = load_classifier(f"timm:test_resnet:{tmp_path / 'grey.pth'}", normalise="0.5;0.25")
    assert not stated.warnings and stated.preparation.mean == (0.5,) and stated.preparation.std == (0.25,)
    assert stated.identity != model.identity


def test_timm_vit_of_another_size(tmp_path: Path) -> None:
    import timm

    network = random_weights(timm.create_model("test_vit", num_classes=2, img_size=96))
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ModelError, match="pos_embed"):
        load_classifier(f"timm:test_vit:{tmp_path / 'vit.pth'}")
    model = load_classifier(f"timm:test_vit:{tmp_path / 'vit.pth'}", size=(96, 96))
    x = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model(x), network((x - mean) / std), rtol=0, atol=1e-5)


# --- torchvision ----------------------------------------------------------------------------------------------------


def torchvision_network(name: str = "squeezenet1_1", classes: int = 3) -> nn.Module:
    import torchvision

    return random_weights(torchvision.models.get_model(name, weights=None, num_classes=classes))


def test_torchvision_checkpoint_of_its_own_training(tmp_path: Path) -> None:
    import torchvision

    network = torchvision_network()
    args = argparse.Namespace(data_path="imagenet", lr=0.1)
    torch.save({"model": network.state_dict(), "optimizer": {"state": {}}, "args": args}, tmp_path / "model_9.pth")
    model = load_classifier(f"torchvision:squeezenet1_1:{tmp_path / 'model_9.pth'}")
    transform = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.transforms()
    assert model.num_classes == 3 and model.identity_complete
    assert "--size" in " ".join(model.notes)
    same_scores(model, lambda image: network(transform(image)[None]), 256)


def test_torchvision_published_weights_are_taken_from_the_cache(tmp_path: Path, monkeypatch: Any) -> None:
    import torchvision

    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(torchvision_network(classes=1000).state_dict(), tmp_path / "checkpoints" / Path(weights.url).name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = load_classifier("torchvision:squeezenet1_1")
    assert model.num_classes == 1000 and model.class_names is not None and model.class_names[0] == "tench"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_auxiliary_heads_are_left_out(tmp_path: Path, name: str) -> None:
    import torchvision

    network = torchvision.models.get_model(name, weights=None, num_classes=2, init_weights=False, aux_logits=True)
    torch.save(random_weights(network).state_dict(), tmp_path / "aux.pth")
    model = load_classifier(f"torchvision:{name}:{tmp_path / 'aux.pth'}")
    network.transform_input = True
    x = torch.rand(1, *model.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network(model.preparation.normalise(x)), rtol=1e-4, atol=1e-5)


FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_small",
]
FAMILIES += [
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "vgg11",
    "vit_b_32",
    "maxvit_t",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_families_name_their_head(name: str) -> None:
    """The head grows with the classes, and nothing else does; the first layer sees colours."""
    import torchvision

    from certimed.classifiers.torchvision_models import _OPTIONS, _built, _ends

    build = torchvision.models.get_model_builder(name)
    with torch.device("cpu" if "regnet" in name else "meta"):
        network, other = (_built(build, _OPTIONS.get(name, {}), num_classes=number) for number in (1000, 7))
    head, first = _ends(network)
    state, fewer = network.state_dict(), other.state_dict()
    grown = {one for one in state if state[one].shape != fewer[one].shape}
    assert grown - {head.replace("weight", "bias")} == {head}
    assert state[first].shape[1] == 3


# --- transformers ---------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def hugging_face(kind: str) -> tuple[Any, Any, int]:
    """Model, image processor and the shorter side it resizes to."""
    import transformers as t

    names = {0: "normal", 1: "melanoma", 2: "naevus"}
    common = {"num_labels": 3, "id2label": names, "label2id": {name: index for index, name in names.items()}}
    if kind == "vit":
        config = t.ViTConfig(**SMALL, **common, image_size=32, patch_size=8)
        return t.ViTForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}), 32
    if kind == "convnext":
        config = t.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], **common)
        return t.ConvNextForImageClassification(config), t.ConvNextImageProcessor(size={"shortest_edge": 56}), 64
    if kind == "swin":
        sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
        config = t.SwinConfig(**sizes, window_size=4, **common)
        return t.SwinForImageClassification(config), t.ViTImageProcessor(size={"height": 32, "width": 32}), 32
    if kind == "dinov2":
        config = t.Dinov2Config(**SMALL, **common, image_size=28, patch_size=14)
        processor = t.BitImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True
        )
        return t.Dinov2ForImageClassification(config), processor, 32
    if kind == "deit":
        config = t.DeiTConfig(**SMALL, **common, image_size=32, patch_size=8)
        processor = t.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32})
        return t.DeiTForImageClassification(config), processor, 36
    config = t.MobileViTConfig(
        image_size=32, hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=1, **common
    )
    processor = t.MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    return t.MobileViTForImageClassification(config), processor, 40


@pytest.mark.parametrize("kind", ["vit", "convnext", "swin", "dinov2", "deit", "mobilevit"])
def test_hugging_face_classifiers(tmp_path: Path, kind: str) -> None:
    network, processor, shortest = hugging_face(kind)
    random_weights(network)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    def theirs(image: Image.Image) -> Tensor:
        return network(processor(images=image, return_tensors="pt")["pixel_values"]).logits

    for spec in (f"hf:{tmp_path}", str(tmp_path)):
        model = load_classifier(spec)
        assert isinstance(model, ClassificationModel)
        assert model.class_names == ("normal", "melanoma", "naevus") and model.identity_complete
        assert model.channel_order == ("bgr" if kind == "mobilevit" else "rgb")
    exact = kind in ("vit", "swin", "deit")  # warped to a square: exact for a square only
    if exact:
        image = picture(shortest, shortest)
        with torch.no_grad():
            ours = model(model.preprocess(pixels_of(image))[None])
            torch.testing.assert_close(ours, theirs(image), rtol=1e-5, atol=1e-5)
    else:
        same_scores(model, theirs, shortest)


def test_hugging_face_processor_that_does_more_is_refused(tmp_path: Path) -> None:
    network, processor, _ = hugging_face("vit")
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    config = json.loads(path.read_text()) | {"rescale_factor": 1 / 127.5}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="image processor"):
        load_classifier(f"hf:{tmp_path}")


def test_hugging_face_classifier_reads_no_prompt(tmp_path: Path) -> None:
    network, processor, _ = hugging_face("vit")
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="reads no prompts"):
        load_prompted(f"hf:{tmp_path}")
    with pytest.raises(InputError, match="--size"):
        load_classifier(f"hf:{tmp_path}", size=(8, 8))


# --- identity -------------------------------------------------------------------------------------------------------


def test_identity_is_stable_and_changes_with_every_setting(tmp_path: Path) -> None:
    network = timm_network()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    spec = f"timm:test_resnet:{tmp_path / 'a.pth'}"
    first = load_classifier(spec)
    assert load_classifier(spec).identity == first.identity
    others = [load_classifier(spec, size=(64, 64)), load_classifier(spec, normalise="none")]
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    torch.save(network.state_dict(), tmp_path / "b.pth")
    others.append(load_classifier(f"timm:test_resnet:{tmp_path / 'b.pth'}"))
    assert len({one.identity for one in [first, *others]}) == 4
    (tmp_path / "c").mkdir()
    torch.save(torch.load(tmp_path / "a.pth", weights_only=True), tmp_path / "c" / "moved.pth")
    assert load_classifier(f"timm:test_resnet:{tmp_path / 'c' / 'moved.pth'}").identity == first.identity


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [("tim:resnet18", "timm:NAME"), ("torch-vision:resnet18", "torchvision:NAME"), ("openclip:x", "open_clip:hf-hub")],
)
def test_a_refusal_names_the_nearest_form_all_forms_and_a_command(spec: str, nearest: str) -> None:
    with pytest.raises(InputError) as refused:
        load_classifier(spec)
    said = str(refused.value)
    assert f"did you mean {nearest}" in said
    for form in ("hf:", "timm:", "torchvision:", "onnx:", "medclip:", "python:MODULE:FACTORY"):
        assert form in said
    assert "certimed certify classes --data images/ --model" in said


def test_a_bare_checkpoint_is_told_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, "weights.pth")
    with pytest.raises(InputError, match=r"did you mean timm:NAME\[:CHECKPOINT\]"):
        load_classifier("weights.pth")


def test_wrong_names_of_architectures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"timm .* has no model 'resnet17'"):
        load_classifier("timm:resnet17:x.pth")
    with pytest.raises(InputError, match="torchvision has no classifier"):
        load_classifier("torchvision:resnet17:x.pth")
    torch.save(torchvision_network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ModelError, match="of another architecture"):
        load_classifier(f"torchvision:resnet18:{tmp_path / 'w.pth'}")
