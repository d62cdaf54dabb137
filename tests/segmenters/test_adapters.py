"""Adapters load each library's real file format and equal the library's own forward pass."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from certimed.errors import InputError, ModelError
from certimed.segmentation import SmoothedSegmenter
from certimed.segmenters import OUTPUT_NAMES, SegmentationModel, SlidingWindow, SmallUNet, from_module, load_segmenter


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def settle(network: nn.Module) -> nn.Module:
    """Give batch normalisation statistics other than 0 and 1, so that a lost buffer shows."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if name.endswith("running_var") else 0.2 * (noise - 0.5))
    return network.eval()


# --- the adapter itself ---------------------------------------------------------------------------------------------


def test_normalisation_padding_and_channels_are_inside():
    seen = []

    class Probe(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.cat([x[:, :1], -x[:, :1]], 1)

    model = from_module(
        Probe(), num_classes=2, output="logits", in_channels=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], multiple_of=8
    )
    x = image(2, 1, 13, 16)
    scores = model(x)
    assert seen[0].shape == (2, 3, 16, 16) and scores.shape == (2, 2, 13, 16)
    assert torch.allclose(scores[:, :1], (x - 0.1) / 0.5)
    assert torch.allclose(seen[0][:, 2, 1:14], (x[:, 0] - 0.3) / 0.7)
    assert torch.equal(seen[0][:, :, 0], seen[0][:, :, 1]) and torch.equal(seen[0][:, :, 14], seen[0][:, :, 13])
    with pytest.raises(ModelError, match="3 channels"):
        model(image(1, 2, 8, 8))


def test_volumes_are_padded_and_cropped_alike():
    model = from_module(nn.Conv3d(1, 2, 1), num_classes=2, output="logits", multiple_of=4)
    x = image(1, 1, 5, 6, 7)
    assert torch.allclose(model(x), model.network(x), atol=1e-6)


@pytest.mark.parametrize(("output", "level"), [("binary logit", 0.0), ("binary probability", 0.5)])
def test_binary_outputs_become_two_scores(output, level):
    model = from_module(nn.Identity(), num_classes=2, output=output)
    x = torch.tensor([level - 0.1, level, level + 0.1]).view(1, 1, 1, 3)
    assert model(x).argmax(1).flatten().tolist() == [0, 0, 1]


def test_meaning_of_the_output_is_stated_not_guessed():
    with pytest.raises(InputError, match="output is missing"):
        load_segmenter(nn.Identity(), num_classes=2)
    with pytest.raises(InputError, match="num_classes is missing"):
        load_segmenter(nn.Identity(), output="logits")
    with pytest.raises(InputError, match="unknown"):
        from_module(nn.Identity(), num_classes=2, output="sigmoid")
    with pytest.raises(InputError, match="does not fit"):
        from_module(nn.Identity(), num_classes=3, output="binary logit")
    with pytest.raises(ModelError, match="binary logit"):
        from_module(nn.Conv2d(1, 2, 1), num_classes=2, output="binary logit")(image(1, 1, 4, 4))
    with pytest.raises(InputError, match="std"):
        from_module(nn.Identity(), num_classes=2, output="logits", std=0.0)
    with pytest.raises(InputError, match="2 values for 3"):
        from_module(nn.Identity(), num_classes=2, output="logits", in_channels=3, mean=[0.1, 0.2])
    assert len(OUTPUT_NAMES) == 4


def test_a_loaded_segmenter_can_be_certified():
    model = load_segmenter(settle(nn.Conv2d(1, 3, 3, padding=1)), num_classes=3, output="logits")
    certificate = SmoothedSegmenter(model, model.num_classes, 0.1, model_id=model.identity).certify(image(1, 9, 9))
    assert certificate.mask.shape == (9, 9)


@pytest.mark.parametrize(("setting", "message"), [({"size": 0}, "positive"), ({"size": 8, "overlap": 1.0}, "overlap")])
def test_impossible_windows_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        SlidingWindow(**setting)


# --- segmentation_models_pytorch ------------------------------------------------------------------------------------

ARCHITECTURES = [("Unet", 1, 1), ("UnetPlusPlus", 3, 4), ("DeepLabV3Plus", 3, 2)]


@pytest.mark.parametrize(("architecture", "channels", "classes"), ARCHITECTURES)
def test_smp_folder_and_checkpoint_equal_the_library(tmp_path, architecture, channels, classes):
    smp = pytest.importorskip("segmentation_models_pytorch")
    network = getattr(smp, architecture)("mobilenet_v2", encoder_weights=None, in_channels=channels, classes=classes)
    settle(network).save_pretrained(tmp_path / "folder")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "w.safetensors")
    torch.save(
        {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.ckpt"
    )
    output = "binary logit" if classes == 1 else "logits"
    x = image(2, channels, 64, 64)
    with torch.inference_mode():
        wanted = network((x - 0.4) / 0.3)
        for spec, stated in (
            (f"smp:{tmp_path / 'folder'}", None),
            (str(tmp_path / "folder"), output),
            (f"smp:{architecture}:mobilenet_v2:{tmp_path / 'w.safetensors'}", output),
            (f"smp:{architecture.lower()}:mobilenet_v2:{tmp_path / 'w.ckpt'}", output),
        ):
            model = load_segmenter(spec, output=stated, mean=0.4, std=0.3)
            assert (model.num_classes, model.in_channels) == (max(classes, 2), channels)
            assert torch.allclose(model(x)[:, -wanted.shape[1] :], wanted, atol=1e-5)
            assert model(x[:, :, :50, :33]).shape == (2, max(classes, 2), 50, 33)


def test_smp_contradictions_and_foreign_weights_are_named(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    network = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=2)
    network.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="contradicts"):
        load_segmenter(f"smp:{tmp_path}", output="probabilities")
    with pytest.raises(InputError, match="output is missing"):
        load_segmenter(f"smp:Unet:mobilenet_v2:{weights}")
    with pytest.raises(ModelError, match="do not fit"):
        load_segmenter(f"smp:UnetPlusPlus:mobilenet_v2:{weights}", output="logits")
    with pytest.raises(InputError, match="architecture 'Vnet'"):
        load_segmenter(f"smp:Vnet:mobilenet_v2:{weights}", output="logits")
    with pytest.raises(InputError, match="resnet19"):
        load_segmenter(f"smp:Unet:resnet19:{weights}", output="logits")
    with pytest.raises(InputError, match="no weights file"):
        load_segmenter(f"smp:Unet:mobilenet_v2:{tmp_path / 'none.pt'}", output="logits")
    with pytest.raises(InputError, match="num_classes=5"):
        load_segmenter(f"smp:{tmp_path}", num_classes=5)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"activation": "sigmoid"}))
    with pytest.raises(InputError, match="sigmoid"):
        load_segmenter(f"smp:{tmp_path}")


class Bomb:
    def __reduce__(self):
        return (print, ("this ran",))


def test_pickled_code_is_not_run(tmp_path, capsys):
    pytest.importorskip("segmentation_models_pytorch")
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol=2))
    with pytest.raises(ModelError):
        load_segmenter(f"smp:Unet:mobilenet_v2:{tmp_path / 'w.pt'}", output="logits")
    torch.save({"state_dict": Bomb()}, tmp_path / "v.pt")
    with pytest.raises(ModelError, match="can run code"):
        load_segmenter(f"smp:Unet:mobilenet_v2:{tmp_path / 'v.pt'}", output="logits")
    assert "this ran" not in capsys.readouterr().out


# --- MONAI ----------------------------------------------------------------------------------------------------------

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": "@channels",
    "out_channels": 2,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}


def bundle(folder, definition, **extra):
    nets = pytest.importorskip("monai.networks.nets")
    plain = {k: v for k, v in definition.items() if not k.startswith("_")} | {"in_channels": 1}
    network = settle(getattr(nets, definition["_target_"].rpartition(".")[2])(**plain))
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    document = {"channels": 1, "network_def": definition, "network": "$@network_def.to(@device)", **extra}
    (folder / "configs" / "inference.json").write_text(json.dumps(document))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return network


def test_monai_bundle_equals_the_library(tmp_path):
    network = bundle(tmp_path, UNET | {"_target_": "monai.networks.nets.UNet"})
    x = image(2, 1, 16, 16)
    for spec in (f"monai:{tmp_path}", str(tmp_path)):
        model = load_segmenter(spec, output="logits", mean=0.5, std=0.25)
        with torch.inference_mode():
            assert torch.allclose(model(x), network((x - 0.5) / 0.25), atol=1e-5)


@pytest.mark.parametrize(
    ("definition", "multiple"),
    [
        (UNET, 4),
        (UNET | {"strides": [2], "channels": [4, 8]}, 2),
        ({"_target_": "SegResNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_filters": 8}, 8),
        ({"_target_": "HighResNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}, 1),
    ],
)
def test_monai_networks_are_padded_to_what_they_need(tmp_path, definition, multiple):
    network = bundle(tmp_path, definition)
    model = load_segmenter(f"monai:{tmp_path}", output="logits")
    assert model.multiple_of == multiple
    with torch.inference_mode():
        assert model(image(1, 1, 33, 47)).shape == (1, 2, 33, 47)
        x = image(1, 1, 32, 48)
        assert torch.allclose(model(x), network(x), atol=1e-5)


@pytest.mark.parametrize("change", [{"spatial_dims": 3}, {"_target_": "SegResNet", "init_filters": 8}])
def test_volumetric_monai_networks_take_volumes_and_no_planes(tmp_path, change):
    definition = {**UNET, **change} if "spatial_dims" in change else {**change, "in_channels": 1, "out_channels": 2}
    network = bundle(tmp_path, definition)
    model = load_segmenter(f"monai:{tmp_path}", output="logits")
    assert model.axes == 3
    with torch.inference_mode():
        assert model(image(1, 1, 17, 19, 18)).shape == (1, 2, 17, 19, 18)
        x = image(1, 1, 16, 24, 16)
        assert torch.allclose(model(x), network(x), atol=1e-5)
    with pytest.raises(InputError, match="is a network of volumes"):
        model.check_axes(2, "a.png")


def test_monai_windows_equal_the_library(tmp_path):
    inferers = pytest.importorskip("monai.inferers")
    network = bundle(
        tmp_path,
        UNET,
        inferer={"_target_": "SlidingWindowInferer", "roi_size": [16, 16], "overlap": 0.5, "mode": "gaussian"},
    )
    model = load_segmenter(f"monai:{tmp_path}", output="logits")
    assert model.window == SlidingWindow((16, 16), 0.5, "gaussian")
    x = image(2, 1, 37, 21)
    with torch.inference_mode():
        wanted = inferers.sliding_window_inference(x, (16, 16), 3, network, overlap=0.5, mode="gaussian")
        assert torch.allclose(model(x), wanted, atol=1e-5)
        # Each image's scores must not depend on what else is in the batch.
        assert torch.allclose(model(x)[1:], model(x[1:]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_target_": "os.system", "command": "true"}, "only classes of monai.networks"),
        ({"out_channels": "$__import__('os').getpid()"}, "run as code"),
        ({"act": {"_target_": "torch.nn.ReLU"}}, "further objects"),
        ({"_target_": "NoSuchNet"}, "no network of this MONAI"),
        ({"in_channels": "@nowhere"}, "does not define"),
        ({"out_channels": 3}, "do not fit"),
    ],
)
def test_monai_configurations_never_run_code(tmp_path, change, message):
    bundle(tmp_path, UNET)
    path = tmp_path / "configs" / "inference.json"
    document = json.loads(path.read_text())
    document["network_def"].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises((InputError, ModelError), match=message):
        load_segmenter(f"monai:{tmp_path}", output="logits")


# --- transformers ---------------------------------------------------------------------------------------------------


def segformer(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        num_labels=5,
    )
    network = settle(transformers.SegformerForSemanticSegmentation(config))
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]).save_pretrained(folder)
    return network


def test_segformer_equals_the_library_at_input_size(tmp_path):
    network = segformer(tmp_path)
    x = image(2, 3, 64, 48)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
    for spec in (f"hf:{tmp_path}", str(tmp_path)):
        model = load_segmenter(spec)
        with torch.inference_mode():
            logits = network(pixel_values=(x - mean) / std).logits
            wanted = nn.functional.interpolate(logits, size=(64, 48), mode="bilinear", align_corners=False)
            assert model.num_classes == 5 and torch.allclose(model(x), wanted, atol=1e-5)
            assert model(image(1, 1, 33, 41)).shape == (1, 5, 33, 41)


def test_segformer_without_statistics_or_head_is_refused(tmp_path):
    network = segformer(tmp_path)
    with pytest.raises(InputError, match="return logits"):
        load_segmenter(f"hf:{tmp_path}", output="probabilities")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="mean and std"):
        load_segmenter(f"hf:{tmp_path}")
    assert load_segmenter(f"hf:{tmp_path}", mean=0.5, std=0.5).num_classes == 5
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("decode_head.classifier")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"2 missing \(decode_head.classifier.bias, .*fine-tuned"):
        load_segmenter(f"hf:{tmp_path}", mean=0.5, std=0.5)


# --- the own small U-Net, and names ---------------------------------------------------------------------------------


def test_small_unet_of_any_size(tmp_path):
    network = settle(SmallUNet(1, 3, (4, 8, 16)))
    network.save(tmp_path)
    x = image(2, 1, 16, 24)
    for spec in (f"unet:{tmp_path}", tmp_path):
        model = load_segmenter(spec)
        with torch.inference_mode():
            assert torch.allclose(model(x), network(x), atol=1e-6)
            assert model(x[:, :, :13, :21]).shape == (2, 3, 13, 21)


def test_identity_changes_with_the_weights(tmp_path):
    for name in ("a", "b"):
        settle(SmallUNet(1, 2, (4, 8))).save(tmp_path / name)
    first, same = (load_segmenter(tmp_path / name).identity for name in ("a", "b"))
    assert first == same
    SmallUNet(1, 2, (4, 8)).save(tmp_path / "c")
    assert load_segmenter(tmp_path / "c").identity != first


def test_unknown_names_list_the_known_ones(tmp_path):
    for spec in ("nothing", str(tmp_path)):
        with pytest.raises(InputError, match="smp:ARCH:ENCODER:CHECKPOINT"):
            load_segmenter(spec)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_segmenter(str(tmp_path))


def test_repr_shows_the_settings():
    assert "output='logits'" in repr(SegmentationModel(nn.Identity(), num_classes=2, output="logits"))
